//! Checks names of submodules, makes file names of them, and sorts them with numbers in numerical
//! order.
//!
//! A module is written to a file of its name, in which all that has a meaning for some file system
//! or shell is escaped. Must not know where names come from.

use std::cmp::Ordering;

use zklora_files::text;

use crate::Error;

/// Longest escaped name, in bytes: common file systems allow 255 for a file name, and an extension
/// is added.
pub(crate) const MAX_BYTES: usize = 240;

/// Refuses a name that is not a chain of parts joined by dots, that has a character which is
/// invisible or moves others, or whose file would have too long a name.
pub(crate) fn check(name: &str) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::ModuleName { module: name.to_owned(), reason });
    if name.is_empty() {
        return refuse("is empty, and a module must have a name".into());
    }
    if name.split('.').any(str::is_empty) {
        return refuse("has an empty part between dots, so it is not the name of a module".into());
    }
    if let Some(c) = name.chars().find(|c| !text::is_plain(*c)) {
        return refuse(format!("holds the character {c:?}, which cannot be seen"));
    }
    let bytes = escaped(name).len();
    if bytes > MAX_BYTES {
        let reason =
            format!("is {bytes} bytes long as a file name; at most {MAX_BYTES} fit into one");
        return refuse(reason);
    }
    Ok(())
}

/// Whether a module's name ends in `end`, as a whole or after a dot.
pub(crate) fn ends_in(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A name as part of a file name: every byte but ASCII letters, digits and `.`, `_`, `-`, `+`, `=`,
/// `@`, `~`, `,` is `%` and two hexadecimal digits. Different names stay different.
pub(crate) fn escaped(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte.is_ascii_alphanumeric() || b"._-+=@~,".contains(&byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Compares names part by part, and parts that are numbers by value: `layers.2` comes before
/// `layers.10`.
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    let mut lefts = left.split('.');
    let mut rights = right.split('.');
    loop {
        let order = match (lefts.next(), rights.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) => compare_parts(a, b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn compare_parts(left: &str, right: &str) -> Ordering {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match (digits(left), digits(right)) {
        (true, true) => {
            // The numbers may have any length. Without leading zeros, the longer one is larger.
            let (a, b) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b)).then_with(|| left.cmp(right))
        }
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => left.cmp(right),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_are_none_or_cannot_be_seen_are_refused() {
        let long = "a".repeat(MAX_BYTES + 1);
        let cjk = "\u{6a21}".repeat(MAX_BYTES / 9 + 1);
        let hostile = [
            "",
            ".",
            "..",
            "../x",
            "a/../b",
            "a..b",
            ".a",
            "a.",
            "a\nb",
            "a\0b",
            "a\u{202e}b",
            "a\u{200b}b",
            &long,
            &cjk,
        ];
        for name in hostile {
            assert!(matches!(check(name), Err(Error::ModuleName { .. })), "{name:?}");
        }
        for name in [
            "model.layers.0.self_attn.q_proj",
            "lm_head",
            "h.0.c-attn",
            "blocks.0.to q",
            "experts.lang:en.proj",
            "\u{6a21}\u{578b}.q",
            "/etc/passwd",
            "C:x",
            &long[..MAX_BYTES],
        ] {
            check(name).unwrap();
        }
    }

    proptest! {
        /// No name leaves its folder, and no two names have one file.
        #[test]
        fn escaped_names_are_plain_and_different(a in ".{0,20}", b in ".{0,20}") {
            for name in [&a, &b] {
                let escaped = escaped(name);
                prop_assert!(escaped.bytes().all(|c| c.is_ascii_graphic() && c != b'/' && c != b'\\'));
                prop_assert!(!escaped.contains([':', '*', '?', '"', '<', '>', '|']));
            }
            prop_assert_eq!(escaped(&a) == escaped(&b), a == b);
        }
    }

    #[test]
    fn names_of_transformers_are_their_own_files() {
        for (name, file) in [
            ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj"),
            ("blocks.0.to q", "blocks.0.to%20q"),
            ("lang:en", "lang%3Aen"),
            ("/etc/passwd", "%2Fetc%2Fpasswd"),
            ("50%", "50%25"),
        ] {
            assert_eq!(escaped(name), file);
        }
    }

    #[test]
    fn layer_2_comes_before_layer_10() {
        let mut names = ["l.10.q", "l.2.v", "l.2.q", "l", "l.02.q", "l.x.q", "a.99"];
        names.sort_by(|a, b| compare(a, b));
        assert_eq!(names, ["a.99", "l", "l.02.q", "l.2.q", "l.2.v", "l.10.q", "l.x.q"]);
    }

    proptest! {
        #[test]
        fn the_order_is_total(mut names in prop::collection::vec("[a0-2]{0,2}(\\.[a0-2]{0,2}){0,2}", 3)) {
            for (a, b) in [(0, 1), (1, 2), (0, 2)] {
                prop_assert_eq!(compare(&names[a], &names[b]), compare(&names[b], &names[a]).reverse());
                prop_assert_eq!(compare(&names[a], &names[b]) == Ordering::Equal, names[a] == names[b]);
            }
            names.sort_by(|a, b| compare(a, b));
            prop_assert_ne!(compare(&names[0], &names[2]), Ordering::Greater);
        }
    }
}
