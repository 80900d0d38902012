//! Matches `rank_pattern` and `alpha_pattern`, settings by module name, as `peft` does.
//!
//! `peft.utils.other.get_pattern_key` takes the first key, in the order of the file, for which
//! Python's `re.match(rf"(.*\.)?({key})$", name)` succeeds; if none does, `dict.get(name)` still
//! finds a key that is literally the name. Must not know what the values mean.

use regex::{Regex, RegexBuilder};

use super::pattern_syntax;

/// Most keys in one table.
const MAX_KEYS: usize = 4096;

/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 1024;

/// Limit on one compiled pattern, in bytes; `((a{100}){100}){100}` is over it.
const MAX_COMPILED: usize = 1 << 18;

/// Most steps of a pattern with look-ahead, which may go back and forth.
const MAX_STEPS: usize = 100_000;

/// Values by pattern, in the order of the file.
#[derive(Debug)]
pub(super) struct PatternTable<T> {
    entries: Vec<(String, Pattern, T)>,
}

#[derive(Debug)]
enum Pattern {
    Plain(Regex),
    /// With `(?=…)` or `(?!…)`.
    LookAhead(fancy_regex::Regex),
}

impl Pattern {
    /// Whether it matches from the start, as `re.match` does. If any match starts there, the
    /// leftmost does.
    ///
    /// # Errors
    /// It takes too many steps.
    fn matches(&self, module: &str) -> Result<bool, TooManySteps> {
        let start = match self {
            Pattern::Plain(regex) => regex.find(module).map(|found| found.start()),
            Pattern::LookAhead(regex) => {
                regex.find(module).map_err(|_| TooManySteps)?.map(|found| found.start())
            }
        };
        Ok(start == Some(0))
    }
}

/// A pattern took more than [`MAX_STEPS`].
#[derive(Debug, PartialEq)]
pub(super) struct TooManySteps;

/// A key that cannot be used, and why.
#[derive(Debug, PartialEq)]
pub(super) struct BadPattern {
    pub(super) key: String,
    pub(super) reason: String,
}

impl<T> PatternTable<T> {
    pub(super) fn new(entries: Vec<(String, T)>) -> Result<Self, BadPattern> {
        if entries.len() > MAX_KEYS {
            let reason =
                format!("is one of {} patterns, over the limit of {MAX_KEYS}", entries.len());
            return Err(BadPattern {
                key: entries.into_iter().next().map_or_else(String::new, |(key, _)| key),
                reason,
            });
        }
        let entries = entries
            .into_iter()
            .map(|(key, value)| match compile(&key) {
                Ok(regex) => Ok((key, regex, value)),
                Err(reason) => Err(BadPattern { key, reason }),
            })
            .collect::<Result<_, _>>()?;
        Ok(PatternTable { entries })
    }

    /// The value for a module, if any pattern matches its name.
    ///
    /// # Errors
    /// A pattern takes too many steps.
    pub(super) fn get(&self, module: &str) -> Result<Option<&T>, TooManySteps> {
        for (_, pattern, value) in &self.entries {
            if pattern.matches(module)? {
                return Ok(Some(value));
            }
        }
        let literal = self.entries.iter().find(|(key, _, _)| key == module);
        Ok(literal.map(|(_, _, value)| value))
    }
}

fn compile(key: &str) -> Result<Pattern, String> {
    if key.len() > MAX_KEY_BYTES {
        return Err(format!("is {} bytes long, over the limit of {MAX_KEY_BYTES}", key.len()));
    }
    pattern_syntax::check(key)?;
    let whole = format!(r"(.*\.)?({key})$");
    if pattern_syntax::looks_ahead(key) {
        return fancy_regex::RegexBuilder::new(&whole)
            .backtrack_limit(MAX_STEPS)
            .delegate_size_limit(MAX_COMPILED)
            .delegate_dfa_size_limit(MAX_COMPILED)
            .build()
            .map(Pattern::LookAhead)
            .map_err(|_| "is not a regular expression".into());
    }
    RegexBuilder::new(&whole)
        .size_limit(MAX_COMPILED)
        .dfa_size_limit(MAX_COMPILED)
        .build()
        .map(Pattern::Plain)
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                "is a pattern that takes too much memory; simplify it".into()
            }
            _ => "is not a regular expression".into(),
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn table(keys: &[&str]) -> PatternTable<usize> {
        PatternTable::new(
            keys.iter().enumerate().map(|(at, key)| ((*key).to_owned(), at)).collect(),
        )
        .unwrap()
    }

    /// Checked against `get_pattern_key` of peft 0.21.2, see the table in
    /// fixtures/make/pattern_keys.py.
    #[test]
    fn keys_match_as_in_peft() {
        let known = include_str!("../../../tests/data/pattern_keys.tsv");
        let mut cases = 0;
        for line in known.lines().filter(|line| !line.starts_with('#')) {
            let mut fields = line.split('\t');
            let (name, keys, expected) =
                (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
            let keys: Vec<&str> = keys.split(' ').collect();
            let expected = (expected != "-").then(|| expected.parse::<usize>().unwrap());
            assert_eq!(table(&keys).get(name).unwrap().copied(), expected, "{line}");
            cases += 1;
        }
        assert!(cases > 20);
    }

    #[test]
    fn hostile_patterns_are_errors() {
        let long = "a".repeat(MAX_KEY_BYTES + 1);
        for key in [
            "(",
            ")",
            "a))(b",
            "[",
            "*",
            "((a{1000}){1000}){1000}",
            r"(a)\1",
            "(?=a",
            "(?<=a)",
            &long,
        ] {
            assert!(PatternTable::new(vec![(key.to_owned(), 1)]).is_err(), "{key}");
        }
        assert!(PatternTable::new((0..=MAX_KEYS).map(|at| (at.to_string(), 1)).collect()).is_err());
    }

    #[test]
    fn a_pattern_that_backtracks_in_python_takes_no_time() {
        let name = "a".repeat(200) + "!";
        assert_eq!(table(&["(a*)*(a*)*(a*)*b"]).get(&name), Ok(None));
        let took = table(&["(?=a)(a*)*(a*)*(a*)*b(?!c)"]).get(&name).map(|found| found.copied());
        assert_eq!(took, Err(TooManySteps));
    }
}
