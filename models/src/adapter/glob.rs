//! Patterns with `*` and `?` for whole names.

/// Whether the whole of `name` matches. The time is at most the product of the two lengths.
pub(crate) fn matches(glob: &str, name: &str) -> bool {
    let (glob, name): (Vec<char>, Vec<char>) = (glob.chars().collect(), name.chars().collect());
    let (mut g, mut n) = (0, 0);
    // Where to resume after the last `*` if the rest of the pattern does not match here.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match glob.get(g) {
            Some('*') => {
                star = Some((g + 1, n));
                g += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                g += 1;
                n += 1;
            }
            _ => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    (g, n) = (after, taken + 1);
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        for (glob, name, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("*.q_proj", "l.0.q_proj", true),
            ("q_proj", "l.0.q_proj", false),
            ("l.?.q*", "l.0.q_proj", true),
            ("l.?.q*", "l.10.q_proj", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "abab", true),
            ("*a*b", "aba", false),
            ("a**", "a", true),
            ("[a]", "a", false),
        ] {
            assert_eq!(matches(glob, name), expected, "{glob} {name}");
        }
        assert!(!matches(&"*a".repeat(2000), &"a".repeat(1999)));
    }
}
