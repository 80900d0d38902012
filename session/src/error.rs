//! The errors of this crate, and whether one refuses a claim.

use std::path::Path;

use zklora_artifacts::Error as Artifact;
#[cfg(feature = "network")]
use zklora_files::text::printable;

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a proof or an input is not what it must be.
    #[error(transparent)]
    Artifact(#[from] Artifact),
    /// The session id was used before in this folder.
    #[error("{0}")]
    Reused(String),
    /// Serving rows would exceed the limit that the contributor set.
    #[error("{0}")]
    Budget(String),
    /// A contributor could not be reached, refused a request, or broke the protocol.
    #[error("contributor {url}: {why}")]
    Contributor {
        /// Its URL.
        url: String,
        /// What happened.
        why: String,
    },
    /// This adapter folder did not serve the rows that it was asked to prove.
    #[error("{0}")]
    NotServed(String),
    /// The operating system refused a resource such as a thread, or the network failed.
    #[error("{0}")]
    System(String),
    /// A part of zklora panicked or violated an invariant.
    #[error("{0}: this is a bug of zklora, please report it")]
    Internal(String),
}

impl From<zklora_files::Error> for Error {
    fn from(error: zklora_files::Error) -> Error {
        Error::Artifact(error.into())
    }
}

impl From<zklora_proof::Error> for Error {
    fn from(error: zklora_proof::Error) -> Error {
        Error::Artifact(error.into())
    }
}

impl Error {
    /// An error about a file. An [`std::io::Error`] keeps its kind.
    pub fn file(path: &Path, why: impl std::fmt::Display + 'static) -> Error {
        Error::Artifact(Artifact::file(path, why))
    }

    /// An input that does not fit.
    pub fn input(why: impl Into<String>) -> Error {
        Error::Artifact(Artifact::Input(why.into()))
    }

    /// A trace or proof of another session.
    pub fn not_yours(why: impl Into<String>) -> Error {
        Error::Artifact(Artifact::NotYours(why.into()))
    }

    /// The error of the proof system, if this is one.
    pub fn proof(&self) -> Option<&zklora_proof::Error> {
        match self {
            Error::Artifact(error) => error.proof(),
            _ => None,
        }
    }

    /// Whether this refuses a claim (exit code 1), rather than reporting unusable input (exit code
    /// 2).
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::Artifact(error) => error.is_refusal(),
            Error::NotServed(_) | Error::Budget(_) => true,
            Error::Reused(_)
            | Error::Contributor { .. }
            | Error::System(_)
            | Error::Internal(_) => false,
        }
    }

    /// The kind of the error, if it is about a file.
    pub fn kind(&self) -> Option<zklora_files::Kind> {
        match self {
            Error::Artifact(Artifact::File(error)) => Some(error.kind),
            _ => None,
        }
    }
}

#[cfg(feature = "network")]
impl Error {
    /// The error for a gRPC status of a contributor.
    pub(crate) fn status(url: &str, status: &tonic::Status) -> Error {
        let said = match status.message() {
            "" => format!("{:?}", status.code()),
            message => format!("{} ({:?})", printable(message), status.code()),
        };
        // The cause says why a connection broke.
        let cause = std::error::Error::source(status).map(|cause| printable(&causes(cause)));
        let why = match cause {
            Some(cause) if !said.contains(&cause) => format!("{said}: {cause}"),
            _ => said,
        };
        Error::Contributor { url: url.to_string(), why }
    }

    /// The reason without the URL, for a text that already names the contributor.
    pub(crate) fn why_of(self, url: &str) -> String {
        match self {
            Error::Contributor { url: other, why } if other == url => why,
            other => other.to_string(),
        }
    }
}

/// An error with its causes, on one line.
#[cfg(feature = "network")]
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(all(test, feature = "network"))]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_peer_are_escaped() {
        let text = "\u{1b}[2Jproven\r\nverified\u{202e}".to_string() + &"x".repeat(10_000);
        let shown = Error::status("http://there", &tonic::Status::internal(text)).to_string();
        let expected = r"contributor http://there: \u{1b}[2Jproven\r\nverified\u{202e}xxx";
        assert!(shown.starts_with(expected), "{shown}");
        assert!(!shown.chars().any(char::is_control), "{shown}");
        assert!(shown.ends_with("x… (Internal)") && shown.len() < 1000, "{shown}");
    }
}
