//! What can be wrong with the files around a proof, and whether it means "no" or "unusable input".

use std::path::Path;

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written, or does not hold what it must.
    #[error(transparent)]
    File(#[from] zklora_files::Error),
    /// The proof system refused something.
    #[error(transparent)]
    Proof(#[from] zklora_proof::Error),
    /// An input does not fit the adapter.
    #[error("{0}")]
    Input(String),
    /// A trace is not the user's session: another session id, or other activations.
    #[error("{0}")]
    NotYours(String),
    /// A claim about committed activations does not hold.
    #[error("{0}")]
    Claim(String),
}

impl Error {
    /// What is wrong with a file. An [`std::io::Error`], given as it is, keeps its kind.
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

    /// Whether this is a "no" about a claim (exit code 1) rather than an unusable input (exit code
    /// 2).
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::Proof(error) => error.is_refusal(),
            Error::NotYours(_) | Error::Claim(_) => true,
            Error::File(_) | Error::Input(_) => false,
        }
    }
}
