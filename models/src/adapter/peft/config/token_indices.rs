//! Reads `trainable_token_indices`: which rows of token tables the adapter replaces.

use super::keys::Keys;
use crate::{
    Error,
    adapter::{module_name, strict_json::StrictJson},
};

const KEY: &str = "trainable_token_indices";

/// Rows by the end of a module's name; an empty end fits all.
#[derive(Debug, Default)]
pub(super) struct TokenIndices(Vec<(String, Vec<usize>)>);

impl TokenIndices {
    /// A list is for the input embeddings, which the names of tensors state; a table names modules.
    pub(super) fn read(keys: &Keys) -> Result<TokenIndices, Error> {
        Ok(TokenIndices(match keys.get(KEY) {
            None | Some(StrictJson::Null) => Vec::new(),
            Some(StrictJson::Object(entries)) => entries
                .iter()
                .map(|(end, list)| Ok((end.clone(), indices(keys, list)?)))
                .collect::<Result<_, Error>>()?,
            Some(list) => vec![(String::new(), indices(keys, list)?)],
        }))
    }

    /// The rows of a module.
    pub(super) fn of(&self, module: &str) -> Option<&[usize]> {
        let fits = |end: &str| end.is_empty() || module_name::ends_in(module, end);
        self.0.iter().find(|(end, _)| fits(end)).map(|(_, rows)| rows.as_slice())
    }
}

fn indices(keys: &Keys, list: &StrictJson) -> Result<Vec<usize>, Error> {
    let StrictJson::List(values) = list else {
        return Err(keys.error(KEY, "must be a list of tokens, or an object of such lists"));
    };
    let mut rows = Vec::with_capacity(values.len());
    let mut seen = std::collections::HashSet::new();
    for value in values {
        let row = match value {
            StrictJson::Number(number) => number.as_u64().and_then(|row| usize::try_from(row).ok()),
            _ => None,
        };
        match row {
            None => return Err(keys.error(KEY, format!("{value} is no token"))),
            Some(row) if !seen.insert(row) => {
                return Err(keys.error(KEY, format!("the token {row} is there twice")));
            }
            Some(row) => rows.push(row),
        }
    }
    Ok(rows)
}
