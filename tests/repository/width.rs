//! Lines have at most 100 columns. `cargo fmt` checks Rust code and `mdformat` Markdown; this test
//! checks what they do not: comments of Rust, comments and docstrings of Python, and every line of
//! shell scripts, TOML and Protocol Buffers.
//!
//! A longer line is accepted if it cannot be wrapped: a single word (an address), a row of a
//! Markdown table, or a line of a script or of TOML that holds a string.

use crate::files;

const WIDTH: usize = 100;

#[derive(Clone, Copy, PartialEq)]
enum Language {
    Rust,
    Python,
    Proto,
    /// Shell and TOML: comments begin with `#`.
    Script,
}

fn language(name: &str) -> Option<Language> {
    if name == ".ci/run" {
        return Some(Language::Script);
    }
    match name.rsplit_once('.')?.1 {
        "rs" => Some(Language::Rust),
        "py" | "pyi" => Some(Language::Python),
        "proto" => Some(Language::Proto),
        "sh" | "toml" => Some(Language::Script),
        _ => None,
    }
}

/// The lines that are too long: their numbers, from 1 on.
fn long_lines(language: Language, text: &str) -> Vec<usize> {
    // Within `"""`, and whether that is a docstring: one that begins its line.
    let (mut in_string, mut in_docstring) = (false, false);
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        if !in_string {
            in_docstring = trimmed.trim_start_matches('r').starts_with("\"\"\"");
        }
        let is_checked = match language {
            Language::Rust => trimmed.starts_with("//"),
            Language::Python => in_docstring || (!in_string && trimmed.starts_with('#')),
            Language::Proto => true,
            Language::Script => trimmed.starts_with('#') || !line.contains(['"', '\'']),
        };
        in_string ^= line.matches("\"\"\"").count() % 2 == 1;
        let content = trimmed.trim_start_matches(['/', '!', '#', ' ']);
        let can_be_wrapped = content.contains(' ') && !content.starts_with('|');
        if is_checked && can_be_wrapped && line.chars().count() > WIDTH {
            found.push(number + 1);
        }
    }
    found
}

#[test]
fn no_line_is_longer_than_100_columns() {
    let mut files = files::texts(&["rs", "py", "pyi", "proto", "sh", "toml"]);
    let script = std::fs::read_to_string(files::root().join(".ci/run")).unwrap();
    files.push((".ci/run".into(), script));
    let mut found = Vec::new();
    for (name, text) in &files {
        if let Some(language) = language(name) {
            found.extend(long_lines(language, text).iter().map(|line| format!("{name}:{line}")));
        }
    }
    assert!(found.is_empty(), "longer than {WIDTH} columns; wrap them:\n{}", found.join("\n"));
}

#[test]
fn long_lines_are_found_where_they_can_be_wrapped() {
    let long = "word ".repeat(25);
    let address = format!("https://{}", "x".repeat(100));
    let count = |language, text: &str| long_lines(language, text).len();
    assert_eq!(
        count(Language::Rust, &format!("/// {long}\n    // {long}\nlet a = \"{long}\";\n")),
        2
    );
    assert_eq!(count(Language::Rust, &format!("// {address}\n")), 0);
    let python =
        format!("a = '{long}'\n\"\"\"A.\n\n{long}\n\"\"\"\n{long}\n# {long}\n\"\"\"{long}\"\"\"\n");
    assert_eq!(long_lines(Language::Python, &python), [4, 7, 8]);
    let assigned = format!("a = \"\"\"\n{long}\n\"\"\"\nb = 1\n{long}\n");
    assert_eq!(count(Language::Python, &assigned), 0);
    assert_eq!(count(Language::Script, &format!("# {long}\n{long}\necho \"{long}\"\n")), 2);
    assert_eq!(count(Language::Proto, &format!("bytes a = 1; // {long}\n")), 1);
    // Columns are characters, not bytes.
    assert_eq!(count(Language::Rust, &format!("// {}\n", "ä ".repeat(48))), 0);
}
