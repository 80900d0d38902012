//! Which sessions an adapter folder has served: rows are counted before their deltas leave, and only counted rows are
//! proven (protocol 5.9, 8).
//!
//! One JSON object a line, appended and flushed. A torn last line (a crash while writing) is cut; anything else that is not a
//! line of this format is an error.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use zklora_circuit::trace::TraceDigest;

use crate::{Error, files};

const MAX_LEDGER: u64 = 1 << 32;

/// One served session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Rows per module.
    pub rows: std::collections::BTreeMap<String, usize>,
    /// The session's context, hex.
    pub session: String,
    /// Digest of the trace's content, hex.
    pub trace: String,
    /// Format version.
    pub v: u32,
}

const VERSION: u32 = 1;

impl Entry {
    /// An entry for these rows.
    pub fn new(session: &[u8; 32], trace: TraceDigest, rows: std::collections::BTreeMap<String, usize>) -> Entry {
        Entry { rows, session: hex::encode(session), trace: hex::encode(trace.0), v: VERSION }
    }
}

/// The entries of a ledger; none if there is no file yet.
pub fn read(path: &Path) -> Result<Vec<Entry>, Error> {
    // What cannot be looked at is not what is not there.
    if !path.try_exists().map_err(|e| Error::file(path, e))? {
        return Ok(Vec::new());
    }
    parse(path, &files::read(path, MAX_LEDGER)?)
}

/// The lines that were written to their end.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1)]
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Entry>, Error> {
    whole_lines(bytes)
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .enumerate()
        .map(|(number, line)| {
            let entry: Entry = serde_json::from_slice(line)
                .map_err(|e| Error::file(path, format!("line {}: not a ledger entry: {e}", number + 1)))?;
            if entry.v != VERSION {
                return Err(Error::file(path, format!("line {}: version {}", number + 1, entry.v)));
            }
            Ok(entry)
        })
        .collect()
}

/// Appends an entry and flushes it to disk. Call it before the deltas leave.
///
/// # Errors
/// [`Error::Budget`] if a module would then have served more than `max_rows` rows over all sessions; nothing is appended.
pub fn append(path: &Path, entry: &Entry, max_rows: Option<usize>) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::file(path, e);
    let mut line = serde_json::to_vec(entry).map_err(|e| Error::file(path, e))?;
    line.push(b'\n');
    let mut options = fs::OpenOptions::new();
    options.create(true).read(true).write(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path).map_err(failed)?;
    file.lock().map_err(failed)?;
    let bytes = files::read(path, MAX_LEDGER)?;
    let whole = whole_lines(&bytes).len() as u64;
    if let Some(limit) = max_rows {
        // Under the lock: two processes cannot both take the last rows.
        let served = parse(path, &bytes)?;
        let total = total_rows(served.iter().chain([entry]));
        if let Some((module, rows)) = total.into_iter().find(|(_, rows)| *rows > limit) {
            return Err(Error::Budget(format!(
                "module `{module}` would have served {rows} rows in all, the limit is {limit}: what rows reveal adds up over all \
                 sessions and users (docs/security.md)"
            )));
        }
    }
    file.set_len(whole).map_err(failed)?;
    file.seek(SeekFrom::Start(whole)).map_err(failed)?;
    file.write_all(&line).map_err(failed)?;
    file.sync_all().map_err(failed)
}

/// Whether this very trace was served.
pub fn was_served(path: &Path, session: &[u8; 32], trace: TraceDigest) -> Result<bool, Error> {
    let (session, trace) = (hex::encode(session), hex::encode(trace.0));
    Ok(read(path)?.iter().any(|entry| entry.session == session && entry.trace == trace))
}

/// Rows served per module, over all sessions: what the leakage budget counts (protocol section 8).
pub fn total_rows<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> std::collections::BTreeMap<&'a str, usize> {
    let mut total = std::collections::BTreeMap::new();
    for (module, rows) in entries.into_iter().flat_map(|entry| &entry.rows) {
        let count: &mut usize = total.entry(module.as_str()).or_default();
        *count = count.saturating_add(*rows);
    }
    total
}
