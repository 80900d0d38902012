//! Links between Markdown files lead to files and headings that exist. Pages of `docs` link only to
//! pages of `docs`, because they are also a book, and the book lists all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use crate::tracked;

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

/// The anchors of the headings, as hosts of git repositories and mdBook make them, and those that
/// are written out.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        if !fenced && heading.len() < line.len() && heading.starts_with(' ') {
            let kept = heading.trim().to_lowercase();
            let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            anchors.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
        for written in line.split("<a id=\"").skip(1) {
            anchors.insert(written.split('"').next().unwrap_or_default().to_string());
        }
    }
    anchors
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

fn pages() -> Option<BTreeMap<String, String>> {
    Some(tracked::files()?.into_iter().filter(|(name, _)| name.ends_with(".md")).collect())
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let Some(pages) = pages() else { return };
    let mut wrong = Vec::new();
    for (name, text) in &pages {
        for link in links(text) {
            if link.contains("://") {
                continue;
            }
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let path = if target.is_empty() { name.clone() } else { resolve(name, target) };
            let exists = tracked::root().join(&path).exists();
            let has_anchor = anchor.is_empty()
                || pages.get(&path).is_some_and(|to| anchors(to).contains(anchor));
            let leaves = name.starts_with("docs/") && !path.starts_with("docs/");
            if !exists || !has_anchor || leaves {
                wrong.push(format!("{name}: {link}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "these links lead nowhere, or out of the book:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_book_has_every_page() {
    let Some(pages) = pages() else { return };
    let listed: BTreeSet<String> =
        links(&pages["docs/SUMMARY.md"]).iter().map(|link| format!("docs/{link}")).collect();
    let all: BTreeSet<String> = pages
        .into_keys()
        .filter(|name| name.starts_with("docs/") && name != "docs/SUMMARY.md")
        .collect();
    assert_eq!(listed, all);
}

#[test]
fn links_and_anchors_are_read_as_markdown_means_them() {
    assert_eq!(links("a [b](c.md#d) `[e](f)` [g](h)\n```\n[i](j)\n```\n"), ["c.md#d", "h"]);
    let text =
        "# A: b `c`\n## Row proof (JSON, version 1)\n<a id=\"step-9\"></a>\n```sh\n# no\n```\n";
    let expected = ["a-b-c", "row-proof-json-version-1", "step-9"];
    assert_eq!(anchors(text), expected.map(String::from).into());
    assert_eq!(resolve("docs/a.md", "../b/c.md"), "b/c.md");
}
