//! Copies the numbers of JSON `{"input_data": [[…], …]}` as little-endian f32, in pieces.

use std::{
    fmt,
    io::{Read, Write},
};

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// Copies all lists, one after the other, and returns how many numbers each has.
///
/// # Errors
/// What is wrong with the text, or why it cannot be copied.
pub(crate) fn copy(from: impl Read, to: &mut impl Write) -> Result<Vec<usize>, String> {
    let mut json = serde_json::Deserializer::from_reader(from);
    let (mut lengths, mut failed) = (Vec::new(), None);
    let lists = Lists { to, lengths: &mut lengths, failed: &mut failed };
    let read = lists.deserialize(&mut json).and_then(|()| json.end());
    match (failed, read) {
        (Some(error), _) => Err(format!("its numbers cannot be copied: {error}")),
        (None, Ok(())) => {
            to.flush().map(|()| lengths).map_err(|e| format!("its numbers cannot be copied: {e}"))
        }
        (None, Err(e)) => Err(format!("not JSON of the form {{\"input_data\": [[1.0, …]]}}: {e}")),
    }
}

/// The object, then its list of lists.
struct Lists<'w, W> {
    to: &'w mut W,
    lengths: &'w mut Vec<usize>,
    failed: &'w mut Option<std::io::Error>,
}

/// The list of lists.
struct Outer<'l, 'w, W>(&'l mut Lists<'w, W>);
/// One list.
struct Inner<'l, 'w, W>(&'l mut Lists<'w, W>);

impl<'de, W: Write> DeserializeSeed<'de> for Lists<'_, W> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, W: Write> Visitor<'de> for Lists<'_, W> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(key) = map.next_key::<String>()? {
            if key != "input_data" {
                map.next_value::<IgnoredAny>()?;
            } else if std::mem::replace(&mut found, true) {
                return Err(A::Error::duplicate_field("input_data"));
            } else {
                map.next_value_seed(Outer(&mut self))?;
            }
        }
        if found { Ok(()) } else { Err(A::Error::missing_field("input_data")) }
    }
}

impl<'de, W: Write> DeserializeSeed<'de> for Outer<'_, '_, W> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de, W: Write> Visitor<'de> for Outer<'_, '_, W> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of lists of numbers")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut lists: A) -> Result<(), A::Error> {
        while let Some(length) = lists.next_element_seed(Inner(&mut *self.0))? {
            self.0.lengths.push(length);
        }
        Ok(())
    }
}

impl<'de, W: Write> DeserializeSeed<'de> for Inner<'_, '_, W> {
    type Value = usize;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<usize, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de, W: Write> Visitor<'de> for Inner<'_, '_, W> {
    type Value = usize;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of numbers")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<usize, A::Error> {
        let mut length = 0;
        while let Some(number) = numbers.next_element::<f32>()? {
            if let Err(error) = self.0.to.write_all(&number.to_le_bytes()) {
                *self.0.failed = Some(error);
                return Err(A::Error::custom("the copy failed"));
            }
            length += 1;
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_reads_what_a_derived_parser_reads_and_refuses_what_it_refuses() {
        #[derive(serde::Deserialize)]
        struct InputData {
            input_data: Vec<Vec<f32>>,
        }
        for text in [
            r#"{"input_data": [[1.5, -2e3, 3], [], [0.1]]}"#,
            r#"{"other": {"input_data": 3}, "input_data": [], "more": [[null]]}"#,
            r#"{"input_data": [[1e39, 16777217]]}"#,
            r#"{"input_data": [[1]], "input_data": [[2]]}"#,
            r#"{"input_data": [1]}"#,
            r#"{"input_data": [["1"]]}"#,
            r#"{"input_data": [[1]]} x"#,
            r#"{"input_data": [[1], "#,
            r#"{"input_data": null}"#,
            r#"[[[1]]]"#,
            "{}",
            "",
        ] {
            let mut floats = Vec::new();
            let copied = copy(text.as_bytes(), &mut floats);
            match serde_json::from_str::<InputData>(text) {
                // A list in the place of an object is the derived parser's own extra.
                Ok(_) if text.starts_with('[') => assert!(copied.is_err()),
                Ok(expected) => {
                    let lengths: Vec<usize> = expected.input_data.iter().map(Vec::len).collect();
                    assert_eq!(copied.unwrap(), lengths, "{text}");
                    let values: Vec<u8> =
                        expected.input_data.concat().iter().flat_map(|v| v.to_le_bytes()).collect();
                    assert_eq!(floats, values, "{text}");
                }
                Err(_) => assert!(copied.unwrap_err().starts_with("not JSON"), "{text}"),
            }
        }
    }

    #[test]
    fn a_full_disk_is_not_bad_json() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let error = copy(&br#"{"input_data": [[1]]}"#[..], &mut Full).unwrap_err();
        assert!(error.starts_with("its numbers cannot be copied"), "{error}");
    }
}
