//! Resolves every citation of a page, in code and in pages.
//!
//! Code and comments cite a page as docs/NAME.md, and a section of it with the heading in quotation
//! marks. Pages link to each other. Both must lead somewhere.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::files;

/// The pages by path (with `/`), each with the text of its headings.
type Pages = BTreeMap<String, Vec<String>>;

/// A citation or a link that leads nowhere.
#[derive(Debug, PartialEq, Eq)]
struct Broken {
    line: usize,
    why: String,
}

fn broken(line: usize, why: impl Into<String>) -> Broken {
    Broken { line, why: why.into() }
}

// ---- Text ----

/// The text without line breaks and comment leaders, and the line of each of its bytes. A citation
/// may be wrapped at any space.
fn unwrapped(text: &str) -> (String, Vec<usize>) {
    let (mut joined, mut lines) = (String::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let leaders = ["//!", "///", "//", "#", ">", "*"];
        let line = leaders.iter().find_map(|leader| line.strip_prefix(leader)).unwrap_or(line);
        // A string that goes on in the next line.
        let line = line.strip_suffix('\\').unwrap_or(line).trim();
        joined.push_str(line);
        joined.push(' ');
        lines.resize(joined.len(), number + 1);
    }
    (joined, lines)
}

/// The text of a heading as it is cited: without the marks of code and emphasis.
fn plain(heading: &str) -> String {
    heading.replace(['`', '*'], "").trim().to_string()
}

/// Whether `cited` names this heading. A citation may leave out the remark in parentheses at its
/// end, such as the version of a format.
fn is_cited_as(heading: &str, cited: &str) -> bool {
    let cited = plain(cited);
    let without_remark = heading.strip_suffix(')').and_then(|rest| rest.rsplit_once(" ("));
    heading == cited || without_remark.is_some_and(|(name, _)| name == cited)
}

/// The lines of a page that are neither code nor empty, with their numbers.
fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
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

/// The headings of a page.
fn headings(page: &str) -> Vec<String> {
    let heading = |(_, line): (usize, &str)| {
        let text = line.trim_start_matches('#');
        (text.len() < line.len() && text.starts_with(' ')).then(|| plain(text))
    };
    prose(page).filter_map(heading).collect()
}

/// The anchors of headings, as GitHub and mdBook make them.
fn anchors(headings: &[String]) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let anchor = |heading: &String| {
        let kept = heading.to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let before = seen.entry(slug.clone()).or_insert(0);
        *before += 1;
        if *before == 1 { slug } else { format!("{slug}-{}", *before - 1) }
    };
    headings.iter().map(anchor).collect()
}

// ---- Citations ----

/// The citations in `text` that lead nowhere.
fn broken_citations(text: &str, pages: &Pages) -> Vec<Broken> {
    let (text, lines) = unwrapped(text);
    let mut found = Vec::new();
    for (at, _) in text.match_indices("docs/") {
        let name: String = text[at..]
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || ['/', '_', '-', '.'].contains(c))
            .collect();
        let Some(end) = name.rfind(".md").map(|dot| dot + ".md".len()) else { continue };
        let (page, line) = (&name[..end], lines[at]);
        // A longer path, such as one of a page in another repository.
        if text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '-') {
            continue;
        }
        let Some(headings) = pages.get(page) else {
            found.push(broken(
                line,
                format!("cites {page}, which does not exist: correct the path"),
            ));
            continue;
        };
        found.extend(cited_headings(&text[at + end..]).filter_map(|heading| {
            (headings.iter().filter(|known| is_cited_as(known, heading)).count() != 1).then(|| {
                let nearest = nearest(&plain(heading), headings);
                broken(
                    line,
                    format!(
                        "cites {page}, \"{heading}\", but the page has no such heading, or several: \
                         cite one of its headings{nearest}"
                    ),
                )
            })
        }));
    }
    found.extend(numbered_sections(&text).into_iter().map(|(at, cited)| {
        broken(
            lines[at],
            format!(
                "cites \"{cited}\", but sections have no numbers: \
                 cite the heading, as in docs/protocol.md, \"The claim\""
            ),
        )
    }));
    found
}

