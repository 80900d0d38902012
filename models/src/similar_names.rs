//! Finds the names with the most similar spelling, for error messages about an unknown name.
//!
//! Own code, because users give a part of a long name (`q_prj` of
//! `model.layers.0.self_attn.q_proj`): that takes the distance to a substring. `strsim` has
//! distances between whole strings only, for which the shortest names would be nearest. Must not
//! know the meaning of names.

/// Most names that an error lists.
const MOST: usize = 5;

/// The names that contain a part with the most similar spelling, most similar first. `*` and `?` of
/// patterns are ignored.
pub(crate) fn similar_names<'a>(
    wanted: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Vec<String> {
    // A text of more than 256 characters is no misspelled name, and the distance takes time.
    let text: Vec<char> = wanted.chars().filter(|c| !matches!(c, '*' | '?')).take(256).collect();
    let mut names: Vec<(usize, &str)> =
        names.into_iter().map(|name| (substring_distance(&text, name), name)).collect();
    // A stable sort: names with the same distance stay in their order.
    names.sort_by_key(|&(distance, _)| distance);
    names.into_iter().take(MOST).map(|(_, name)| name.to_owned()).collect()
}

/// Fewest insertions, deletions and replacements that turn `text` into some substring of `name` (P.
/// H. Sellers, 1980).
fn substring_distance(text: &[char], name: &str) -> usize {
    // costs[j]: the lowest cost of turning the text so far into a substring that ends before the
    // name's character j.
    let name: Vec<char> = name.chars().take(1024).collect();
    let mut costs = vec![0; name.len() + 1];
    for &wanted in text {
        let mut diagonal = costs[0];
        costs[0] += 1;
        for (at, &c) in name.iter().enumerate() {
            let replaced = diagonal + usize::from(c != wanted);
            diagonal = costs[at + 1];
            costs[at + 1] = replaced.min(costs[at] + 1).min(diagonal + 1);
        }
    }
    costs.into_iter().min().unwrap_or(text.len())
}
