//! The pages in `docs` are also a book: they link only to each other, and the book lists all of them.
//! (That links lead somewhere is checked in `citations`.)

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use crate::files;

/// Text without code: fenced blocks and spans in backticks.
fn prose(text: &str) -> String {
    let mut out = String::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let outside = line.split('`').step_by(2);
            out.push_str(&outside.collect::<Vec<_>>().join("`"));
        }
        out.push('\n');
    }
    out
}

/// The targets of `[text](target)`.
fn links(text: &str) -> Vec<String> {
    let parts = prose(text);
    let targets = parts.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_string()).collect()
}

/// The path of `target`, seen from the file `from`.
fn resolve(from: &str, target: &str) -> String {
    let joined = Path::new(from).parent().unwrap_or(Path::new("")).join(target);
    let mut parts: Vec<String> = Vec::new();
    for component in joined.components() {
        match component {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            _ => {}
        }
    }
    parts.join("/")
}

fn pages() -> BTreeMap<String, String> {
    files::texts(&["md"]).into_iter().collect()
}

#[test]
fn pages_of_the_book_link_only_to_pages_of_the_book() {
    let mut wrong = Vec::new();
    for (name, text) in pages().iter().filter(|(name, _)| name.starts_with("docs/")) {
        for link in links(text).iter().filter(|link| !link.contains("://")) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !resolve(name, target).starts_with("docs/") {
                wrong.push(format!("{name}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "these links lead out of the book:\n{}", wrong.join("\n"));
}

#[test]
fn the_book_has_every_page() {
    let pages = pages();
    let listed: BTreeSet<String> =
        links(&pages["docs/SUMMARY.md"]).iter().map(|link| format!("docs/{link}")).collect();
    let all: BTreeSet<String> = pages
        .into_keys()
        .filter(|name| name.starts_with("docs/") && name != "docs/SUMMARY.md")
        .collect();
    assert_eq!(listed, all);
}

#[test]
fn links_are_read_as_markdown_means_them() {
    assert_eq!(links("a [b](c.md#d) `[e](f)` [g](h)\n```\n[i](j)\n```\n"), ["c.md#d", "h"]);
    assert_eq!(resolve("docs/a.md", "../b/c.md"), "b/c.md");
}