/// The headings after the name of a page: `, "A"` and any further `, "B"` or ` and "B"`.
fn cited_headings(mut rest: &str) -> impl Iterator<Item = &str> {
    let mut first = true;
    std::iter::from_fn(move || {
        // A page name in code marks; quotation marks in a string are escaped.
        rest = rest.strip_prefix('`').unwrap_or(rest);
        let after = [", ", " and "].into_iter().filter(|join| !first || *join == ", ").find_map(
            |join| {
                let quoted = rest.strip_prefix(join)?;
                quoted.strip_prefix('"').or_else(|| quoted.strip_prefix("\\\""))
            },
        )?;
        let end = after.find('"')?;
        rest = &after[end + 1..];
        first = false;
        Some(after[..end].trim_end_matches('\\'))
    })
}

fn nearest(heading: &str, headings: &[String]) -> String {
    let words =
        |text: &str| -> Vec<String> { text.to_lowercase().split(' ').map(Into::into).collect() };
    let wanted = words(heading);
    let common = |known: &&String| words(known).iter().filter(|word| wanted.contains(word)).count();
    match headings.iter().max_by_key(common) {
        Some(known) if common(&known) > 0 => format!(", such as \"{known}\""),
        _ => String::new(),
    }
}

/// Citations of a section by its number: `protocol 5.1`, `section 4`. Other documents have numbered
/// sections: those of an RFC or of a paper are named before the number.
fn numbered_sections(text: &str) -> Vec<(usize, String)> {
    let lower = text.to_ascii_lowercase();
    let mut found = Vec::new();
    for word in ["section ", "sections ", "protocol "] {
        for (at, _) in lower.match_indices(word) {
            let number: String =
                lower[at + word.len()..].chars().take_while(char::is_ascii_digit).collect();
            let begins_a_word = !lower[..at].ends_with(|c: char| c.is_alphanumeric());
            let before: String = {
                let tail: Vec<char> = lower[..at].chars().rev().take(24).collect();
                tail.into_iter().rev().collect()
            };
            let elsewhere =
                ["rfc", "arxiv", "eip", "fips"].iter().any(|name| before.contains(name));
            if !number.is_empty() && begins_a_word && !elsewhere {
                found.push((at, format!("{word}{number}")));
            }
        }
    }
    found
}

// ---- Links ----

/// The relative links of a page that lead nowhere. `path` is the page's own, `exists` says whether
/// a path of the repository exists.
fn broken_links(
    path: &str,
    page: &str,
    pages: &Pages,
    exists: &dyn Fn(&str) -> bool,
) -> Vec<Broken> {
    let mut found = Vec::new();
    for (line, target) in links(page) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = target.split_once('#').map_or((target, None), |(f, a)| (f, Some(a)));
        let Some(file) =
            (if file.is_empty() { Some(path.to_string()) } else { resolved(path, file) })
        else {
            found.push(broken(line, format!("links to {target}, which is outside the repository")));
            continue;
        };
        if !exists(&file) {
            found.push(broken(
                line,
                format!("links to {target}, but {file} does not exist: correct the link"),
            ));
            continue;
        }
        if let Some(anchor) = anchor {
            let known = pages.get(&file).map(|headings| anchors(headings)).unwrap_or_default();
            if !known.iter().any(|known| known == anchor) {
                let nearest = nearest(
                    &anchor.replace('-', " "),
                    &known.iter().map(|a| a.replace('-', " ")).collect::<Vec<_>>(),
                );
                let nearest = nearest.replace(' ', "-").replace(",-such-as-", ", such as ");
                found.push(broken(
                    line,
                    format!("links to {target}, but {file} has no heading with this anchor{nearest}: correct the anchor"),
                ));
            }
        }
    }
    found
}

/// The targets of the links in a page: `[text](target)` and `[label]: target`.
fn links(page: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(page) {
        let code = |at: usize| line[..at].matches('`').count() % 2 == 1;
        if let Some((_, target)) = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
            found.push((number, target.split(' ').next().unwrap_or_default()));
        }
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + "](".len()..];
            if let (Some(end), false) = (rest.find(')'), code(at)) {
                found.push((number, rest[..end].split(' ').next().unwrap_or_default()));
            }
        }
    }
    found
}

