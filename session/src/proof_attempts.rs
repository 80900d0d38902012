//! The number of times that a server died while it proved a session, in a file beside the log.
//!
//! A proof can need more memory than the machine has. The system then kills the server each time it
//! starts. So the attempt is on disk before it begins. A session with [`MAX_ATTEMPTS`] such
//! attempts is set aside, and other sessions are proven. Its rows stay counted.

use std::{path::Path, time::Duration};

use zklora_files::Access;

use crate::{Error, session_files::attempts_path};

/// Attempts that end with the death of the server before a session is set aside.
pub const MAX_ATTEMPTS: u32 = 3;

/// Why a session that was set aside has no proof: text for its user.
pub const SET_ASIDE: &str = "this server ended several times while it proved this session, so the \
                             session is set aside: its operator can have it proven again (zklora \
                             sessions retry)";

/// How long a session waits before its next attempt, for each attempt so far. An operator who kills
/// a server on purpose does so at shorter intervals, and must not set sessions aside.
const DELAY_PER_ATTEMPT: Duration = Duration::from_secs(10);

/// Attempts so far that did not end.
pub fn read(folder: &Path, id: &[u8; 32]) -> u32 {
    let bytes = zklora_files::read(&attempts_path(folder, id), 16).unwrap_or_default();
    std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// How long the next attempt has to wait.
pub fn delay(attempts: u32) -> Duration {
    DELAY_PER_ATTEMPT * attempts.min(MAX_ATTEMPTS)
}

/// Sets the number of attempts. It is on disk when this returns.
///
/// # Errors
/// [`Error::Artifact`]: the file cannot be written, and no attempt may begin.
pub fn write(folder: &Path, id: &[u8; 32], attempts: u32) -> Result<(), Error> {
    let path = attempts_path(folder, id);
    match attempts {
        0 => zklora_files::remove(&path)?,
        _ => zklora_files::write(&path, format!("{attempts}\n").as_bytes(), Access::Private)?,
    }
    Ok(())
}
