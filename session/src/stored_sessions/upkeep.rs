//! Commands of the operator that change stored sessions: removing the files of finished ones,
//! abandoning one, proving one again.
//!
//! Rows stay counted. A file is removed only after the ledger has the rows of its session on disk.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    files::ModuleNames,
    folder::{Folder, several_logs},
    stored::{State, Stored},
};
use crate::{
    Error,
    ledger::{Entry, Ledger, LedgerIndex, Rows},
    session_log,
};

/// What was removed.
#[derive(Debug, Default)]
pub struct Pruned {
    /// The sessions whose files were removed, or would have been.
    pub sessions: Vec<Stored>,
    /// Bytes of their files.
    pub bytes: u64,
    /// Sessions whose files could not be removed, by their id, and why.
    pub failed: Vec<(String, Error)>,
}

/// Removes log, proof and marker of each session whose proof was first sent this long ago. A dry
/// run removes nothing.
///
/// A server may run meanwhile. It reads these files only for their user, and does not create them
/// again, because a session that the ledger calls ended takes no rows. The log is removed first:
/// without it the session does not exist for the server. The marker is removed last, so that the
/// next run finds what a crash left.
///
/// # Errors
/// [`Error::Artifact`]: the ledger or a folder cannot be read.
pub fn prune(folder: &Folder, older_than: Duration, dry_run: bool) -> Result<Pruned, Error> {
    let mut pruned = Pruned::default();
    // Read after the files, so that sessions that it calls ended are so on the disk.
    let sessions = folder.sessions()?;
    let index = crate::ledger::index(&folder.ledger())?;
    for session in sessions {
        let Some(log) = session.log.clone() else { continue };
        let finished = matches!(session.state, State::Fetched | State::Removed);
        let old = session.fetched.is_some_and(|age| age >= older_than);
        if !(finished && old && rows_are_in(&index, &session.id, &log)) {
            continue;
        }
        let all = [log.clone(), log.with_extension("pf"), log.with_extension("fetched")];
        let removed = if dry_run {
            Ok(())
        } else {
            all.iter().try_for_each(|path| zklora_files::remove(path))
        };
        match removed {
            Ok(()) => {
                pruned.bytes += session.log_bytes + session.proof_bytes;
                pruned.sessions.push(session);
            }
            Err(error) => pruned.failed.push((session.id, error.into())),
        }
    }
    Ok(pruned)
}

/// Whether the ledger has the rows of this log, and no open session with this log.
fn rows_are_in(index: &LedgerIndex, id: &str, log: &Path) -> bool {
    let mut bytes = [0u8; 32];
    if hex::decode_to_slice(id, &mut bytes).is_err() {
        return false;
    }
    let mut with_log =
        index.by_id(&bytes).iter().filter(|known| known.log.as_deref() == Some(log)).peekable();
    with_log.peek().is_some() && with_log.all(|known| known.trace.is_some())
}

/// Abandons a session that is open or set aside: enters its rows in the ledger, and removes its
/// log. It can neither be resumed nor proven.
///
/// # Errors
/// [`Error::Artifact`]: there is no such session, it is in another state, or a server runs.
pub fn abandon(folder: &Folder, prefix: &str) -> Result<Stored, Error> {
    // Before the ledger is locked or created.
    let id = one(folder, prefix)?.id;
    let mut ledger = Ledger::lock(&folder.ledger())?;
    // Under the lock, so that no server adds rows to it.
    let mut session = one(folder, &id)?;
    let (bytes, log) = (session_id(&session.id)?, log_of(&session)?);
    match session.state {
        State::Open | State::SetAside if !session.counted => {
            let rows = rows_of(folder, &log, &session.id)?;
            ledger.append(Entry::abandoned(&bytes, &session.client, &log, rows.clone()))?;
            session.rows = rows;
        }
        // The ledger has its rows since its first proof.
        State::SetAside => {}
        // A crash left its log.
        State::Abandoned if session.log_bytes > 0 => {}
        State::ToProve => {
            return Err(refused(&session, "it has ended, and the next server proves it"));
        }
        State::NotEntered => {
            return Err(refused(&session, "start a server once, which enters it in the ledger"));
        }
        State::LogMissing => {
            return Err(refused(
                &session,
                "its rows are only in its log: restore the log from a backup",
            ));
        }
        _ => {
            return Err(refused(
                &session,
                "only a session that is open or set aside can be abandoned",
            ));
        }
    }
    zklora_files::remove(&log)?;
    for extension in ["proving", "trace"] {
        zklora_files::remove(&log.with_extension(extension))?;
    }
    (session.state, session.counted) = (State::Abandoned, true);
    Ok(session)
}

/// Lets the next server prove a session again that was set aside.
///
/// # Errors
/// [`Error::Artifact`]: there is no such session, or it was not set aside.
pub fn retry(folder: &Folder, prefix: &str) -> Result<Stored, Error> {
    let mut session = one(folder, prefix)?;
    if session.state != State::SetAside {
        return Err(refused(&session, "only a session that was set aside can be retried"));
    }
    zklora_files::remove(&log_of(&session)?.with_extension("proving"))?;
    session.state = State::ToProve;
    Ok(session)
}

/// The session of a command. Of several logs with one id, it is the one in the server's folder.
fn one(folder: &Folder, prefix: &str) -> Result<Stored, Error> {
    let mut found = folder.with_id(prefix)?;
    if found.len() > 1 {
        found.retain(|session| {
            session.log.as_ref().and_then(|log| log.parent()) == Some(&folder.data)
        });
    }
    let [session] = <[Stored; 1]>::try_from(found).map_err(|found| several_logs(&found))?;
    Ok(session)
}

fn refused(session: &Stored, why: &str) -> Error {
    Error::input(format!("session {} is {}: {why}", session.id, session.state.name()))
}

fn session_id(id: &str) -> Result<[u8; 32], Error> {
    let mut bytes = [0u8; 32];
    let none =
        |_| Error::input("the ledger has a malformed session id: restore the ledger from a backup");
    hex::decode_to_slice(id, &mut bytes).map(|()| bytes).map_err(none)
}

fn log_of(session: &Stored) -> Result<PathBuf, Error> {
    session.log.clone().ok_or_else(|| refused(session, "it has no log"))
}

/// The rows of a log, by the names of its modules.
fn rows_of(folder: &Folder, log: &Path, id: &str) -> Result<Rows, Error> {
    let modules = ModuleNames::read(&folder.artifacts)?;
    let contents = session_log::contents(log, modules.names.len())?;
    if contents.header.adapter_id != modules.adapter || hex::encode(contents.header.session) != id {
        return Err(Error::file(
            log,
            "the log of another adapter or session: remove it from this folder",
        ));
    }
    Ok(modules.names.into_iter().zip(contents.rows).filter(|(_, rows)| *rows > 0).collect())
}
