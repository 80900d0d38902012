//! Errors of the commands. [`Error::is_refusal`] tells a rejected claim from unusable input.

use std::path::Path;

use zklora_artifacts::Error as Artifact;
use zklora_session::Error as Session;

/// The message says what went wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a proof, an input or the other party is at fault.
    #[error(transparent)]
    Session(#[from] Session),
    /// The adapter could not be read or exported.
    #[error(transparent)]
    Adapter(#[from] zklora_models::Error),
    /// The files to compile could not be read.
    #[error(transparent)]
    Source(#[from] zklora_compiler::SourceError),
    /// A graph could not be compiled.
    #[error(transparent)]
    Compile(#[from] zklora_compiler::CompileError),
    /// The integer model could not be made or evaluated.
    #[error(transparent)]
    Integer(#[from] zklora_integer::Error),
    /// A run ended early because contributors failed. The text names each of them.
    #[error("{0}")]
    Interrupted(String),
}

impl From<Artifact> for Error {
    fn from(error: Artifact) -> Error {
        Error::Session(error.into())
    }
}

impl From<zklora_files::Error> for Error {
    fn from(error: zklora_files::Error) -> Error {
        Error::Session(error.into())
    }
}

impl From<zklora_proof::Error> for Error {
    fn from(error: zklora_proof::Error) -> Error {
        Error::Session(error.into())
    }
}

impl Error {
    /// An error about a file. An [`std::io::Error`] that is passed unchanged keeps its kind.
    pub fn file(path: &Path, why: impl std::fmt::Display + 'static) -> Error {
        Error::Session(Session::file(path, why))
    }

    /// An input that does not fit.
    pub fn input(why: impl Into<String>) -> Error {
        Error::Session(Session::input(why))
    }

    /// The error of the proof system, if this is one.
    pub fn proof(&self) -> Option<&zklora_proof::Error> {
        match self {
            Error::Session(error) => error.proof(),
            _ => None,
        }
    }

    /// Whether a claim was checked and rejected (exit code 1). Otherwise the input is unusable
    /// (exit code 2).
    pub fn is_refusal(&self) -> bool {
        matches!(self, Error::Session(error) if error.is_refusal())
    }
}
