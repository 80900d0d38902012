//! How often a server died while it proved a session: a small file beside the session's log.
//!
//! A proof can need more memory than the machine has, and then the system ends the server, at every
//! start anew. So the attempt is on the disk before it begins. A session whose attempts died
//! [`MOST`] times is set aside: nobody else waits for it any more. Its rows stay counted.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use zklora_files::Access;

use crate::Error;

/// Attempts that end with the death of the server until a session is set aside.
pub const MOST: u32 = 3;

/// What the user of such a session is told.
pub const SET_ASIDE: &str = "this server ended several times while it proved this session, so the session is set aside: \
     its operator can have it proven again (zklora sessions retry)";

/// How long a session that was being proven when the server died waits, for each time. Who kills a
/// server on purpose does so more often than that, and must not set sessions aside.
const WAIT: Duration = Duration::from_secs(10);

fn path(folder: &Path, id: &[u8; 32]) -> PathBuf {
    folder.join(format!("{}.proving", hex::encode(id)))
}

/// Attempts so far that did not come to an end.
pub fn read(folder: &Path, id: &[u8; 32]) -> u32 {
    let bytes = zklora_files::read(&path(folder, id), 16).unwrap_or_default();
    std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// How long the next attempt has to wait.
pub fn wait(attempts: u32) -> Duration {
    WAIT * attempts.min(MOST)
}

/// Sets the number of attempts; it is on the disk when this returns.
///
/// # Errors
/// [`Error::File`]: then no attempt may begin.
pub fn write(folder: &Path, id: &[u8; 32], attempts: u32) -> Result<(), Error> {
    let path = path(folder, id);
    match attempts {
        0 => zklora_files::remove(&path)?,
        _ => zklora_files::write(&path, format!("{attempts}\n").as_bytes(), Access::Private)?,
    }
    Ok(())
}
