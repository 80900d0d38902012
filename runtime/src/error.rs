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
    /// A statement, a request or a delivery cannot be made, or does not hold.
    #[error(transparent)]
    Evaluation(#[from] zklora_evaluation::Error),
    /// A proof for a registration or of scores cannot be made.
    #[error(transparent)]
    Inference(#[from] zklora_inference::Error),
    /// A registration that is not one of this adapter.
    #[error(
        "{what}: this is no registration of adapter {adapter}: {why}; get it again from the \
         contributor, who makes it with `zklora compile --registered`, or remove it: the adapter \
         then counts as not registered"
    )]
    Registration {
        /// Its file, or who sent it.
        what: String,
        /// The adapter.
        adapter: zklora_proof::manifest::AdapterId,
        /// Why it is refused.
        why: String,
    },
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

    /// Whether this machine has no more open files or no more room, or zklora has a bug: the input
    /// may be right.
    pub fn is_of_full_machine(&self) -> bool {
        use zklora_files::Kind;
        let of =
            |error: &zklora_files::Error| matches!(error.kind, Kind::TooManyOpen | Kind::DiskFull);
        match self {
            Error::Session(Session::Artifact(Artifact::File(error)))
            | Error::Adapter(zklora_models::Error::File(error))
            | Error::Source(zklora_compiler::SourceError::File(error)) => of(error),
            Error::Session(Session::System(_) | Session::Internal(_)) => true,
            Error::Session(Session::Artifact(Artifact::Proof(error))) => {
                matches!(error, zklora_proof::Error::Internal(_))
            }
            _ => false,
        }
    }

    /// Whether a claim was checked and rejected (exit code 1). Otherwise the input is unusable
    /// (exit code 2).
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::Session(error) => error.is_refusal(),
            Error::Evaluation(error) => error.is_refusal(),
            Error::Inference(error) => error.is_refusal(),
            Error::Registration { .. } => true,
            _ => false,
        }
    }
}
