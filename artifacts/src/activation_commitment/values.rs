//! Reads the values of `{"input_data": [...]}`: numbers in lists, nested or not, flattened in
//! order, and where each row ends.
//!
//! The parser is a stream into one list of numbers. It must not depend on commitments.

use std::{fmt, path::Path};

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::Error;

/// Largest file of values that is read, in bytes.
pub const MAX_VALUES_FILE: u64 = 8 << 30;
/// Most values that a commitment is over.
pub const MAX_VALUES: usize = 1 << 28;
/// Deepest nesting of lists.
pub const MAX_NESTING: usize = 32;

const KEY: &str = "input_data";

/// Finite numbers in the order of the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values {
    /// The numbers, at least one.
    pub numbers: Vec<f64>,
    /// The number of values up to and with each innermost list (a list that holds no list).
    row_ends: Vec<usize>,
    /// Whether some list holds numbers beside lists: then there are no rows.
    mixed: bool,
}

impl Values {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Values, Error> {
        Values::parse(path, zklora_files::read(path, MAX_VALUES_FILE)?)
    }

    /// [`Values::read`] of a file's bytes; `path` is for the error.
    pub fn parse(path: &Path, mut bytes: Vec<u8>) -> Result<Values, Error> {
        integer_zeros_have_no_sign(&mut bytes);
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let values = json.deserialize_map(File).and_then(|values| json.end().map(|()| values)).map_err(|e| {
            Error::file(
                path,
                format!(
                    "not JSON of the form {{\"{KEY}\": [1.0, …]}} with numbers in lists, nested or not (no other format is read): {e}"
                ),
            )
        })?;
        Ok(values)
    }

    /// The positions of a row: the `row`-th of `columns` values each, or without `columns` the
    /// `row`-th innermost list.
    ///
    /// # Errors
    /// If there is no such row, or it would be all values there are because nothing says how long a
    /// row is.
    pub fn row(&self, row: usize, columns: Option<usize>) -> Result<std::ops::Range<usize>, Error> {
        let count = self.numbers.len();
        let refuse = |why: String| Err(Error::Input(why));
        if count == 0 {
            return refuse("there are no values, so there is no row".into());
        }
        let (rows, range) = match columns {
            Some(columns) if columns == 0 || !count.is_multiple_of(columns) => {
                return refuse(format!(
                    "{count} values are not whole rows of {columns}: give another --columns"
                ));
            }
            Some(columns) => (
                count / columns,
                row.saturating_mul(columns)..row.saturating_add(1).saturating_mul(columns),
            ),
            None if self.mixed => {
                return refuse(
                    "a list holds numbers beside lists, so there are no rows: say how long one is with --columns"
                        .into(),
                );
            }
            None if self.row_ends.len() == 1 => {
                return refuse(format!(
                    "the {count} values are one list: say how long a row is with --columns"
                ));
            }
            None => {
                let start = row
                    .checked_sub(1)
                    .and_then(|before| self.row_ends.get(before))
                    .copied()
                    .unwrap_or(0);
                (self.row_ends.len(), start..self.row_ends.get(row).copied().unwrap_or(start))
            }
        };
        if row >= rows {
            return refuse(format!("there is no row {row}: there are {rows}, the first is row 0"));
        }
        if range.is_empty() {
            return refuse(format!("row {row} is an empty list: there is nothing to prove"));
        }
        Ok(range)
    }
}

/// Removes the sign of the integer `-0`: Python reads it as the integer zero, but `serde_json` as
/// the float -0.0.
///
/// An integer's `-0` is not part of an exponent and no digit, point or exponent follows. The edit
/// may change other strings: only the key is used, and it has no `-`.
fn integer_zeros_have_no_sign(bytes: &mut [u8]) {
    for at in 0..bytes.len().saturating_sub(1) {
        if bytes[at] == b'-'
            && bytes[at + 1] == b'0'
            && !bytes
                .get(at + 2)
                .is_some_and(|next| matches!(next, b'0'..=b'9' | b'.' | b'e' | b'E'))
            && !(at > 0 && matches!(bytes[at - 1], b'e' | b'E'))
        {
            bytes[at] = b' ';
        }
    }
}

/// The object around the values.
struct File;

impl<'de> Visitor<'de> for File {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "an object with the key `{KEY}`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
        let mut found = None;
        while let Some(is_values) = map.next_key_seed(IsKey)? {
            if !is_values {
                map.next_value::<IgnoredAny>()?;
            } else if found.is_some() {
                return Err(A::Error::custom(format_args!("the key `{KEY}` is there twice")));
            } else {
                let mut values = Values::default();
                map.next_value_seed(List { values: &mut values, depth: 1 })?;
                found = Some(values);
            }
        }
        found.ok_or_else(|| A::Error::missing_field(KEY))
    }
}

/// Whether a key is `input_data`, without storing the key.
struct IsKey;

impl<'de> DeserializeSeed<'de> for IsKey {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsKey {
    type Value = bool;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == KEY)
    }
}

/// A list, whose numbers go to the end of `values`.
struct List<'a> {
    values: &'a mut Values,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let (mut lists, mut numbers) = (false, false);
        while let Some(is_list) =
            list.next_element_seed(Element { values: &mut *self.values, depth: self.depth })?
        {
            lists |= is_list;
            numbers |= !is_list;
        }
        self.values.mixed |= lists && numbers;
        if !lists {
            if self.values.row_ends.len() == MAX_VALUES {
                return Err(A::Error::custom(format_args!("more than {MAX_VALUES} lists")));
            }
            self.values.row_ends.push(self.values.numbers.len());
        }
        Ok(())
    }
}

/// A number or a list; says whether it was a list.
struct Element<'a> {
    values: &'a mut Values,
    depth: usize,
}

impl Element<'_> {
    fn number<E: serde::de::Error>(self, number: f64) -> Result<bool, E> {
        if self.values.numbers.len() == MAX_VALUES {
            return Err(E::custom(format_args!("more than {MAX_VALUES} values: commit to parts")));
        }
        self.values.numbers.push(number);
        Ok(false)
    }
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number or a list")
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<bool, E> {
        self.number(number)
    }

    // Integers beyond 2^53 become the nearest double, ties to even, as in Python; those beyond 64
    // bits arrive as `f64`.
    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<bool, E> {
        self.number(number as f64)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<bool, E> {
        self.number(number as f64)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<bool, A::Error> {
        if self.depth == MAX_NESTING {
            return Err(A::Error::custom(format_args!(
                "lists are nested more than {MAX_NESTING} deep"
            )));
        }
        List { values: self.values, depth: self.depth + 1 }.visit_seq(list)?;
        Ok(true)
    }
}
