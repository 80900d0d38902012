//! What can go wrong around the proof, and whether it means "no" or "this input is unusable".

use std::{
    io,
    path::{Path, PathBuf},
};

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
        /// What kind of trouble that is, if the operating system said so.
        trouble: Trouble,
    },
    /// The proof system refused something.
    #[error(transparent)]
    Proof(#[from] zklora_proof::Error),
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
    /// Whether this is a "no" about a claim (exit code 1) rather than an unusable input (exit code
    /// 2).
    pub fn is_refusal(&self) -> bool {
        use zklora_proof::Error as Proof;
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
                    | Proof::UntrustedSrs(_)
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
        let cause =
            std::error::Error::source(status).map(|cause| printable(&crate::server::causes(cause)));
        let why = match cause {
            Some(cause) if !said.contains(&cause) => format!("{said}: {cause}"),
            _ => said,
        };
        Error::Contributor { url: url.to_string(), why }
    }

    /// Why, without who, for a text that names the contributor already.
    pub(crate) fn why_of(self, url: &str) -> String {
        match self {
            Error::Contributor { url: other, why } if other == url => why,
            other => other.to_string(),
        }
    }

    /// An error of the operating system (an [`io::Error`] as it is) keeps what kind of trouble it
    /// is.
    pub(crate) fn file(path: &Path, why: impl std::fmt::Display + 'static) -> Error {
        let trouble =
            (&why as &dyn std::any::Any).downcast_ref().map_or(Trouble::Other, Trouble::of);
        Error::File { path: path.to_path_buf(), why: why.to_string(), trouble }
    }

    /// What kind of trouble with a file this is.
    pub(crate) fn trouble(&self) -> Trouble {
        match self {
            Error::File { trouble, .. } => *trouble,
            _ => Trouble::Other,
        }
    }
}

/// Kinds of trouble with a file that pass, and that something can be done about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No more files may be open: in this process, or on this machine.
    TooManyOpen,
    /// The disk is full, or its user's share of it.
    DiskFull,
    /// Another error of the operating system.
    System,
    /// Nothing that passes: what is in the file, or where it is.
    Other,
}

impl Trouble {
    fn of(error: &io::Error) -> Trouble {
        match error.kind() {
            _ if is_out_of_descriptors(error) => Trouble::TooManyOpen,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Trouble::DiskFull,
            _ => Trouble::System,
        }
    }
}

/// Whether no file can be opened, and no connection accepted, because too many are.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    // EMFILE and ENFILE, which have no kind of their own; the numbers are the same on every Unix.
    cfg!(unix) && matches!(error.raw_os_error(), Some(24 | 23))
}

/// Longest text of a peer that is shown, in characters.
const LONGEST: usize = 600;

/// A peer's text as it may be shown, cut after [`LONGEST`] characters.
pub(crate) fn printable(text: &str) -> String {
    zklora_files::text::shortened(text, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_file_knows_what_kind_of_trouble_it_is() {
        let of = |code| Error::file(Path::new("log"), io::Error::from_raw_os_error(code)).trouble();
        if cfg!(target_os = "linux") {
            let (emfile, enfile, enospc, edquot, enoent) = (24, 23, 28, 122, 2);
            assert_eq!((of(emfile), of(enfile)), (Trouble::TooManyOpen, Trouble::TooManyOpen));
            assert_eq!(
                (of(enospc), of(edquot), of(enoent)),
                (Trouble::DiskFull, Trouble::DiskFull, Trouble::System)
            );
        }
        assert_eq!(Error::file(Path::new("log"), "it is damaged").trouble(), Trouble::Other);
        assert_eq!(Error::Input("no file".into()).trouble(), Trouble::Other);
    }

    #[test]
    fn a_peers_text_does_nothing_to_a_terminal() {
        let status = tonic::Status::internal(
            "\u{1b}[2Jproven\r\nverified\u{202e}".to_string() + &"x".repeat(10_000),
        );
        let shown = Error::status("http://there", &status).to_string();
        assert!(
            shown.starts_with(r"contributor http://there: \u{1b}[2Jproven\r\nverified\u{202e}xxx"),
            "{shown}"
        );
        assert!(
            !shown.chars().any(char::is_control)
                && shown.ends_with("x… (Internal)")
                && shown.len() < 1000
        );
    }
}
