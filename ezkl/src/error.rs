//! Errors of the EZKL backend, and the checks that can reject a proof.

use std::{path::Path, time::Duration};

use zklora_artifacts::Error as Artifact;
use zklora_files::text::printable;
use zklora_session::Error as Session;

use super::VERSION;

/// The message says what went wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, an input or a ledger is invalid.
    #[error(transparent)]
    Session(#[from] Session),
    /// The files to compile could not be read.
    #[error(transparent)]
    Source(#[from] zklora_compiler::SourceError),
    /// A graph could not be compiled.
    #[error(transparent)]
    Compile(#[from] zklora_compiler::CompileError),
    /// EZKL gave no result, or its result was rejected.
    #[error(transparent)]
    Ezkl(#[from] EzklError),
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

    /// Whether a claim was checked and rejected (exit code 1). Otherwise the input is unusable
    /// (exit code 2).
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::Session(error) => error.is_refusal(),
            Error::Ezkl(error) => matches!(error, EzklError::Refused { .. }),
            Error::Source(_) | Error::Compile(_) => false,
        }
    }
}

/// The check that rejected a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The manifest is not the one that was pinned.
    Pin,
    /// The SRS is not the pinned one, or its maker can forge proofs with it.
    Srs,
    /// The settings are not the pinned ones, or they contradict the manifest.
    Settings,
    /// The verifying key is not the pinned one.
    VerifyingKey,
    /// A row of the trace has no proof, or a proof belongs to no row.
    Rows,
    /// The public values of a proof are not those of the row of the user's trace.
    PublicValues,
    /// The proof is about other weights than those that the manifest fixes.
    Weights,
    /// EZKL rejected the proof.
    Proof,
    /// The deltas of the trace are not those of the circuit.
    Trace,
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Check::Pin => "pinned manifest",
            Check::Srs => "SRS",
            Check::Settings => "settings",
            Check::VerifyingKey => "verifying key",
            Check::Rows => "one proof a row",
            Check::PublicValues => "public values",
            Check::Weights => "fixed weights",
            Check::Proof => "EZKL's own",
            Check::Trace => "trace",
        })
    }
}

/// Why EZKL gave no result, or why its result was rejected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EzklError {
    /// The interpreter does not start.
    #[error(
        "the Python interpreter `{python}` does not start: {why}. Name another with --ezkl-python or $ZKLORA_EZKL_PYTHON"
    )]
    Interpreter {
        /// The interpreter.
        python: String,
        /// Why it does not start.
        why: String,
    },
    /// The package is missing or of another version.
    #[error(
        "{found}: this build drives ezkl {VERSION}. Install it with: {python} -m pip install ezkl=={VERSION}"
    )]
    Package {
        /// What was found instead.
        found: String,
        /// The interpreter.
        python: String,
    },
    /// A function of the package failed.
    #[error("EZKL failed in `{call}` ({what}): {why}{stderr}")]
    Failed {
        /// Which function.
        call: &'static str,
        /// On what.
        what: String,
        /// Its message.
        why: String,
        /// The end of its stderr, or nothing.
        stderr: String,
    },
    /// The process ended before it answered.
    #[error(
        "the EZKL process died in `{call}` ({what}): {how}{stderr}. Nothing was written; run the command again"
    )]
    Died {
        /// Which function.
        call: &'static str,
        /// On what.
        what: String,
        /// How it ended.
        how: String,
        /// The end of its stderr, or nothing.
        stderr: String,
    },
    /// A call hit the time limit.
    #[error(
        "EZKL was stopped in `{call}` ({what}): it took longer than {limit:?} (--ezkl-timeout)"
    )]
    Timeout {
        /// Which function.
        call: &'static str,
        /// On what.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// The process hit the memory limit.
    #[error(
        "EZKL was stopped in `{call}` ({what}): it needs more than {limit} MiB of memory (--ezkl-memory)"
    )]
    Memory {
        /// Which function.
        call: &'static str,
        /// On what.
        what: String,
        /// The limit, in MiB.
        limit: u64,
    },
    /// The user stopped it.
    #[error("stopped; nothing was written")]
    Cancelled,
    /// A file from EZKL or from another party cannot be used.
    #[error("{file}: {why}")]
    Answer {
        /// Which file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The claim was rejected.
    #[error("rejected by the check `{check}`: {why}")]
    Refused {
        /// Which check.
        check: Check,
        /// Why.
        why: String,
    },
}

impl EzklError {
    pub(crate) fn refused(check: Check, why: impl Into<String>) -> EzklError {
        // The text may quote another party, and no line of it may look like a verdict.
        EzklError::Refused { check, why: printable(&why.into()) }
    }

    pub(crate) fn answer(file: impl Into<String>, why: impl std::fmt::Display) -> EzklError {
        EzklError::Answer { file: file.into(), why: printable(&why.to_string()) }
    }

    /// Whether a limit of time or memory was hit.
    pub fn is_limit(&self) -> bool {
        matches!(self, EzklError::Timeout { .. } | EzklError::Memory { .. })
    }
}
