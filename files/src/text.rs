//! Escapes text from other parties before it is shown to people or written for machines.
//!
//! An attacker chooses the names of tensors and modules, the text that a parser quotes, and the
//! messages of a peer. A line break in them could fake a line of this program ("Verdict ACCEPTED"),
//! a terminal code could move the cursor, a direction mark could reverse a word, and an invisible
//! character could make two names look equal.
//!
//! The command and the Python package escape all text as the last step before they show it.
//! Escaping earlier is harmless, because escaping twice gives the same text.

use std::fmt::{self, Display, Write};

use serde::Serialize;
use unicode_general_category::{GeneralCategory, get_general_category};

/// Whether a character is visible, stays in its place, and has no other effect.
///
/// The following are not plain: control characters (including line breaks and tabs), marks that
/// change the direction of writing, other invisible characters, line and paragraph separators,
/// tags, and code points that are unassigned or for private use.
pub fn is_plain(c: char) -> bool {
    use GeneralCategory as Of;
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    let category = get_general_category(c);
    let dangerous = matches!(
        category,
        Of::Control
            | Of::Format
            | Of::LineSeparator
            | Of::ParagraphSeparator
            | Of::PrivateUse
            | Of::Surrogate
            | Of::Unassigned
    );
    !dangerous && !is_invisible(c)
}

/// Letters and marks that Unicode defines as invisible ("default ignorable") and that are in none
/// of the categories of [`is_plain`].
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{e0100}'..='\u{e01ef}'
    )
}

/// Text for people, on one line: characters that are not plain are escaped (`\n`, `\u{202e}`).
///
/// Backslashes are not escaped, so escaping text twice gives the same text.
pub fn shown(text: impl Display) -> String {
    let mut out = Escaping(String::new());
    // Writing to a `String` cannot fail. A `Display` that returns an error ends the text early.
    let _ = write!(out, "{text}");
    out.0
}

/// As [`shown`], cut after `most` characters of the original.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => shown(text),
        Some((end, _)) => shown(&text[..end]) + "…",
    }
}

/// As [`shown`], with every run of white space as one space. A long text is cut in the middle: the
/// start of a library's error says where it happened, and the end says what happened.
pub fn condensed(text: impl Display) -> String {
    const WHOLE: usize = 600;
    const START: usize = 400;
    const END: usize = 150;
    let line = text.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let characters: Vec<char> = line.chars().collect();
    if characters.len() < WHOLE {
        return shown(line);
    }
    let part = |of: &[char]| shown(of.iter().collect::<String>());
    format!("{} ... {}", part(&characters[..START]), part(&characters[characters.len() - END..]))
}

struct Escaping(String);

impl Write for Escaping {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if is_plain(c) { self.0.push(c) } else { self.0.extend(c.escape_default()) }
        }
        Ok(())
    }
}

/// Compact JSON in ASCII: every other character is written as `\uXXXX`, or as two of them beyond
/// the basic plane. The result is on one line, has no effect on a terminal, and is the same value
/// for every reader.
///
/// # Errors
/// Those of [`serde_json::to_string`].
pub fn json(value: &(impl Serialize + ?Sized)) -> serde_json::Result<String> {
    serde_json::to_string(value).map(|text| json_in_ascii(&text))
}

/// Escapes the characters of compact JSON that are not ASCII. Such characters occur only in its
/// strings, where `\uXXXX` has the same meaning.
pub fn json_in_ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if (' '..='~').contains(&c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a `String` cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// Longest text of a peer that is shown, in characters.
const LONGEST: usize = 600;

/// A peer's text, escaped and cut after 600 characters ([`shortened`]).
pub fn printable(text: &str) -> String {
    shortened(text, LONGEST)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_direction_and_invisible_characters_are_not_plain() {
        let plain = "az AZ09~ äöß éé 你好 שלום نص हिन्दी 😀 · × ⟨x⟩ ‖ ₂ … – “ ” „";
        assert!(plain.chars().all(is_plain), "{}", shown(plain));
        let not_plain = [
            '\0'..='\u{1f}',
            '\u{7f}'..='\u{9f}',
            '\u{ad}'..='\u{ad}',
            '\u{34f}'..='\u{34f}',
            '\u{61c}'..='\u{61c}',
            '\u{115f}'..='\u{1160}',
            '\u{17b4}'..='\u{17b5}',
            '\u{180b}'..='\u{180f}',
            '\u{200b}'..='\u{200f}',
            '\u{2028}'..='\u{202e}',
            '\u{2060}'..='\u{206f}',
            '\u{3164}'..='\u{3164}',
            '\u{d7fc}'..='\u{d7ff}',
            '\u{e000}'..='\u{f8ff}',
            '\u{fe00}'..='\u{fe0f}',
            '\u{feff}'..='\u{feff}',
            '\u{ffa0}'..='\u{ffa0}',
            '\u{fff0}'..='\u{fffb}',
            '\u{fffe}'..='\u{ffff}',
            '\u{1bca0}'..='\u{1bca3}',
            '\u{1d173}'..='\u{1d17a}',
            '\u{e0000}'..='\u{e0fff}',
            '\u{f0000}'..='\u{10ffff}',
        ];
        for c in not_plain.into_iter().flatten() {
            assert!(!is_plain(c), "{c:?}");
        }
    }

    #[test]
    fn line_breaks_terminal_codes_and_direction_marks_are_escaped() {
        assert_eq!(
            shown("x\nVerdict  ACCEPTED\r\u{1b}[2K\u{202e}\u{2028}"),
            r"x\nVerdict  ACCEPTED\r\u{1b}[2K\u{202e}\u{2028}"
        );
        assert_eq!(shortened("ab\ncd", 3), r"ab\n…");
        assert_eq!(shortened("ab\n", 3), r"ab\n");
        assert_eq!(
            json(&"\u{202e}\u{7f}\u{e0041}ä\n").unwrap(),
            r#""\u202e\u007f\udb40\udc41\u00e4\n""#
        );
    }

    #[test]
    fn a_long_error_keeps_its_start_and_end_on_one_line() {
        assert_eq!(condensed("a\n\t b\u{1b}"), r"a b\u{1b}");
        let long = format!("where {} what", "x".repeat(1000));
        let short = condensed(&long);
        assert_eq!(short.chars().count(), 400 + 5 + 150);
        assert!(short.starts_with("where x") && short.ends_with("x what"), "{short}");
        assert_eq!(condensed("x".repeat(599)).len(), 599);
    }

    proptest! {
        #[test]
        fn shown_text_is_plain_and_stays_the_same_when_shown_again(text in any::<String>()) {
            let once = shown(&text);
            prop_assert!(once.chars().all(is_plain));
            prop_assert_eq!(shown(&once), once);
        }

        #[test]
        fn json_is_ascii_on_one_line_and_the_same_value(key in any::<String>(), text in any::<String>()) {
            let value = serde_json::json!({ key: [text, "\u{1f600}\u{2028}"] });
            let json = json(&value).unwrap();
            prop_assert!(json.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value);
        }
    }
}
