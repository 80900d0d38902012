//! Checks that a regular expression is in the subset that Python's `re` and the `regex` crate read
//! alike.
//!
//! A pattern that both accept but read differently would silently give a module another rank or
//! scaling than in `peft`. So constructs on which they differ are refused. Must not know what
//! patterns are for.

/// Whether a pattern that [`check`] accepts has a look-ahead, which the `regex` crate does not
/// know.
pub(super) fn looks_ahead(pattern: &str) -> bool {
    let bytes = pattern.as_bytes();
    // `(?` in a character class is refused or harmless: the other crate reads all patterns.
    bytes.windows(3).any(|group| matches!(group, b"(?=" | b"(?!"))
}

/// Refuses a pattern outside the common subset; the error names the construct.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    let different = |what: &str| {
        Err(format!("uses {what}, which is not supported; write the pattern in a simpler way"))
    };
    if !pattern.is_ascii() || pattern.bytes().any(|b| b.is_ascii_control()) {
        return different("characters other than printable ASCII");
    }
    let bytes = pattern.as_bytes();
    let at = |index: usize| bytes.get(index).copied();
    // Start of the character class that contains `index`, if any.
    let mut class: Option<usize> = None;
    let mut previous_repeats = false;
    let mut index = 0;
    while let Some(byte) = at(index) {
        let next = at(index + 1);
        let mut repeats = false;
        match (byte, class) {
            (b'\\', _) => {
                let known = next.is_some_and(|n| {
                    b"dDwWsS".contains(&n) || (n.is_ascii_punctuation() && n != b'<' && n != b'>')
                });
                // Inside a class, \b means backspace in Python; `\b{` opens a special boundary in
                // the crate.
                let boundary = class.is_none()
                    && matches!(next, Some(b'b' | b'B'))
                    && at(index + 2) != Some(b'{');
                if !known && !boundary {
                    return different(
                        "an escape other than \\d \\w \\s \\b and escaped punctuation",
                    );
                }
                index += 1;
            }
            (b'[', None) => {
                class = Some(index);
                index += usize::from(next == Some(b'^'));
                // A bracket right after the opening is a plain character for both.
                index += usize::from(at(index + 1) == Some(b']'));
            }
            (b']', Some(_)) => class = None,
            (b'[', Some(_)) => return different("a bracket inside a character class"),
            (b'&' | b'-' | b'~' | b'|', Some(_)) if next == Some(byte) => {
                return different("set operations inside a character class");
            }
            (_, Some(_)) => {}
            (b'(', None)
                if next == Some(b'?') && !matches!(at(index + 2), Some(b':' | b'=' | b'!')) =>
            {
                return different("a group other than (...), (?:...), (?=...) and (?!...)");
            }
            (b'(', None) if next == Some(b'?') => index += 2,
            (b'*' | b'+' | b'?' | b'{', None) if previous_repeats => {
                // `a*?` is lazy for both and matches the same names; `a*+` and `a{2}{3}` differ.
                if byte != b'?' {
                    return different("two repetitions in a row");
                }
            }
            (b'*' | b'+' | b'?', None) => repeats = true,
            (b'{', None) => {
                let Some(end) = counted_repetition(&bytes[index..]) else {
                    return different("a brace that is not {n}, {n,} or {n,m}");
                };
                index += end;
                repeats = true;
            }
            (b'}', None) => return different("a brace that is not {n}, {n,} or {n,m}"),
            (_, None) => {}
        }
        previous_repeats = repeats;
        index += 1;
    }
    Ok(())
}

/// Offset of the closing brace of `{n}`, `{n,}` or `{n,m}` at the start of `bytes`.
fn counted_repetition(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|&b| b == b'}')?;
    let (low, high) = match bytes.get(1..end)? {
        inside if inside.contains(&b',') => {
            let comma = inside.iter().position(|&b| b == b',')?;
            (&inside[..comma], &inside[comma + 1..])
        }
        inside => (inside, &[][..]),
    };
    let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    (!low.is_empty() && digits(low) && digits(high)).then_some(end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn common_patterns_are_accepted() {
        for pattern in [
            "q_proj",
            "h.1.mlp.c_fc",
            r"layers\.(0|1|2)\.self_attn\.[qv]_proj",
            r"^model\.decoder\.layers\.\d+\.encoder_attn\.k_proj",
            ".*mlp.*?down",
            "layers.[0-9]{1,2}.x+",
            r"(?:a|b)?[^]x]\b",
            "a-b--c&&d",
            r"^(?!.*lm_head).*self_attn\.(q|v)_proj",
            "(?=.*attn)q_proj",
        ] {
            check(pattern).unwrap();
        }
    }

    #[test]
    fn what_python_and_the_crate_read_differently_is_refused() {
        for pattern in [
            "[a&&b]",
            "[a--b]",
            "[a[b]c]",
            "[[:alpha:]]",
            "a++",
            "a{2}{3}",
            "a{,3}",
            "a{b",
            "a}",
            "(?i)a",
            "(?<n>a)",
            "(?P<n>a)",
            r"\pL",
            r"\x41",
            r"\<a",
            r"\b{start}",
            r"[\b]",
            r"\z",
            r"\1",
            "é",
            "a\n",
            "\\",
            "[a||b]",
        ] {
            assert!(check(pattern).is_err(), "{pattern}");
        }
    }
}
