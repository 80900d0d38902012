//! Parses JSON strictly: objects keep the order of their keys, and duplicate keys are refused.
//!
//! The order matters because `peft` tries `rank_pattern` in the order of the file. Duplicates
//! matter because two readers may pick different ones. Must not know what the keys mean.

use std::{collections::HashSet, fmt};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::error::quoted;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StrictJson {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<StrictJson>),
    /// The keys are unique, in the order of the file.
    Object(Vec<(String, StrictJson)>),
}

impl StrictJson {
    /// Parses one value; the error is the parser's message, with line and column.
    pub(crate) fn parse(bytes: &[u8]) -> Result<StrictJson, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// Parses a value that Python wrote, which may have numbers that are not finite: `NaN`,
    /// `Infinity` and `-Infinity` are read as these texts. A byte order mark is skipped.
    pub(crate) fn parse_of_python(bytes: &[u8]) -> Result<StrictJson, String> {
        if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            return Err(
                "it is in UTF-16, which Python does not read as JSON: save it as UTF-8".into()
            );
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        StrictJson::parse(&with_quoted_numbers(bytes))
    }
}

/// The same text with `NaN`, `Infinity` and `-Infinity` in quotes, where they are not in a string.
fn with_quoted_numbers(json: &[u8]) -> Vec<u8> {
    let (mut out, mut at, mut in_string) = (Vec::with_capacity(json.len()), 0, false);
    while at < json.len() {
        let rest = &json[at..];
        let number = [&b"NaN"[..], b"-Infinity", b"Infinity"]
            .into_iter()
            .find(|number| !in_string && rest.starts_with(number));
        if let Some(number) = number {
            out.push(b'"');
            out.extend_from_slice(number);
            out.push(b'"');
            at += number.len();
            continue;
        }
        // A character after a backslash ends no string.
        let length = if in_string && rest[0] == b'\\' { rest.len().min(2) } else { 1 };
        in_string ^= rest[0] == b'"';
        out.extend_from_slice(&rest[..length]);
        at += length;
    }
    out
}

/// As compact JSON, for messages.
impl fmt::Display for StrictJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StrictJson::Null => f.write_str("null"),
            StrictJson::Bool(value) => write!(f, "{value}"),
            StrictJson::Number(value) => write!(f, "{value}"),
            StrictJson::Text(value) => write!(f, "{value:?}"),
            StrictJson::List(values) => {
                f.write_str("[")?;
                for (at, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            StrictJson::Object(entries) => {
                f.write_str("{")?;
                for (at, (key, value)) in entries.iter().enumerate() {
                    write!(f, "{}{key:?}: {value}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}

impl<'de> Deserialize<'de> for StrictJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = StrictJson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<StrictJson, E> {
        Ok(StrictJson::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<StrictJson, E> {
        Ok(StrictJson::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<StrictJson, E> {
        Ok(StrictJson::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<StrictJson, E> {
        Ok(StrictJson::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<StrictJson, E> {
        serde_json::Number::from_f64(value)
            .map(StrictJson::Number)
            .ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<StrictJson, E> {
        Ok(StrictJson::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StrictJson, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(StrictJson::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StrictJson, A::Error> {
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, StrictJson>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format_args!("the key {} comes twice", quoted(&key))));
            }
            entries.push((key, value));
        }
        Ok(StrictJson::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_keep_the_order_of_the_file() {
        let value = StrictJson::parse(br#"{"b": 1, "a": [null, -2, 0.5, "x"]}"#).unwrap();
        assert_eq!(value.to_string(), r#"{"b": 1, "a": [null, -2, 0.5, "x"]}"#);
    }

    #[test]
    fn what_python_writes_is_read() {
        let text = br#"{"a": NaN, "b": [-Infinity, Infinity], "NaN \" Infinity": "NaN\\"}"#;
        assert!(StrictJson::parse(text).is_err());
        let read = StrictJson::parse_of_python(text).unwrap().to_string();
        assert_eq!(
            read,
            r#"{"a": "NaN", "b": ["-Infinity", "Infinity"], "NaN \" Infinity": "NaN\\"}"#
        );
        let marked = [b"\xef\xbb\xbf", &b"{}"[..]].concat();
        assert_eq!(StrictJson::parse_of_python(&marked).unwrap(), StrictJson::Object(vec![]));
        for bytes in [&b"\xff\xfe{\0"[..], b"{\"a\": NaNo}", b"{NaN: 1, \"\\"] {
            assert!(StrictJson::parse_of_python(bytes).is_err());
        }
    }

    #[test]
    fn a_key_that_comes_twice_is_refused_at_any_depth() {
        for text in [r#"{"a": 1, "a": 1}"#, r#"[{"x": {"a": 1, "b": 2, "a": 3}}]"#] {
            assert!(StrictJson::parse(text.as_bytes()).unwrap_err().contains("`a` comes twice"));
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
        let text = "[".repeat(100_000);
        assert!(StrictJson::parse(text.as_bytes()).unwrap_err().contains("recursion"));
    }
}
