//! Names of the files that a server keeps of each session, by session id.

use std::path::{Path, PathBuf};

use crate::Error;

/// The default folder of a server's sessions.
pub fn default_data(artifacts: &Path) -> PathBuf {
    artifacts.join("private").join("sessions")
}

/// The log of a session.
pub(crate) fn log_path(folder: &Path, id: &[u8; 32]) -> PathBuf {
    file(folder, id, "rows")
}

/// The rows and deltas of a session while it is being proven.
pub(crate) fn trace_path(folder: &Path, id: &[u8; 32]) -> PathBuf {
    file(folder, id, "trace")
}

/// The proof of a session.
pub(crate) fn proof_path(folder: &Path, id: &[u8; 32]) -> PathBuf {
    file(folder, id, "pf")
}

/// The marker of a session whose proof was sent to its user.
pub(crate) fn fetched_path(folder: &Path, id: &[u8; 32]) -> PathBuf {
    file(folder, id, "fetched")
}

/// The number of attempts to prove a session.
pub(crate) fn attempts_path(folder: &Path, id: &[u8; 32]) -> PathBuf {
    file(folder, id, "proving")
}

fn file(folder: &Path, id: &[u8; 32], extension: &str) -> PathBuf {
    folder.join(format!("{}.{extension}", hex::encode(id)))
}

/// A log whose file name is not its session's id.
pub(crate) fn misnamed(path: &Path) -> Error {
    Error::file(
        path,
        "the file name is not the id of the session in the file: give the file its name back, \
         which is the id and `.rows`",
    )
}
