//! What an adapter folder has served: rows are counted before their deltas leave, and only counted
//! rows are proven (docs/protocol.md, "Before a proof is published" and "The network").
//!
//! One JSON object a line, appended and flushed. A torn last line (a crash while writing) is cut;
//! anything else that is not a line of this format is an error.
//!
//! A session over the network has two lines: one when it is opened, which names the log that holds
//! its rows, and one when it has ended, with the same log and the number of rows. **What counts is
//! the log and the trace, never the session id**: the user chooses that one. An id that the ledger
//! knows is refused ([`Ledger::append`]), so that no second session can hide behind the lines of a
//! first one.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use zklora_proof::trace::TraceDigest;

use crate::{Error, close_in_child::CloseInChild};

const MAX_LEDGER: u64 = 1 << 32;

/// How long another process may be writing to the ledger.
const PATIENCE: Duration = Duration::from_secs(5);

/// What sessions without an identity are counted under.
pub const LOCAL: &str = "(recorded locally)";

/// One line: a session that was recorded, opened, ended or abandoned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The session ended without a trace, and is never proven. Its rows are counted all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub abandoned: bool,
    /// Who was served, for sessions over the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The line says where a log is by now: where it was before, as the line before named it. The
    /// same path: the rows of a log that an older version ended were counted again, and `rows`
    /// are those that its line had left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// The log of a session over the network; relative to the ledger's folder if it is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// Rows per module; none while the session is open.
    pub rows: BTreeMap<String, u64>,
    /// The session's context, hex.
    pub session: String,
    /// Digest of the trace's content, hex; none while the session is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Format version.
    pub v: u32,
}

const VERSION: u32 = 3;
/// Lines of version 1 have neither client nor log. In version 2 the line of an ended session has no
/// log.
const OLDEST: u32 = 1;

impl Entry {
    /// A session that was recorded in this folder, without a network.
    pub fn recorded(session: &[u8; 32], trace: TraceDigest, rows: BTreeMap<String, u64>) -> Entry {
        let trace = Some(hex::encode(trace.0));
        Entry {
            abandoned: false,
            client: None,
            from: None,
            log: None,
            rows,
            session: hex::encode(session),
            trace,
            v: VERSION,
        }
    }

    /// A session that begins; its rows are counted in `log`.
    pub fn opened(session: &[u8; 32], client: &str, log: &Path) -> Entry {
        let rows = BTreeMap::new();
        let (client, log) = (Some(client.to_string()), Some(log.to_path_buf()));
        Entry {
            abandoned: false,
            client,
            from: None,
            log,
            rows,
            session: hex::encode(session),
            trace: None,
            v: VERSION,
        }
    }

    /// A log that is at `to` by now, with the rows of it that no line has.
    pub fn moved(session: &[u8; 32], client: &str, from: &Path, to: &Path, rows: Rows) -> Entry {
        Entry { from: Some(from.to_path_buf()), rows, ..Entry::opened(session, client, to) }
    }

    /// A session whose log has ended, with all rows of the log.
    pub fn ended(
        session: &[u8; 32],
        client: &str,
        log: &Path,
        trace: TraceDigest,
        rows: BTreeMap<String, u64>,
    ) -> Entry {
        Entry { rows, trace: Some(hex::encode(trace.0)), ..Entry::opened(session, client, log) }
    }

    /// A session whose log ended without a proof, with all rows of the log.
    pub fn abandoned(
        session: &[u8; 32],
        client: &str,
        log: &Path,
        rows: BTreeMap<String, u64>,
    ) -> Entry {
        Entry { rows, abandoned: true, ..Entry::opened(session, client, log) }
    }

    /// Whether its rows are final.
    pub fn has_ended(&self) -> bool {
        self.trace.is_some() || self.abandoned
    }

    /// What its rows are counted under.
    pub fn counted_under(&self) -> &str {
        self.client.as_deref().unwrap_or(LOCAL)
    }

    fn check(&self) -> Result<(), String> {
        if !(OLDEST..=VERSION).contains(&self.v) {
            return Err(format!("version {}", self.v));
        }
        let refuse = |why: &str| Err(format!("not a ledger entry: {why}"));
        match (self.v, &self.trace, &self.log) {
            (_, None, None) => refuse("it has neither `trace` nor `log`"),
            (1 | 2, Some(_), Some(_)) => refuse("it has both `trace` and `log`"),
            _ if self.abandoned && (self.trace.is_some() || self.v < 3) => {
                refuse("it is abandoned and has a trace")
            }
            _ if self.from.is_some() && (self.has_ended() || self.v < 3) => {
                refuse("it is moved and has ended")
            }
            _ if !self.has_ended() && self.from.is_none() && !self.rows.is_empty() => {
                refuse("it is open and has rows")
            }
            (_, _, Some(_)) if self.client.is_none() => refuse("it has a log and no client"),
            _ => Ok(()),
        }
    }

