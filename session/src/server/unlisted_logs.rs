//! Logs in a server's folder that the ledger does not name by this path: new, moved, copied, or
//! ended by an older version. Each gets the ledger line that its rows need.

use std::path::Path;

use zklora_artifacts::folder::Artifacts;

use crate::{
    Error, frame_log,
    ledger::{Entry, LedgerIndex, LedgerSession, Rows, digest_of},
    session_files::{log_path, misnamed},
    session_log::{self, Contents, Header},
};

/// Compares a log in the server's folder with the ledger. Returns the line that the ledger needs
/// for it, if any, and the totals of the log.
///
/// A log is identified by its contents, not by its path. It is the log of a ledger line if it is
/// the same file, or if that file is gone and the rows are the same. Any other log with the id of a
/// known session is counted as a further one.
pub(super) fn missing_entry(
    folder: &Path,
    id: &[u8; 32],
    index: &LedgerIndex,
    artifacts: &Artifacts,
) -> Result<Option<(Entry, Contents)>, Error> {
    let (path, modules) = (log_path(folder, id), artifacts.manifest.modules());
    let named = index.by_log(id, &path);
    if named.is_some_and(|known| !known.needs_recount) {
        return Ok(None);
    }
    // The machine died while the log was created: it has no row, and the ledger has no line.
    if index.by_id(id).is_empty() && frame_log::lacks_first_record(&path)? {
        tracing::warn!("{}: cut before the session was opened; removed", path.display());
        zklora_files::remove(&path)?;
        return Ok(None);
    }
    // First, because the log of another adapter may have other modules.
    check_log(&path, &session_log::header(&path)?, artifacts)?;
    let contents = session_log::contents(&path, modules.len())?;
    let names = modules.iter().map(|module| module.name.clone());
    let rows: Rows = names.zip(contents.rows.iter().copied()).collect();
    let has_same_rows = |known: &LedgerSession| known.rows == Some(digest_of(&rows));
    let moved = |known: &LedgerSession, from: &Path, rows| {
        Entry::moved(id, &known.client, from, &path, rows)
    };
    if let Some(known) = named {
        // Ended by an older version. If the log has other rows than the line, the session was
        // begun a second time: all rows of the log count.
        let more = if has_same_rows(known) { Rows::new() } else { rows };
        return Ok(Some((moved(known, &path, more), contents)));
    }
    let mut others =
        index.by_id(id).iter().filter_map(|known| Some((known, known.log.as_deref()?)));
    // A link to the folder, or the folder mounted elsewhere.
    if let Some((known, from)) = others.clone().find(|(_, from)| is_same_file(from, &path)) {
        return Ok(Some((moved(known, from, Rows::new()), contents)));
    }
    let is_gone = |from: &Path| matches!(from.try_exists(), Ok(false));
    if let Some((known, from)) = others.clone().find(|(known, from)| {
        is_gone(from) && (known.is_open() || known.trace.is_some() && has_same_rows(known))
    }) {
        return Ok(Some((moved(known, from, Rows::new()), contents)));
    }
    // A copy of a session that has ended: its rows are in the ledger, and it cannot be resumed.
    if others.any(|(known, _)| !known.is_open() && has_same_rows(known)) {
        return Ok(None);
    }
    let entry = Entry::opened(id, &contents.header.peer, &path);
    Ok(Some((entry, contents)))
}

/// The session id of a log, which must be of this adapter and named after its session.
pub(super) fn check_log(
    path: &Path,
    header: &Header,
    artifacts: &Artifacts,
) -> Result<[u8; 32], Error> {
    if header.adapter_id != artifacts.manifest.id().to_string() {
        let why = format!(
            "a session of adapter {}: serve each adapter from its own --data folder",
            header.adapter_id
        );
        return Err(Error::file(path, why));
    }
    match path.parent() {
        Some(folder) if log_path(folder, &header.session) == path => Ok(header.session),
        _ => Err(misnamed(path)),
    }
}

#[cfg(unix)]
fn is_same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let of = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    of(one).is_some_and(|one| Some(one) == of(other))
}

#[cfg(not(unix))]
fn is_same_file(one: &Path, other: &Path) -> bool {
    one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}