/// The path of the repository that `target` names in the page `path`. None outside of it.
fn resolved(path: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = path.split('/').collect();
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

// ---- The repository ----

fn slashed(path: &Path) -> String {
    path.iter().map(|part| part.to_str().unwrap()).collect::<Vec<_>>().join("/")
}

fn pages() -> Pages {
    let page = |path: &PathBuf| {
        let text = fs::read_to_string(files::root().join(path)).unwrap();
        (slashed(path), headings(&text))
    };
    files::with_extensions(&["md"]).iter().map(page).collect()
}

/// Panics with a line for each broken citation or link.
fn none_broken(found: Vec<(String, Vec<Broken>)>) {
    let lines: Vec<String> = found
        .iter()
        .flat_map(|(path, all)| all.iter().map(move |b| format!("{path}:{}: {}", b.line, b.why)))
        .collect();
    assert!(lines.is_empty(), "{} broken:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn every_citation_leads_to_a_heading() {
    let pages = pages();
    let all = files::with_extensions(&["rs", "md", "toml", "py", "proto"]);
    let cites = |path: &PathBuf| {
        // This file has broken citations to test itself with.
        let own = path.ends_with("repository/citations.rs");
        let text = fs::read_to_string(files::root().join(path)).unwrap();
        (!own).then(|| (slashed(path), broken_citations(&text, &pages)))
    };
    none_broken(all.iter().filter_map(cites).collect());
}

#[test]
fn every_link_between_pages_leads_to_a_heading() {
    let pages = pages();
    let exists = |path: &str| files::root().join(path).exists();
    let links = |path: &String| {
        let text = fs::read_to_string(files::root().join(path)).unwrap();
        (path.clone(), broken_links(path, &text, &pages, &exists))
    };
    none_broken(pages.keys().map(links).collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Pages {
        let page =
            "# The protocol\n\n## The claim\n\n## Proof (`.pf`)\n\n```text\n# no heading\n```\n";
        BTreeMap::from([("docs/protocol.md".to_string(), headings(page))])
    }

    fn citations(text: &str) -> Vec<(usize, String)> {
        broken_citations(text, &example()).into_iter().map(|b| (b.line, b.why)).collect()
    }

    #[test]
    fn citations_that_lead_somewhere_are_accepted() {
        for good in [
            "docs/protocol.md",
            "(docs/protocol.md, \"The claim\")",
            "`docs/protocol.md`, \"Proof (.pf)\", and more",
            "docs/protocol.md, \"Proof\"",
            "/// wrapped (docs/protocol.md, \"The\n/// claim\" and \"The protocol\") here",
            "x = \"see docs/protocol.md, \\\"The claim\\\"\"",
            "RFC 6962, section 2.1; the protocol has a version; protocol version 1",
            "https://example.org/docs/other.md",
        ] {
            assert_eq!(citations(good), vec![], "{good}");
        }
    }

    #[test]
    fn a_broken_citation_is_named_with_its_line_and_what_to_do() {
        let found = citations("//! First\n//! (docs/protocol.md, \"The\n//! claims\").\n");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, 2);
        assert!(
            found[0].1.contains("cite one of its headings, such as \"The claim\""),
            "{found:?}"
        );
        let found = citations("a\nb docs/protocols.md\n");
        assert_eq!(found[0].0, 2);
        assert!(found[0].1.contains("docs/protocols.md, which does not exist"), "{found:?}");
        let second = citations("docs/protocol.md, \"The claim\" and \"Nowhere\"");
        assert!(second[0].1.contains("\"Nowhere\""), "{second:?}");
        for numbered in [
            "protocol 5.1",
            "protocol section 4",
            "(docs/protocol.md, section 9)",
            "sections 2 and 9",
        ] {
            assert!(citations(numbered)[0].1.contains("sections have no numbers"), "{numbered}");
        }
        // A heading in a block of code is none.
        assert_eq!(citations("docs/protocol.md, \"no heading\"").len(), 1);
    }

    #[test]
    fn a_broken_link_is_named_with_its_line_and_what_to_do() {
        let exists = |path: &str| ["docs/protocol.md", "README.md"].contains(&path);
        let broken = |page: &str| broken_links("docs/x.md", page, &example(), &exists);
        for good in [
            "[a](protocol.md#the-claim) [b](../README.md) [c](https://example.org#x)",
            "`[a](nowhere.md)`",
            "[a](protocol.md#proof-pf)",
            "```\n[a](nowhere.md)\n```",
        ] {
            assert_eq!(broken(good), vec![], "{good}");
        }
        let found = broken("\n[a](protocol.md#the-claims)\n");
        assert_eq!((found.len(), found[0].line), (1, 2));
        assert!(found[0].why.contains("such as \"the-claim\""), "{found:?}");
        assert!(broken("[a](nowhere.md)")[0].why.contains("docs/nowhere.md does not exist"));
        assert!(broken("[a]: ../../x.md")[0].why.contains("outside the repository"));
    }

    #[test]
    fn equal_headings_have_numbered_anchors() {
        let twice = ["Row: a".to_string(), "Row: a".to_string()];
        assert_eq!(anchors(&twice), ["row-a", "row-a-1"]);
    }
}