    /// Whether this is the line that ends the session of `opened`. The ledger's older versions did
    /// not name the log there; but a session that was recorded locally never had a client.
    pub(crate) fn ends(&self, opened: &Known) -> bool {
        let same_log = self.log.is_some() && self.log == opened.log;
        self.has_ended()
            && opened.is_open()
            && (same_log || self.v < 3 && self.log.is_none() && self.client.is_some())
    }
}

/// The entries of a ledger; none if there is no file yet.
pub fn read(path: &Path) -> Result<Vec<Entry>, Error> {
    // A failed stat does not mean that the file is absent.
    if !path.try_exists().map_err(|e| Error::file(path, e))? {
        return Ok(Vec::new());
    }
    let bytes = zklora_files::read(path, MAX_LEDGER)?;
    lines(path, &bytes).collect()
}

/// What the lines of a ledger add up to, while another process may append to it.
pub fn book(path: &Path) -> Result<Book, Error> {
    let mut book = Book::default();
    for (number, entry) in read(path)?.into_iter().enumerate() {
        book.enter(entry)
            .map_err(|why| Error::file(path, format!("line {}: {why}", number + 1)))?;
    }
    Ok(book)
}

/// Whether another process keeps the ledger: a server does so for as long as it runs.
pub fn is_kept(path: &Path) -> bool {
    // Shared, and let go of at once: a server that starts meanwhile waits for longer than that.
    fs::File::open(path)
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
}

/// The lines that were written to their end.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1)]
}

/// Each entry, with the full path of its log.
fn lines<'a>(path: &'a Path, bytes: &'a [u8]) -> impl Iterator<Item = Result<Entry, Error>> + 'a {
    let folder = folder_of(path);
    let lines =
        whole_lines(bytes).split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines.map(move |(number, line)| {
        let refuse = |why: String| Error::file(path, format!("line {}: {why}", number + 1));
        let mut entry: Entry =
            serde_json::from_slice(line).map_err(|e| refuse(format!("not a ledger entry: {e}")))?;
        entry.check().map_err(refuse)?;
        entry.log = entry.log.map(|log| folder.join(log));
        entry.from = entry.from.map(|log| folder.join(log));
        Ok(entry)
    })
}

/// The folder that relative logs are in, by its full path.
fn folder_of(path: &Path) -> PathBuf {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf())
}

/// What the ledger knows of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Who was served.
    pub client: String,
    /// The log, by its full path; none for sessions without a network, and for ended ones of older
    /// versions.
    pub log: Option<PathBuf>,
    /// Digest of the trace, if it has ended.
    pub trace: Option<TraceDigest>,
    /// Whether it ended without a trace.
    pub abandoned: bool,
    /// Digest of the rows that the ledger has of it, once it has ended: a log with the same rows
    /// is this session's, wherever it is.
    pub rows: Option<[u8; 32]>,
    /// Whether the version that ended it could leave rows out (see [`Entry::from`]), and nobody
    /// looked yet.
    pub to_check: bool,
}

