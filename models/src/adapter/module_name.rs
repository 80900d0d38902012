//! Checks which names of submodules can be file names, and sorts them with numbers in numerical
//! order.
//!
//! A name becomes `<name>.onnx` in the output folder, so a name that could leave the folder or
//! clash with another is refused. Must not know where names come from.

use std::cmp::Ordering;

use crate::Error;

/// Longest name, in bytes: common file systems allow 255 for a file name, and an extension is
/// added.
pub(crate) const MAX_BYTES: usize = 240;

/// Refuses a name that is not a chain of parts joined by dots, or that has a character with a
/// meaning for some file system or shell.
pub(crate) fn check(name: &str) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::ModuleName { module: name.to_owned(), reason });
    if name.is_empty() {
        return refuse("is empty, and a module must have a name".into());
    }
    if name.len() > MAX_BYTES {
        return refuse(format!(
            "is {} bytes long; at most {MAX_BYTES} fit into a file name",
            name.len()
        ));
    }
    if name.split('.').any(str::is_empty) {
        return refuse("has an empty part between dots, so it is not the name of a module".into());
    }
    match name.chars().find(|c| !c.is_ascii_graphic() || r#"/\:*?"<>|"#.contains(*c)) {
        Some(c) => refuse(format!("holds the character {c:?}, which is not safe in a file name")),
        None => Ok(()),
    }
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
    fn names_that_could_leave_the_folder_are_refused() {
        let long = "a".repeat(MAX_BYTES + 1);
        let hostile = [
            "",
            ".",
            "..",
            "../x",
            "a/../b",
            "/etc/passwd",
            "a..b",
            ".a",
            "a.",
            "a\\b",
            "a\nb",
            "a\0b",
            "a b",
            "C:x",
            "é",
            &long,
        ];
        for name in hostile {
            assert!(matches!(check(name), Err(Error::ModuleName { .. })), "{name:?}");
        }
        for name in ["model.layers.0.self_attn.q_proj", "lm_head", "h.0.c-attn", &long[..MAX_BYTES]]
        {
            check(name).unwrap();
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
