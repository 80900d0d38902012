//! Names that are spelled almost like one that is not there, for error messages.
//!
//! Must not know what the names name.

/// How many near names an error lists.
const NEAR: usize = 5;

/// The names with a part that is spelled most like the wanted one, nearest first. `*` and `?` of
/// patterns do not count.
pub(crate) fn near<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    // A long text is no name's misspelling, and distances take time.
    let text: Vec<char> = wanted.chars().filter(|c| !matches!(c, '*' | '?')).take(256).collect();
    let mut names: Vec<(usize, &str)> =
        names.into_iter().map(|name| (distance_to_a_part(&text, name), name)).collect();
    // Stable: equally near names stay in their order.
    names.sort_by_key(|&(distance, _)| distance);
    names.into_iter().take(NEAR).map(|(_, name)| name.to_owned()).collect()
}

/// Fewest insertions, deletions and replacements that turn `text` into some part of `name` (P. H.
/// Sellers, 1980).
fn distance_to_a_part(text: &[char], name: &str) -> usize {
    // costs[j]: best cost of the text so far against a part of the name that ends before its
    // character j.
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