/// Digest of rows.
pub fn digest_of(rows: &Rows) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("zklora v1 rows of a session");
    for (module, rows) in rows.iter().filter(|(_, rows)| **rows > 0) {
        hasher
            .update(&(module.len() as u64).to_le_bytes())
            .update(module.as_bytes())
            .update(&rows.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

impl Known {
    /// Whether its rows are in its log, and not in the ledger.
    pub fn is_open(&self) -> bool {
        self.trace.is_none() && !self.abandoned
    }
}

/// Rows of each module.
pub type Rows = BTreeMap<String, u64>;

/// What the lines add up to.
#[derive(Debug, Clone, Default)]
pub struct Book {
    /// By session id. A ledger of this version has one for each id; older ones could get several.
    sessions: HashMap<String, Vec<Known>>,
    /// Rows of the sessions that have ended, by client.
    rows: BTreeMap<String, Rows>,
}

impl Book {
    pub(crate) fn enter(&mut self, entry: Entry) -> Result<(), String> {
        let mut trace = None;
        if let Some(text) = &entry.trace {
            let mut digest = [0u8; 32];
            hex::decode_to_slice(text, &mut digest)
                .map_err(|_| "`trace` is not 64 hex digits".to_string())?;
            trace = Some(TraceDigest(digest));
        }
        let client = entry.counted_under().to_string();
        let counted = self.rows.entry(client.clone()).or_default();
        for (module, rows) in &entry.rows {
            let sum = counted.entry(module.clone()).or_default();
            *sum = sum.saturating_add(*rows);
        }
        let of_id = self.sessions.entry(entry.session.clone()).or_default();
        if entry.from.is_some() {
            let moved = of_id.iter_mut().find(|known| known.log == entry.from);
            let known = moved.ok_or("it moves a log that no line before it names")?;
            (known.log, known.to_check) = (entry.log, false);
            return Ok(());
        }
        let rows = entry.has_ended().then(|| digest_of(&entry.rows));
        let to_check = rows.is_some() && entry.v < 3 && entry.client.is_some();
        match of_id.iter_mut().find(|known| entry.ends(known)) {
            Some(known) => {
                (known.trace, known.abandoned, known.rows, known.to_check) =
                    (trace, entry.abandoned, rows, to_check);
            }
            None => of_id.push(Known {
                client,
                log: entry.log,
                trace,
                abandoned: entry.abandoned,
                rows,
                to_check,
            }),
        }
        Ok(())
    }

    /// Rows of the sessions that have ended, by client. Those of the others are in their logs.
    pub fn rows(&self) -> &BTreeMap<String, Rows> {
        &self.rows
    }

    /// Client and log of every session whose rows are in its log.
    pub fn open_logs(&self) -> impl Iterator<Item = (&str, &Path)> {
        let open = self.sessions.values().flatten().filter(|known| known.is_open());
        open.filter_map(|known| Some((known.client.as_str(), known.log.as_deref()?)))
    }

    /// What is known of a session id.
    pub fn of_id(&self, session: &[u8; 32]) -> &[Known] {
        self.sessions.get(&hex::encode(session)).map(Vec::as_slice).unwrap_or_default()
    }

    /// What is known of the session with this id and this log. Ended sessions of older versions
    /// named no log.
    pub fn of_log(&self, session: &[u8; 32], log: &Path) -> Option<&Known> {
        self.of_id(session).iter().find(|known| known.log.as_deref() == Some(log))
    }

    /// Whether an entry may be added: a session id is used once, by one log.
    fn check(&self, entry: &Entry) -> Result<(), String> {
        let known = self.sessions.get(&entry.session).map(Vec::as_slice).unwrap_or_default();
        let begins = entry.log.is_none() || !entry.has_ended();
        match (begins, known) {
            (true, []) => Ok(()),
            (true, _) => {
                Err("this folder has served a session of this id before: draw a new one".into())
            }
            (false, known) if known.iter().any(|known| entry.ends(known)) => Ok(()),
            (false, _) => Err("it is not open, so it cannot end".into()),
        }
    }
}

/// A ledger that no other process writes to while this value lives.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    /// Before the file: it is closed after this.
    _not_inherited: CloseInChild,
    file: fs::File,
    book: Book,
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
        let not_inherited = CloseInChild::new(&file);
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
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
        // Under the lock: two processes cannot both take the last rows.
        let bytes = zklora_files::read(path, MAX_LEDGER)?;
        let mut book = Book::default();
        for (number, entry) in lines(path, &bytes).enumerate() {
            book.enter(entry?)
                .map_err(|why| Error::file(path, format!("line {}: {why}", number + 1)))?;
        }
        Ok(Ledger {
            path: path.to_path_buf(),
            _not_inherited: not_inherited,
            file,
            book,
            len: whole_lines(&bytes).len() as u64,
        })
    }

    /// What the lines add up to.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Appends an entry and flushes it to disk. Call it before the deltas leave.
    ///
    /// # Errors
    /// [`Error::Reused`] if the ledger knows the session id; [`Error::File`].
    pub fn append(&mut self, entry: Entry) -> Result<(), Error> {
        self.book
            .check(&entry)
            .map_err(|why| Error::Reused(format!("session {}: {why}", entry.session)))?;
        self.append_unchecked(vec![entry])
    }

    /// Appends what a server found in its folder at start, all at once, whatever else the ledger
    /// knows of those sessions: logs that no line names, whose rows have to be counted, and
    /// logs that are elsewhere by now.
    pub fn append_found(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        if entries.is_empty() { Ok(()) } else { self.append_unchecked(entries) }
    }

    fn append_unchecked(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        let failed = |e: std::io::Error| Error::file(&self.path, e);
        // Folders that are moved together find each other again.
        let folder = folder_of(&self.path);
        let named = |log: &Option<PathBuf>| {
            log.as_deref().map(|log| log.strip_prefix(&folder).unwrap_or(log).to_path_buf())
        };
        let mut lines = Vec::new();
        for entry in &entries {
            let (log, from) = (named(&entry.log), named(&entry.from));
            let line = serde_json::to_vec(&Entry { log, from, ..entry.clone() });
            lines.extend(line.map_err(|e| Error::file(&self.path, e))?);
            lines.push(b'\n');
        }
        // What a crash, or an append that failed, left of a line. Nobody else writes: the file is
        // not read again.
        self.file.set_len(self.len).map_err(failed)?;
        self.file.seek(SeekFrom::Start(self.len)).map_err(failed)?;
        self.file.write_all(&lines).map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        self.len += lines.len() as u64;
        let path = self.path.clone();
        entries
            .into_iter()
            .try_for_each(|entry| self.book.enter(entry).map_err(|why| Error::file(&path, why)))
    }
}

/// Whether this very trace was served.
pub fn was_served(book: &Book, session: &[u8; 32], trace: TraceDigest) -> bool {
    book.of_id(session).iter().any(|known| known.trace == Some(trace))
}
