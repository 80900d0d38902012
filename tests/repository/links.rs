//! Links between Markdown files lead to files and headings that exist. Pages of `docs` link only to
//! pages of `docs`, because they are also a book, and the book lists all of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::{files, markdown};

/// The pages by path, with their text.
fn pages() -> BTreeMap<String, String> {
    files::texts(&["md"]).into_iter().collect()
}

/// The path of the repository that `target` names in the file `from`. None outside of it.
fn resolved(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// What is wrong with a link to `target` in the page `name`, if anything is.
fn wrong(
    name: &str,
    target: &str,
    pages: &BTreeMap<String, String>,
    exists: &dyn Fn(&str) -> bool,
) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { Some(name.to_string()) } else { resolved(name, file) };
    let Some(path) = path else {
        return Some("is outside of the repository: link to a file of it".into());
    };
    if !exists(&path) {
        return Some(format!("leads nowhere: {path} does not exist"));
    }
    if name.starts_with("docs/") && !path.starts_with("docs/") {
        return Some("leaves the book: link to a page of docs, or name the file".into());
    }
    let anchors = pages.get(&path).map(|page| markdown::anchors(page)).unwrap_or_default();
    if !anchor.is_empty() && !anchors.iter().any(|known| known == anchor) {
        return Some(format!("leads nowhere: {path} has only the anchors {}", anchors.join(", ")));
    }
    None
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let pages = pages();
    let exists = |path: &str| files::root().join(path).exists();
    let mut found = Vec::new();
    for (name, text) in &pages {
        for (line, target) in markdown::links(text) {
            if let Some(why) = wrong(name, &target, &pages, &exists) {
                found.push(format!("{name}:{line}: the link {target} {why}"));
            }
        }
    }
    assert!(found.is_empty(), "{} wrong links:\n{}", found.len(), found.join("\n"));
}

#[test]
fn the_book_has_every_page() {
    let pages = pages();
    let summary = markdown::links(&pages["docs/SUMMARY.md"]);
    let listed: BTreeSet<String> =
        summary.iter().map(|(_, target)| format!("docs/{target}")).collect();
    let all: BTreeSet<String> = pages
        .into_keys()
        .filter(|name| name.starts_with("docs/") && name != "docs/SUMMARY.md")
        .collect();
    assert_eq!(listed, all, "list every page of docs in docs/SUMMARY.md, and no other");
}

#[test]
fn a_wrong_link_is_named_with_what_is_wrong() {
    let pages = BTreeMap::from([("docs/a.md".to_string(), "# A\n## B c\n".to_string())]);
    let exists = |path: &str| ["docs/a.md", "README.md"].contains(&path);
    let wrong = |target: &str| wrong("docs/x.md", target, &pages, &exists);
    for right in ["a.md#b-c", "a.md", "https://example.org#x", "mailto:a@example.org"] {
        assert_eq!(wrong(right), None, "{right}");
    }
    assert!(wrong("a.md#b").unwrap().contains("has only the anchors a, b-c"));
    assert!(wrong("b.md").unwrap().contains("docs/b.md does not exist"));
    assert!(wrong("../README.md").unwrap().contains("leaves the book"));
    assert!(wrong("../../x.md").unwrap().contains("outside of the repository"));
    assert_eq!(resolved("docs/a.md", "../b/c.md"), Some("b/c.md".into()));
}
