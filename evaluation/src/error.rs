//! Errors of evaluations: one variant per cause.

use zklora_files::text::condensed;

/// Why a statement, a request or a delivery cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] zklora_files::Error),
    /// Units cannot be read.
    #[error(transparent)]
    Integer(#[from] zklora_integer::Error),
    /// Bytes are not what they must be.
    #[error("{what}: {why}")]
    Form {
        /// What was read, such as `offer.json`.
        what: String,
        /// Which rule it breaks.
        why: String,
    },
    /// A statement is not signed by the key that it must be signed by.
    #[error("{what}: {why}")]
    Signature {
        /// The statement.
        what: String,
        /// What is wrong with its signature.
        why: String,
    },
    /// A statement is signed, and is not the one that is needed.
    #[error("{what}: {why}")]
    Mismatch {
        /// The statement.
        what: String,
        /// What differs.
        why: String,
    },
    /// The request does not fit the offer or the budget.
    #[error("{0}")]
    Refused(String),
    /// A check of zklora's own work failed.
    #[error("internal error: {0}; this is a bug in zklora, please report it")]
    Internal(String),
}

impl Error {
    pub(crate) fn form(what: &str, why: impl std::fmt::Display) -> Error {
        Error::Form { what: what.into(), why: condensed(why) }
    }

    pub(crate) fn mismatch(what: &str, why: impl Into<String>) -> Error {
        Error::Mismatch { what: what.into(), why: why.into() }
    }

    /// Whether a claim of the other party was checked and rejected.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Error::Signature { .. } | Error::Mismatch { .. } | Error::Refused(_))
    }
}
