//! Appending to a ledger, under its lock.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    entry::Entry,
    index::LedgerIndex,
    reader::{MAX_LEDGER, folder_of, index_lines, whole_lines},
};
use crate::{Error, close_in_child::CloseInChild};

/// How long to wait while another process holds the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// A ledger that no other process writes to while this value lives.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    /// Declared before the file, so that it is dropped first.
    _close_in_child: CloseInChild,
    file: fs::File,
    index: LedgerIndex,
    /// Length of the whole lines, in bytes.
    len: u64,
}

impl Ledger {
    /// Locks the ledger, which is created if there is none, and reads it.
    ///
    /// # Errors
    /// [`Error::Artifact`]: the ledger is damaged, or another process has locked it. A server does
    /// so for as long as it runs.
    pub fn lock(path: &Path) -> Result<Ledger, Error> {
        let mut options = fs::OpenOptions::new();
        options.create(true).read(true).write(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let file = options.open(path).map_err(|e| Error::file(path, e))?;
        let close_in_child = CloseInChild::new(&file);
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) if start.elapsed() < LOCK_TIMEOUT => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(Error::input(format!(
                        "{}: another process serves from this folder: stop that server, or use it",
                        path.display()
                    )));
                }
                Err(fs::TryLockError::Error(e)) => return Err(Error::file(path, e)),
            }
        }
        // Under the lock, so that two processes cannot both take the last rows.
        let bytes = zklora_files::read(path, MAX_LEDGER)?;
        let index = index_lines(path, &bytes)?;
        Ok(Ledger {
            path: path.to_path_buf(),
            _close_in_child: close_in_child,
            file,
            index,
            len: whole_lines(&bytes).len() as u64,
        })
    }

    /// What the lines add up to.
    pub fn index(&self) -> &LedgerIndex {
        &self.index
    }

    /// Appends an entry and syncs the file. Call it before the deltas leave.
    ///
    /// # Errors
    /// [`Error::Reused`]: the ledger has the session id. [`Error::Artifact`]: the disk.
    pub fn append(&mut self, entry: Entry) -> Result<(), Error> {
        self.index
            .check(&entry)
            .map_err(|why| Error::Reused(format!("session {}: {why}", entry.session)))?;
        self.append_unchecked(vec![entry])
    }

    /// Appends entries of logs that a server found in its folder at start, all at once: logs that
    /// no line names, whose rows have to be counted, and logs that were moved. Unlike
    /// [`Ledger::append`], it allows ids that the ledger has.
    pub fn append_recovered(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        if entries.is_empty() { Ok(()) } else { self.append_unchecked(entries) }
    }

    fn append_unchecked(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        let failed = |e: std::io::Error| Error::file(&self.path, e);
        // Relative paths, so that folders that are moved together find each other again.
        let folder = folder_of(&self.path);
        let named = |log: &Option<PathBuf>| {
            log.as_deref().map(|log| log.strip_prefix(&folder).unwrap_or(log).to_path_buf())
        };
        let mut lines = Vec::new();
        for entry in &entries {
            let (log, from) = (named(&entry.log), named(&entry.from));
            let line = serde_json::to_vec(&Entry { log, from, ..entry.clone() });
            lines.extend(line.map_err(|e| Error::Internal(format!("a line of the ledger: {e}")))?);
            lines.push(b'\n');
        }
        // Cuts a line that a crash or a failed append left incomplete. No other process writes, so
        // the length is known.
        self.file.set_len(self.len).map_err(failed)?;
        self.file.seek(SeekFrom::Start(self.len)).map_err(failed)?;
        self.file.write_all(&lines).map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        self.len += lines.len() as u64;
        entries.into_iter().try_for_each(|entry| {
            self.index.apply(entry).map_err(|why| Error::Internal(format!("the ledger: {why}")))
        })
    }
}
