//! What can go wrong around the proof, and whether it means "no" or "this input is unusable".

use std::path::{Path, PathBuf};

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{path}: {why}")]
    File {
        /// Which file or folder.
        path: PathBuf,
        /// What is wrong with it and what to do.
        why: String,
    },
    /// The proof system refused something.
    #[error(transparent)]
    Proof(#[from] zklora_circuit::Error),
    /// The adapter could not be read or exported.
    #[error(transparent)]
    Adapter(#[from] zklora_models::Error),
    /// A graph could not be compiled.
    #[error(transparent)]
    Compile(#[from] zklora_compiler::CompileError),
    /// An input does not fit the adapter.
    #[error("{0}")]
    Input(String),
    /// A trace is not the user's session: another session id, or other activations.
    #[error("{0}")]
    NotYours(String),
    /// Serving rows would exceed the limit that the contributor set.
    #[error("{0}")]
    Budget(String),
    /// The contributor was asked to prove rows that this adapter folder did not serve.
    #[error("{0}")]
    NotServed(String),
    /// A claim about committed activations does not hold.
    #[error("{0}")]
    Claim(String),
}

impl Error {
    /// Whether this is a "no" about a claim (exit code 1) rather than an unusable input (exit code 2).
    pub fn is_refusal(&self) -> bool {
        use zklora_circuit::Error as Proof;
        match self {
            Error::Proof(error) => matches!(
                error,
                Proof::Pin { .. }
                    | Proof::SrsMismatch { .. }
                    | Proof::FalseTrace { .. }
                    | Proof::Malformed { .. }
                    | Proof::Rejected(_)
                    | Proof::BeyondBound { .. }
                    | Proof::Srs(_)
            ),
            Error::NotServed(_) | Error::NotYours(_) | Error::Budget(_) | Error::Claim(_) => true,
            _ => false,
        }
    }

    pub(crate) fn file(path: &Path, why: impl std::fmt::Display) -> Error {
        Error::File { path: path.to_path_buf(), why: why.to_string() }
    }
}
