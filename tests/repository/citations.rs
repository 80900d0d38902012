//! Resolves every citation of a page, in code and in pages.
//!
//! Code and comments cite a page as docs/NAME.md, and a section of it with the heading in quotation
//! marks. The page and the heading must exist.

use std::collections::BTreeMap;

use crate::{
    files,
    markdown::{headings, plain},
};

/// The pages by path (with `/`), each with the text of its headings.
type Pages = BTreeMap<String, Vec<String>>;

/// A citation that leads nowhere.
#[derive(Debug, PartialEq, Eq)]
struct Broken {
    line: usize,
    why: String,
}

fn broken(line: usize, why: impl Into<String>) -> Broken {
    Broken { line, why: why.into() }
}

/// The text without line breaks and comment leaders, and the line of each of its bytes. A citation
/// may be wrapped at any space.
fn unwrapped(text: &str) -> (String, Vec<usize>) {
    let (mut joined, mut lines) = (String::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let leaders = ["//!", "///", "//", "#", ">", "*"];
        let line = leaders.iter().find_map(|leader| line.strip_prefix(leader)).unwrap_or(line);
        // A string that continues in the next line.
        let line = line.strip_suffix('\\').unwrap_or(line).trim();
        joined.push_str(line);
        joined.push(' ');
        lines.resize(joined.len(), number + 1);
    }
    (joined, lines)
}

/// Whether `cited` names this heading. A citation may leave out the remark in parentheses at its
/// end, such as the version of a format.
fn is_cited_as(heading: &str, cited: &str) -> bool {
    let cited = plain(cited);
    let without_remark = heading.strip_suffix(')').and_then(|rest| rest.rsplit_once(" ("));
    heading == cited || without_remark.is_some_and(|(name, _)| name == cited)
}

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
        for heading in cited_headings(&text[at + end..]) {
            if headings.iter().filter(|known| is_cited_as(known, heading)).count() != 1 {
                let nearest = nearest(&plain(heading), headings);
                let why = format!(
                    "cites {page}, \"{heading}\", but the page has no such heading, or several: \
                     cite one of its headings{nearest}"
                );
                found.push(broken(line, why));
            }
        }
        let other_forms = [", section ", ", step ", " section "];
        if other_forms.iter().any(|form| text[at + end..].starts_with(form)) {
            let why =
                format!("cites a part of {page} without its heading: cite {page}, \"HEADING\"");
            found.push(broken(line, why));
        }
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

/// Panics with a line for each broken citation.
fn none_broken(found: Vec<(String, Vec<Broken>)>) {
    let lines: Vec<String> = found
        .iter()
        .flat_map(|(path, all)| all.iter().map(move |b| format!("{path}:{}: {}", b.line, b.why)))
        .collect();
    assert!(lines.is_empty(), "{} broken:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn every_citation_leads_to_a_heading() {
    let page = |(name, text): (String, String)| (name, headings(&text));
    let pages: Pages = files::texts(&["md"]).into_iter().map(page).collect();
    // The tests of these checks contain broken citations.
    let all = files::texts(&["rs", "md", "toml", "py", "proto"]).into_iter();
    let all = all.filter(|(name, _)| !name.starts_with("tests/repository/"));
    none_broken(all.map(|(name, text)| (name, broken_citations(&text, &pages))).collect());
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
        for numbered in ["protocol 5.1", "protocol section 4", "sections 2 and 9"] {
            assert!(citations(numbered)[0].1.contains("sections have no numbers"), "{numbered}");
        }
        for part in ["docs/protocol.md, section \"The claim\"", "(docs/protocol.md, section 9)"] {
            assert!(citations(part)[0].1.contains("without its heading"), "{part}");
        }
        // A line in a block of code is not a heading.
        assert_eq!(citations("docs/protocol.md, \"no heading\"").len(), 1);
    }
}
