//! What can go wrong between two parties, and whether it means "no" or "unusable input".

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
    /// A session id was used before in this folder.
    #[error("{0}")]
    Reused(String),
    /// Serving rows would exceed the limit that the contributor set.
    #[error("{0}")]
    Budget(String),
    /// A contributor could not be reached, refused, or answered what no contributor may answer.
    #[error("contributor {url}: {why}")]
    Contributor {
        /// Where it is.
        url: String,
        /// What it did or did not do.
        why: String,
    },
    /// The contributor was asked to prove rows that this adapter folder did not serve.
    #[error("{0}")]
    NotServed(String),
    /// A part of zklora panicked or broke a rule of its own.
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
    /// What is wrong with a file. An [`std::io::Error`], given as it is, keeps its kind.
    pub fn file(path: &Path, why: impl std::fmt::Display + 'static) -> Error {
        Error::Artifact(Artifact::file(path, why))
    }

    /// An input that does not fit.
    pub fn input(why: impl Into<String>) -> Error {
        Error::Artifact(Artifact::Input(why.into()))
    }

    /// A trace or proof that is not of the user's session.
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

    /// Whether this is a "no" about a claim (exit code 1) rather than an unusable input (exit code
    /// 2).
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::Artifact(error) => error.is_refusal(),
            Error::NotServed(_) | Error::Budget(_) => true,
            Error::Reused(_) | Error::Contributor { .. } | Error::Internal(_) => false,
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
    /// What a contributor's gRPC status says.
    pub(crate) fn status(url: &str, status: &tonic::Status) -> Error {
        let said = match status.message() {
            "" => format!("{:?}", status.code()),
            message => format!("{} ({:?})", printable(message), status.code()),
        };
        // The reason for a broken connection is in the cause.
        let cause = std::error::Error::source(status).map(|cause| printable(&causes(cause)));
        let why = match cause {
            Some(cause) if !said.contains(&cause) => format!("{said}: {cause}"),
            _ => said,
        };
        Error::Contributor { url: url.to_string(), why }
    }

    /// The reason without the URL, for a text that names the contributor already.
    pub(crate) fn why_of(self, url: &str) -> String {
        match self {
            Error::Contributor { url: other, why } if other == url => why,
            other => other.to_string(),
        }
    }
}

/// An error with its causes on one line.
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
    fn a_peers_text_does_nothing_to_a_terminal() {
        let text = "\u{1b}[2Jproven\r\nverified\u{202e}".to_string() + &"x".repeat(10_000);
        let shown = Error::status("http://there", &tonic::Status::internal(text)).to_string();
        let expected = r"contributor http://there: \u{1b}[2Jproven\r\nverified\u{202e}xxx";
        assert!(shown.starts_with(expected), "{shown}");
        assert!(!shown.chars().any(char::is_control), "{shown}");
        assert!(shown.ends_with("x… (Internal)") && shown.len() < 1000, "{shown}");
    }
}
