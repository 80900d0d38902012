//! Reads headings, anchors and links of Markdown pages.

use std::collections::BTreeMap;

/// The lines outside of fenced code, with their numbers from 1 on.
pub fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fence = None;
    page.lines().enumerate().filter_map(move |(number, line)| {
        let mark = ["```", "~~~"].into_iter().find(|mark| line.trim_start().starts_with(mark));
        match (fence, mark) {
            (None, Some(_)) => fence = mark,
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) => return Some((number + 1, line)),
            _ => {}
        }
        None
    })
}

/// A text without the marks of code and emphasis.
pub fn plain(text: &str) -> String {
    text.replace(['`', '*'], "").trim().to_string()
}

/// The headings of a page, as plain text.
pub fn headings(page: &str) -> Vec<String> {
    let heading = |(_, line): (usize, &str)| {
        let text = line.trim_start_matches('#');
        (text.len() < line.len() && text.starts_with(' ')).then(|| plain(text))
    };
    prose(page).filter_map(heading).collect()
}

/// The anchors of a page: those of its headings, as GitHub and mdBook make them, and those that are
/// written as `<a id="…">`.
pub fn anchors(page: &str) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut of_heading = |heading: &String| {
        let kept = heading.to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let before = seen.entry(slug.clone()).or_insert(0);
        *before += 1;
        if *before == 1 { slug } else { format!("{slug}-{}", *before - 1) }
    };
    let mut found: Vec<String> = headings(page).iter().map(&mut of_heading).collect();
    for (_, line) in prose(page) {
        let written = line.split("<a id=\"").skip(1).filter_map(|rest| rest.split_once('"'));
        found.extend(written.map(|(anchor, _)| anchor.to_string()));
    }
    found
}

/// The targets of the links of a page, `[text](target)` and `[label]: target`, with their lines.
pub fn links(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let target = |text: &str| text.split(' ').next().unwrap_or_default().to_string();
    for (number, line) in prose(page) {
        // Every second part is code.
        let line = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        if let Some((_, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
            found.push((number, target(rest)));
        }
        for (at, _) in line.match_indices("](") {
            if let Some((inside, _)) = line[at + "](".len()..].split_once(')') {
                found.push((number, target(inside)));
            }
        }
    }
    found
}

#[test]
fn headings_anchors_and_links_are_read_as_markdown_means_them() {
    let page = "# A: b `c`\n## Row (JSON)\n## Row (JSON)\n<a id=\"step\"></a>\n```sh\n# no\n```\n";
    assert_eq!(headings(page), ["A: b c", "Row (JSON)", "Row (JSON)"]);
    assert_eq!(anchors(page), ["a-b-c", "row-json", "row-json-1", "step"]);
    let page = "a [b](c.md#d) `[e](f)` [g](h)\n```\n[i](j)\n```\n[k]: l.md 'title'\n";
    let expected = [(1, "c.md#d"), (1, "h"), (5, "l.md")];
    assert_eq!(links(page), expected.map(|(line, target)| (line, target.to_string())));
}
