//! Reads the keys of an `adapter_config.json` by name and type, with errors that name them.
//!
//! Must not know which keys exist.

use std::path::Path;

use crate::{
    Error,
    adapter::{peft::pattern::PatternTable, strict_json::StrictJson},
};

/// Longest `adapter_config.json`, in bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// The keys of the file, with errors that name them.
pub(in crate::adapter::peft) struct Keys<'a> {
    pub(in crate::adapter::peft) path: &'a Path,
    pub(in crate::adapter::peft) entries: Vec<(String, StrictJson)>,
}

impl<'a> Keys<'a> {
    /// Reads a settings file.
    pub(in crate::adapter::peft) fn read(path: &'a Path) -> Result<Keys<'a>, Error> {
        let bytes = zklora_files::read(path, MAX_CONFIG)?;
        let json_error = |reason| Error::Json { path: path.to_owned(), reason };
        match StrictJson::parse_of_python(&bytes).map_err(json_error)? {
            StrictJson::Object(entries) => Ok(Keys { path, entries }),
            _ => Err(json_error("it is not an object".into())),
        }
    }

    pub(in crate::adapter::peft) fn get(&self, key: &str) -> Option<&StrictJson> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub(in crate::adapter::peft) fn error(&self, key: &str, reason: impl Into<String>) -> Error {
        let value = self.get(key).map_or_else(|| "missing".into(), StrictJson::to_string);
        Error::Config {
            path: self.path.to_owned(),
            key: key.to_owned(),
            value,
            reason: reason.into(),
        }
    }

    pub(in crate::adapter::peft) fn flag(&self, key: &str) -> Result<bool, Error> {
        match self.get(key) {
            None => Ok(false),
            Some(StrictJson::Bool(value)) => Ok(*value),
            Some(_) => Err(self.error(key, "must be true or false")),
        }
    }

    pub(in crate::adapter::peft) fn text(&self, key: &str) -> Result<Option<String>, Error> {
        match self.get(key) {
            None | Some(StrictJson::Null) => Ok(None),
            Some(StrictJson::Text(value)) => Ok(Some(value.clone())),
            Some(_) => Err(self.error(key, "must be a text or null")),
        }
    }

    /// A list of texts.
    pub(in crate::adapter::peft) fn texts(
        &self,
        key: &str,
        list: &StrictJson,
    ) -> Result<Vec<String>, Error> {
        let StrictJson::List(values) = list else {
            return Err(self.error(key, "must be a list of texts"));
        };
        let text = |value: &StrictJson| match value {
            StrictJson::Text(text) => Ok(text.clone()),
            _ => Err(self.error(key, "must be a list of texts")),
        };
        values.iter().map(text).collect()
    }

    pub(in crate::adapter::peft) fn rank(
        &self,
        key: &str,
        value: &StrictJson,
    ) -> Result<usize, Error> {
        let number = match value {
            StrictJson::Number(number) => {
                number.as_u64().and_then(|rank| usize::try_from(rank).ok())
            }
            _ => None,
        };
        number.filter(|&rank| rank > 0).ok_or_else(|| {
            self.error(key, format!("a rank must be a positive whole number, not {value}"))
        })
    }

    pub(in crate::adapter::peft) fn alpha(
        &self,
        key: &str,
        value: &StrictJson,
    ) -> Result<f64, Error> {
        match value {
            StrictJson::Number(number) => number.as_f64(),
            _ => None,
        }
        .filter(|alpha| alpha.is_finite())
        .ok_or_else(|| self.error(key, format!("an alpha must be a number, not {value}")))
    }

    pub(in crate::adapter::peft) fn table<T>(
        &self,
        key: &str,
        read: impl Fn(&Self, &str, &StrictJson) -> Result<T, Error>,
    ) -> Result<PatternTable<T>, Error> {
        let entries = match self.get(key) {
            None | Some(StrictJson::Null) => Vec::new(),
            Some(StrictJson::Object(entries)) => entries
                .iter()
                .map(|(pattern, value)| Ok((pattern.clone(), read(self, key, value)?)))
                .collect::<Result<_, Error>>()?,
            Some(_) => return Err(self.error(key, "must be an object of patterns and numbers")),
        };
        PatternTable::new(entries).map_err(|bad| Error::Config {
            path: self.path.to_owned(),
            key: key.to_owned(),
            value: format!("a table with the key {}", crate::error::quoted(&bad.key)),
            reason: format!("that key {}", bad.reason),
        })
    }
}
