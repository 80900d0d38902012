//! Which sessions an adapter folder has served: rows are counted before their deltas leave, and only counted rows are
//! proven (protocol 5.9, 8).
//!
//! One JSON object a line, appended and flushed. A torn last line (a crash while writing) is cut; anything else that is not a
//! line of this format is an error. A session over the network has two lines: one when it is opened, which names the log that holds
//! its rows, and one when it has ended, with their number.

use std::{
    collections::BTreeMap,
    fs,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use zklora_circuit::trace::TraceDigest;

use crate::{Error, files, not_inherited::NotInherited};

const MAX_LEDGER: u64 = 1 << 32;

/// How long another process may be writing to the ledger.
const PATIENCE: Duration = Duration::from_secs(5);

/// One line: a session that was recorded, opened or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Who was served, for sessions over the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The log that holds the rows of a session that was opened and has not ended; relative to the ledger's folder if it is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// Rows per module.
    pub rows: BTreeMap<String, usize>,
    /// The session's context, hex.
    pub session: String,
    /// Digest of the trace's content, hex; none while the session is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Format version.
    pub v: u32,
}

const VERSION: u32 = 2;
/// Lines of version 1 have neither client nor log.
const OLDEST: u32 = 1;

impl Entry {
    /// A session that has ended, with all of its rows.
    pub fn ended(
        session: &[u8; 32],
        client: Option<String>,
        trace: TraceDigest,
        rows: BTreeMap<String, usize>,
    ) -> Entry {
        let trace = Some(hex::encode(trace.0));
        Entry { client, log: None, rows, session: hex::encode(session), trace, v: VERSION }
    }

    /// A session that begins; its rows are counted in `log`.
    pub fn opened(session: &[u8; 32], client: &str, log: &Path) -> Entry {
        Entry {
            client: Some(client.to_string()),
            log: Some(log.to_path_buf()),
            rows: BTreeMap::new(),
            session: hex::encode(session),
            trace: None,
            v: VERSION,
        }
    }

    /// Whether its rows are final.
    pub fn has_ended(&self) -> bool {
        self.trace.is_some()
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
            if !(OLDEST..=VERSION).contains(&entry.v) {
                return Err(Error::file(path, format!("line {}: version {}", number + 1, entry.v)));
            }
            if entry.trace.is_some() == entry.log.is_some() {
                return Err(Error::file(
                    path,
                    format!("line {}: not a ledger entry: it has neither or both of `trace` and `log`", number + 1),
                ));
            }
            Ok(entry)
        })
        .collect()
}

/// A ledger that nobody else writes to while this value lives.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    /// Before the file: it is closed after this.
    _not_inherited: NotInherited,
    file: fs::File,
    entries: Vec<Entry>,
    /// Length of the whole lines, in bytes.
    len: u64,
}

impl Ledger {
    /// Locks the ledger, made if there is none, and reads it.
    ///
    /// # Errors
    /// [`Error::Input`] if another process keeps it: a server does so for as long as it runs.
    pub fn lock(path: &Path) -> Result<Ledger, Error> {
        let mut options = fs::OpenOptions::new();
        options.create(true).read(true).write(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let file = options.open(path).map_err(|e| Error::file(path, e))?;
        let not_inherited = NotInherited::new(&file);
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(Error::Input(format!(
                        "{}: another process serves from this folder: stop that server, or use it",
                        path.display()
                    )));
                }
                Err(fs::TryLockError::Error(e)) => return Err(Error::file(path, e)),
            }
        }
        // Under the lock: two processes cannot both take the last rows.
        let bytes = files::read(path, MAX_LEDGER)?;
        let (mut entries, len) = (parse(path, &bytes)?, whole_lines(&bytes).len() as u64);
        if let Some(folder) = path.parent() {
            entries.iter_mut().filter_map(|entry| entry.log.as_mut()).for_each(|log| *log = folder.join(&log));
        }
        Ok(Ledger { path: path.to_path_buf(), _not_inherited: not_inherited, file, entries, len })
    }

    /// How the ledger names a log: folders that are moved together find each other again.
    fn name_of(&self, log: &Path) -> PathBuf {
        let folder = self.path.parent().and_then(|folder| folder.canonicalize().ok());
        let inside = folder.as_ref().and_then(|folder| log.strip_prefix(folder).ok());
        inside.unwrap_or(log).to_path_buf()
    }

    /// All entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Appends an entry and flushes it to disk. Call it before the deltas leave.
    pub fn append(&mut self, entry: Entry) -> Result<(), Error> {
        let failed = |e: std::io::Error| Error::file(&self.path, e);
        let log = entry.log.as_deref().map(|log| self.name_of(log));
        let mut line = serde_json::to_vec(&Entry { log, ..entry.clone() }).map_err(|e| Error::file(&self.path, e))?;
        line.push(b'\n');
        // What a crash, or an append that failed, left of a line. Nobody else writes: the file is not read again.
        self.file.set_len(self.len).map_err(failed)?;
        self.file.seek(SeekFrom::Start(self.len)).map_err(failed)?;
        self.file.write_all(&line).map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        self.len += line.len() as u64;
        self.entries.push(entry);
        Ok(())
    }
}

/// Whether this very trace was served.
pub fn was_served(entries: &[Entry], session: &[u8; 32], trace: TraceDigest) -> bool {
    let (session, trace) = (hex::encode(session), hex::encode(trace.0));
    entries.iter().any(|entry| entry.session == session && entry.trace.as_ref() == Some(&trace))
}
