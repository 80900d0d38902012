//! Errors of measurements.

use std::path::Path;

use zklora_artifacts::Error as Artifact;
use zklora_runtime::Error as Runtime;
use zklora_session::Error as Session;

/// The message says what went wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The measured work failed.
    #[error(transparent)]
    Runtime(#[from] Runtime),
    /// EZKL failed.
    #[cfg(feature = "ezkl")]
    #[error(transparent)]
    Ezkl(#[from] zklora_ezkl::Error),
}

#[cfg(feature = "ezkl")]
impl From<zklora_ezkl::EzklError> for Error {
    fn from(error: zklora_ezkl::EzklError) -> Error {
        Error::Ezkl(error.into())
    }
}

impl From<Session> for Error {
    fn from(error: Session) -> Error {
        Error::Runtime(error.into())
    }
}

impl From<Artifact> for Error {
    fn from(error: Artifact) -> Error {
        Error::Runtime(error.into())
    }
}

impl From<zklora_files::Error> for Error {
    fn from(error: zklora_files::Error) -> Error {
        Error::Runtime(error.into())
    }
}

impl From<zklora_evaluation::Error> for Error {
    fn from(error: zklora_evaluation::Error) -> Error {
        Error::Runtime(error.into())
    }
}

impl From<zklora_proof::Error> for Error {
    fn from(error: zklora_proof::Error) -> Error {
        Error::Runtime(error.into())
    }
}

impl From<zklora_models::Error> for Error {
    fn from(error: zklora_models::Error) -> Error {
        Error::Runtime(error.into())
    }
}

impl Error {
    /// An error about a file. An [`std::io::Error`] that is passed unchanged keeps its kind.
    pub fn file(path: &Path, why: impl std::fmt::Display + 'static) -> Error {
        Error::Runtime(Runtime::file(path, why))
    }

    /// An input that does not fit.
    pub fn input(why: impl Into<String>) -> Error {
        Error::Runtime(Runtime::input(why))
    }

    /// Whether a claim was checked and rejected (exit code 1). Otherwise the input is unusable
    /// (exit code 2).
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::Runtime(error) => error.is_refusal(),
            #[cfg(feature = "ezkl")]
            Error::Ezkl(error) => error.is_refusal(),
        }
    }
}
