//! Errors of the files around a proof. [`Error::is_refusal`] tells a rejected claim from unusable
//! input.

use std::path::Path;

/// The message says what went wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written, or its content is invalid.
    #[error(transparent)]
    File(#[from] zklora_files::Error),
    /// An error of the proof system.
    #[error(transparent)]
    Proof(#[from] zklora_proof::Error),
    /// An input does not fit the adapter.
    #[error("{0}")]
    Input(String),
    /// The trace is not the user's session: it has another session id or other activations.
    #[error("{0}")]
    NotYours(String),
    /// A claim about committed activations does not hold.
    #[error("{0}")]
    Claim(String),
}

impl Error {
    /// An error about a file. An [`std::io::Error`] that is passed unchanged keeps its kind.
    pub fn file(path: &Path, why: impl std::fmt::Display + 'static) -> Error {
        Error::File(zklora_files::Error::new(path, why))
    }

    /// The error of the proof system, if this is one.
    pub fn proof(&self) -> Option<&zklora_proof::Error> {
        match self {
            Error::Proof(error) => Some(error),
            _ => None,
        }
    }

    /// Whether a claim was checked and rejected (exit code 1). Otherwise the input is unusable
    /// (exit code 2).
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::Proof(error) => error.is_refusal(),
            Error::NotYours(_) | Error::Claim(_) => true,
            Error::File(_) | Error::Input(_) => false,
        }
    }
}
