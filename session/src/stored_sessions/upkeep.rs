//! What an operator does with stored sessions: removing files of finished ones, giving one up,
//! having one proven again.
//!
//! Rows are never forgotten. A file is removed when the ledger has the rows of its session, on the
//! disk, and not before.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Folder, Names, State, Stored};
use crate::{
    Error,
    ledger::{Book, Entry, Ledger, Rows},
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

/// Removes log, proof and marker of each session whose proof was sent for the first time so long
/// ago. A dry run removes nothing.
///
/// A server may run meanwhile. It reads these files for their user alone, and makes none of them
/// again: a session of which the ledger knows the end takes no rows. The log goes first, for
/// without it there is no session, and the server says so. The marker goes last: what a crash
/// leaves is found by it.
///
/// # Errors
/// [`Error::File`] if the ledger or a folder cannot be read.
pub fn prune(folder: &Folder, older_than: Duration, dry_run: bool) -> Result<Pruned, Error> {
    let mut pruned = Pruned::default();
    // A second time, and after the files were looked at: what it calls ended is so on the disk.
    let sessions = folder.sessions()?;
    let book = crate::ledger::book(&folder.ledger())?;
    for session in sessions {
        let Some(log) = session.log.clone() else { continue };
        let finished = matches!(session.state, State::Fetched | State::Removed);
        let old = session.fetched.is_some_and(|age| age >= older_than);
        if !(finished && old && rows_are_in(&book, &session.id, &log)) {
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

/// Whether the ledger has the rows of this log, and calls nothing open that is kept in it.
fn rows_are_in(book: &Book, id: &str, log: &Path) -> bool {
    let mut bytes = [0u8; 32];
    if hex::decode_to_slice(id, &mut bytes).is_err() {
        return false;
    }
    let mut of_log =
        book.of_id(&bytes).iter().filter(|known| known.log.as_deref() == Some(log)).peekable();
    of_log.peek().is_some() && of_log.all(|known| known.trace.is_some())
}

/// Gives up a session that is open or set aside: its rows are in the ledger then, and its log is
/// gone. Nobody goes on with it, and nothing of it is proven.
///
/// # Errors
/// [`Error::Input`] if there is no such session, if it is neither, or if a server runs.
pub fn abandon(folder: &Folder, beginning: &str) -> Result<Stored, Error> {
    // Before anything is locked or made.
    let id = one(folder, beginning)?.id;
    let mut ledger = Ledger::lock(&folder.ledger())?;
    // Under the lock: no server adds rows to it.
    let mut session = one(folder, &id)?;
    let (bytes, log) = (session_id(&session.id)?, log_of(&session)?);
    match session.state {
        State::Open | State::SetAside if !session.counted => {
            let rows = rows_of(folder, &log, &session.id)?;
            ledger.append(Entry::abandoned(&bytes, &session.client, &log, rows.clone()))?;
            session.rows = rows;
        }
        // The ledger has had its rows since it was first proven.
        State::SetAside => {}
        // What a crash left.
        State::Abandoned if session.log_bytes > 0 => {}
        State::ToProve => {
            return Err(refused(&session, "it has ended, and the next server proves it"));
        }
        State::NotEntered => return Err(refused(&session, "start a server once, which enters it")),
        State::LogMissing => {
            return Err(refused(
                &session,
                "its rows are not known without its log: restore that from a backup",
            ));
        }
        _ => return Err(refused(&session, "only a session that is open or set aside is given up")),
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
/// [`Error::Input`] if there is no such session, or if it was not set aside.
pub fn retry(folder: &Folder, beginning: &str) -> Result<Stored, Error> {
    let mut session = one(folder, beginning)?;
    if session.state != State::SetAside {
        return Err(refused(&session, "only a session that was set aside is tried again"));
    }
    zklora_files::remove(&log_of(&session)?.with_extension("proving"))?;
    session.state = State::ToProve;
    Ok(session)
}

/// The one session that a command is about: of several logs with one id, the one in the server's
/// folder.
fn one(folder: &Folder, beginning: &str) -> Result<Stored, Error> {
    let mut found = folder.with_id(beginning)?;
    if found.len() > 1 {
        found.retain(|session| {
            session.log.as_ref().and_then(|log| log.parent()) == Some(&folder.data)
        });
    }
    let [session] = <[Stored; 1]>::try_from(found).map_err(|found| super::several_logs(&found))?;
    Ok(session)
}

fn refused(session: &Stored, why: &str) -> Error {
    Error::input(format!("session {} is {}: {why}", session.id, session.state.name()))
}

fn session_id(id: &str) -> Result<[u8; 32], Error> {
    let mut bytes = [0u8; 32];
    let none = |_| Error::input("the ledger has an id that is none: it was changed");
    hex::decode_to_slice(id, &mut bytes).map(|()| bytes).map_err(none)
}

fn log_of(session: &Stored) -> Result<PathBuf, Error> {
    session.log.clone().ok_or_else(|| refused(session, "it has no log"))
}

/// The rows of a log, by the names of its modules.
fn rows_of(folder: &Folder, log: &Path, id: &str) -> Result<Rows, Error> {
    let manifest = Names::read(&folder.artifacts)?;
    let contents = session_log::contents(log, manifest.names.len())?;
    if contents.header.adapter_id != manifest.adapter || contents.header.session != id {
        return Err(Error::file(
            log,
            "the log of another adapter or session: its rows are not counted here",
        ));
    }
    Ok(manifest.names.into_iter().zip(contents.rows).filter(|(_, rows)| *rows > 0).collect())
}
