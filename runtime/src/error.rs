//! What can go wrong in a command, and whether it means "no" or "unusable input".

use std::path::Path;

use zklora_artifacts::Error as Artifact;
use zklora_session::Error as Session;

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a proof, an input or the other party is not what it must be.
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
    /// A run ended early, because contributors failed: the text names each.
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
    /// What is wrong with a file. An [`std::io::Error`], given as it is, keeps its kind.
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

    /// Whether this is a "no" about a claim (exit code 1) rather than an unusable input (exit code
    /// 2).
    pub fn is_refusal(&self) -> bool {
        matches!(self, Error::Session(error) if error.is_refusal())
    }
}
