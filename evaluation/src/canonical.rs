//! JSON with one encoding: sorted keys, no white space, integers alone.
//!
//! Structures list their fields in alphabetical order. A reader writes what it read once more, and
//! refuses bytes that differ: so nothing in a file can hide from one reader and not from another.

use serde::{Serialize, de::DeserializeOwned};

use crate::Error;

/// The bytes of a value.
pub fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Internal(error.to_string()))
}

/// Reads a value from the only bytes that stand for it. `what` names the file in errors.
///
/// # Errors
/// [`Error::Form`].
pub fn parse<T: Serialize + DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Error> {
    let value: T = serde_json::from_slice(bytes).map_err(|error| Error::form(what, error))?;
    if to_bytes(&value)? != bytes {
        return Err(Error::form(
            what,
            "not in canonical form (sorted keys, no white space): use the file as it was written",
        ));
    }
    Ok(value)
}

/// Checks the name and the version of a format.
///
/// # Errors
/// [`Error::Form`].
pub(crate) fn check_format(
    what: &str,
    (format, version): (&str, u32),
    (expected, known): (&str, u32),
) -> Result<(), Error> {
    if format != expected {
        return Err(Error::form(what, format!("its format is not {expected}")));
    }
    if version != known {
        let why = format!("version {version} of {expected}, this zklora reads version {known}");
        return Err(Error::form(what, why));
    }
    Ok(())
}
