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
    /// A contributor could not be reached, refused, or answered what no contributor may answer.
    #[error("contributor {url}: {why}")]
    Contributor {
        /// Where it is.
        url: String,
        /// What it did or did not do.
        why: String,
    },
    /// A run ended early, because contributors failed: the text names each.
    #[error("{0}")]
    Interrupted(String),
    /// The contributor was asked to prove rows that this adapter folder did not serve.
    #[error("{0}")]
    NotServed(String),
    /// A claim about committed activations does not hold.
    #[error("{0}")]
    Claim(String),
    /// EZKL gave no result, or a result of it was refused.
    #[error(transparent)]
    Ezkl(#[from] crate::ezkl::EzklError),
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
            Error::Ezkl(error) => matches!(error, crate::ezkl::EzklError::Refused { .. }),
            Error::NotServed(_) | Error::NotYours(_) | Error::Budget(_) | Error::Claim(_) => true,
            _ => false,
        }
    }

    /// What a contributor's gRPC status says.
    pub(crate) fn status(url: &str, status: &tonic::Status) -> Error {
        let said = match status.message() {
            "" => format!("{:?}", status.code()),
            message => format!("{} ({:?})", printable(message), status.code()),
        };
        // A broken connection hides its reason in the cause.
        let cause = std::error::Error::source(status).map(|cause| printable(&crate::server::causes(cause)));
        let why = match cause {
            Some(cause) if !said.contains(&cause) => format!("{said}: {cause}"),
            _ => said,
        };
        Error::Contributor { url: url.to_string(), why }
    }

    pub(crate) fn file(path: &Path, why: impl std::fmt::Display) -> Error {
        Error::File { path: path.to_path_buf(), why: why.to_string() }
    }
}

/// Longest text of a peer that is shown, in characters.
const LONGEST: usize = 600;

/// A peer's text as it may be shown, cut after [`LONGEST`] characters.
pub(crate) fn printable(text: &str) -> String {
    zklora_models::text::shortened(text, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_text_does_nothing_to_a_terminal() {
        let status = tonic::Status::internal("\u{1b}[2Jproven\r\nverified\u{202e}".to_string() + &"x".repeat(10_000));
        let shown = Error::status("http://there", &status).to_string();
        assert!(shown.starts_with(r"contributor http://there: \u{1b}[2Jproven\r\nverified\u{202e}xxx"), "{shown}");
        assert!(!shown.chars().any(char::is_control) && shown.ends_with("x… (Internal)") && shown.len() < 1000);
    }
}
