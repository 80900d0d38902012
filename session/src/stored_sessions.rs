//! The sessions of an artifacts folder, as its operator sees them: what the ledger says, and which
//! files there are.
//!
//! Looking takes no lock, so a server may run meanwhile. What changes something is in [`upkeep`].

pub mod upkeep;

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rayon::prelude::*;
use serde::Deserialize;
use zklora_artifacts::folder as artifacts;
use zklora_proof::manifest;

use crate::{
    Error,
    ledger::{self, Entry, Known, LOCAL, Rows},
    server::{attempts, default_data},
    session_log,
};

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Its user can go on with it.
    Open,
    /// It has ended, and is proven by the server that runs, or by the next one.
    ToProve,
    /// It has ended, and servers died while they proved it: none tries again by itself.
    SetAside,
    /// Its proof waits for its user.
    Proven,
    /// Its proof was sent.
    Fetched,
    /// It was recorded in this folder, without a network.
    Recorded,
    /// Its operator gave it up. Its rows are counted.
    Abandoned,
    /// Its files were removed. Its rows are counted.
    Removed,
    /// It is open, and its log is gone: nobody knows its rows, and no server starts.
    LogMissing,
    /// Its log is in the folder, and the ledger does not know it: the next server enters it.
    NotEntered,
    /// Its log cannot be read.
    Damaged,
}

impl State {
    /// All of them.
    pub const ALL: [State; 11] = [
        State::Open,
        State::ToProve,
        State::SetAside,
        State::Proven,
        State::Fetched,
        State::Recorded,
        State::Abandoned,
        State::Removed,
        State::LogMissing,
        State::NotEntered,
        State::Damaged,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            State::Open => "open",
            State::ToProve => "to prove",
            State::SetAside => "set aside",
            State::Proven => "proven",
            State::Fetched => "fetched",
            State::Recorded => "recorded",
            State::Abandoned => "abandoned",
            State::Removed => "removed",
            State::LogMissing => "log missing",
            State::NotEntered => "not entered",
            State::Damaged => "damaged",
        }
    }
}

/// One session.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its id: 64 hex digits, or what a damaged ledger has in their place.
    pub id: String,
    /// Who was served.
    pub client: String,
    /// How far it is.
    pub state: State,
    /// Rows of each module that has any.
    pub rows: Rows,
    /// Its batches, where the log was read for them.
    pub batches: Option<u64>,
    /// Where its log is, or was.
    pub log: Option<PathBuf>,
    /// Bytes of its log.
    pub log_bytes: u64,
    /// Bytes of its proof.
    pub proof_bytes: u64,
    /// Attempts to prove it that ended with the death of the server, and one that lasts.
    pub attempts: u32,
    /// Since its log was written to.
    pub age: Option<Duration>,
    /// Since its proof was sent for the first time.
    pub fetched: Option<Duration>,
    /// What is wrong with its log.
    pub problem: Option<String>,
    /// Whether the ledger has its rows.
    counted: bool,
}

impl Stored {
    /// A session of which no file was looked at.
    fn new(id: String, client: String, log: Option<PathBuf>, counted: bool) -> Stored {
        Stored {
            id,
            client,
            state: State::Removed,
            rows: Rows::new(),
            batches: None,
            log,
            log_bytes: 0,
            proof_bytes: 0,
            attempts: 0,
            age: None,
            fetched: None,
            problem: None,
            counted,
        }
    }

    /// Rows of all modules.
    pub fn rows_in_all(&self) -> u64 {
        self.rows.values().fold(0, |all, rows| all.saturating_add(*rows))
    }

    /// Whether its rows are in the ledger. If not, they are in its log alone.
    pub fn is_counted(&self) -> bool {
        self.counted
    }

    /// A file of its own beside its log.
    fn beside(&self, extension: &str) -> Option<PathBuf> {
        self.log.as_ref().map(|log| log.with_extension(extension))
    }
}

/// An artifacts folder, and the folder of its server's sessions.
#[derive(Debug, Clone)]
pub struct Folder {
    artifacts: PathBuf,
    data: PathBuf,
}

impl Folder {
    /// The folder that compile wrote; `data`: as `serve` got it.
    ///
    /// # Errors
    /// [`Error::File`] if one of them is not there.
    pub fn new(artifacts: &Path, data: Option<&Path>) -> Result<Folder, Error> {
        if !artifacts.join("private").is_dir() {
            return Err(Error::file(
                artifacts,
                "it has no folder private/: name the folder that compile wrote",
            ));
        }
        let data = match data {
            Some(data) => data.canonicalize().map_err(|e| Error::file(data, e))?,
            // Not there before the first server is.
            None => {
                let data = default_data(artifacts);
                data.canonicalize().unwrap_or(data)
            }
        };
        Ok(Folder { artifacts: artifacts.to_path_buf(), data })
    }

    fn ledger(&self) -> PathBuf {
        self.artifacts.join("private").join(artifacts::LEDGER)
    }

    /// Whether a server runs that serves from this folder.
    pub fn is_served(&self) -> bool {
        ledger::is_kept(&self.ledger())
    }

    /// All sessions, the one that began last first. Of those whose rows are in the ledger no log is
    /// read.
    ///
    /// # Errors
    /// [`Error::File`] if the ledger or a folder cannot be read. A log that cannot is a session
    /// that is [`State::Damaged`].
    pub fn sessions(&self) -> Result<Vec<Stored>, Error> {
        let lines = lines(ledger::read(&self.ledger())?);
        let files = Files::list(
            lines.iter().filter_map(|line| line.known.log.as_deref()?.parent()),
            &self.data,
        )?;
        let named: HashSet<&Path> =
            lines.iter().filter_map(|line| line.known.log.as_deref()).collect();
        let not_entered: Vec<PathBuf> =
            files.logs_in(&self.data).filter(|log| !named.contains(log.as_path())).collect();
        let mut sessions: Vec<Stored> =
            not_entered.into_iter().map(|log| not_entered_yet(log, &files)).collect();
        sessions.extend(lines.into_iter().rev().map(|line| line.stored(&files)));
        // What only a log knows.
        let to_read: Vec<&mut Stored> = sessions
            .iter_mut()
            .filter(|s| matches!(s.state, State::Open | State::NotEntered))
            .collect();
        if !to_read.is_empty() {
            let manifest = Names::read(&self.artifacts)?;
            to_read.into_par_iter().for_each(|session| session.read_log(&manifest));
        }
        let served = sessions.iter().any(|s| s.state == State::SetAside) && self.is_served();
        for session in sessions.iter_mut().filter(|s| served && s.state == State::SetAside) {
            // Its last attempt is under way.
            if session.beside("trace").is_some_and(|trace| files.has(&trace)) {
                session.state = State::ToProve;
            }
        }
        Ok(sessions)
    }

    /// The session whose id begins so, with its batches.
    ///
    /// # Errors
    /// [`Error::Input`] if none does, or several do.
    pub fn session(&self, beginning: &str) -> Result<Stored, Error> {
        let found = self.with_id(beginning)?;
        let [session] = <[Stored; 1]>::try_from(found).map_err(|found| several_logs(&found))?;
        if session.batches.is_some() || session.log_bytes == 0 {
            return Ok(session);
        }
        let mut session = session;
        match session.log.as_deref().map(|log| session_log::contents(log, manifest::MAX_MODULES)) {
            Some(Ok(contents)) => session.batches = Some(contents.batches),
            Some(Err(error)) => session.problem = Some(error.to_string()),
            None => {}
        }
        Ok(session)
    }

    /// The sessions of the one id that begins so: several only where logs were copied.
    fn with_id(&self, beginning: &str) -> Result<Vec<Stored>, Error> {
        let hex = !beginning.is_empty()
            && beginning.len() <= 64
            && beginning.bytes().all(|b| b.is_ascii_hexdigit());
        if !hex {
            return Err(Error::input(
                "a session is named by its id, 64 hex digits, or the beginning of it",
            ));
        }
        let beginning = beginning.to_ascii_lowercase();
        let mut sessions = self.sessions()?;
        sessions.retain(|session| session.id.starts_with(&beginning));
        let ids: HashSet<&str> = sessions.iter().map(|session| session.id.as_str()).collect();
        match ids.len() {
            0 => Err(Error::input(format!(
                "no session begins with {beginning}: `zklora sessions list --all` shows all"
            ))),
            1 => Ok(sessions),
            many => {
                let mut ids: Vec<&str> = ids.into_iter().collect();
                ids.sort_unstable();
                let some: Vec<&str> = ids.into_iter().take(4).collect();
                let list = some.join(", ");
                Err(Error::input(format!(
                    "{many} sessions begin with {beginning}, among them {list}: give more digits"
                )))
            }
        }
    }
}

fn several_logs(sessions: &[Stored]) -> Error {
    let logs = sessions
        .iter()
        .map(|s| s.log.as_ref().map_or("(no log)".into(), |log| log.display().to_string()));
    let logs: Vec<String> = logs.take(4).collect();
    Error::input(format!(
        "several sessions have this id: {}: name one of their folders with --data",
        logs.join(", ")
    ))
}

/// What the ledger says of one session.
struct Line {
    id: String,
    known: Known,
    rows: Rows,
    local: bool,
}

/// A session for every one that began, in their order.
fn lines(entries: Vec<Entry>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::with_capacity(entries.len());
    let mut of_id: HashMap<String, Vec<usize>> = HashMap::new();
    for entry in entries {
        let indices = of_id.entry(entry.session.clone()).or_default();
        let mut trace = [0u8; 32];
        // A ledger whose digests are none is refused by the server; here they only say that the
        // session has ended.
        let _ = entry.trace.as_ref().map(|text| hex::decode_to_slice(text, &mut trace));
        let trace = entry.trace.as_ref().map(|_| zklora_proof::trace::TraceDigest(trace));
        if entry.from.is_some() {
            // Where its log is by now.
            if let Some(at) = indices.iter().find(|at| lines[**at].known.log == entry.from) {
                let line = &mut lines[*at];
                line.known.log = entry.log;
                for (module, rows) in entry.rows {
                    let all = line.rows.entry(module).or_default();
                    *all = all.saturating_add(rows);
                }
            }
            continue;
        }
        match indices.iter().find(|at| entry.ends(&lines[**at].known)) {
            Some(at) => {
                let line = &mut lines[*at];
                (line.known.trace, line.known.abandoned, line.rows) =
                    (trace, entry.abandoned, entry.rows);
            }
            None => {
                indices.push(lines.len());
                let client = entry.counted_under().to_string();
                let abandoned = entry.abandoned;
                let known =
                    Known { client, log: entry.log, trace, abandoned, rows: None, to_check: false };
                lines.push(Line {
                    id: entry.session,
                    known,
                    rows: entry.rows,
                    local: entry.client.is_none(),
                });
            }
        }
    }
    lines
}

impl Line {
    fn stored(self, files: &Files) -> Stored {
        let Line { id, known, rows, local } = self;
        let counted = !known.is_open();
        let mut session = Stored::new(id, known.client, known.log, counted);
        session.rows = rows;
        let Some(log) = session.log.clone() else {
            session.state = if local { State::Recorded } else { State::Removed };
            return session;
        };
        if !is_log_of(&log, &session.id) {
            session.state = State::Damaged;
            session.problem =
                Some("the ledger names a log that is not called like its session".into());
            // Nothing is read and nothing is removed by such a name.
            session.log = None;
            return session;
        }
        session.look(&log, files);
        let there = files.has(&log);
        session.state = match (known.abandoned, counted, there) {
            (true, ..) => State::Abandoned,
            (_, true, false) => State::Removed,
            (_, true, true) if session.proof_bytes > 0 && session.fetched.is_some() => {
                State::Fetched
            }
            (_, true, true) if session.proof_bytes > 0 => State::Proven,
            (_, true, true) => session.waiting(),
            (_, false, true) => State::Open,
            (_, false, false) => State::LogMissing,
        };
        session
    }
}

fn not_entered_yet(log: PathBuf, files: &Files) -> Stored {
    let id = log.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut session = Stored::new(id, LOCAL.into(), Some(log.clone()), false);
    session.state = State::NotEntered;
    session.look(&log, files);
    session
}

impl Stored {
    /// What its files are.
    fn look(&mut self, log: &Path, files: &Files) {
        let of = |extension: &str| files.metadata(&log.with_extension(extension));
        if let Some(metadata) = files.metadata(log) {
            (self.log_bytes, self.age) = (metadata.len(), since(&metadata));
        }
        self.proof_bytes = of("pf").map_or(0, |metadata| metadata.len());
        self.fetched = of("fetched").as_ref().and_then(since);
        let mut id = [0u8; 32];
        if files.has(&log.with_extension("proving"))
            && let Some(folder) = log.parent()
            && hex::decode_to_slice(&self.id, &mut id).is_ok()
        {
            self.attempts = attempts::read(folder, &id);
        }
    }

    /// Its state, if it has ended and there is no proof.
    fn waiting(&self) -> State {
        if self.attempts >= attempts::MOST { State::SetAside } else { State::ToProve }
    }

    fn read_log(&mut self, manifest: &Names) {
        let Some(log) = self.log.clone() else { return };
        let contents = session_log::contents(&log, manifest.names.len()).and_then(|contents| {
            let of_this = contents.header.adapter_id == manifest.adapter
                && contents.header.session == self.id;
            if of_this {
                Ok(contents)
            } else {
                Err(Error::file(&log, "the log of another adapter or session"))
            }
        });
        match contents {
            Ok(contents) => {
                let named = manifest.names.iter().cloned().zip(contents.rows.iter().copied());
                self.rows = named.filter(|(_, rows)| *rows > 0).collect();
                self.batches = Some(contents.batches);
                match self.state {
                    State::NotEntered => self.client.clone_from(&contents.header.peer),
                    _ if contents.ended => self.state = self.waiting(),
                    _ => {}
                }
            }
            Err(error) => (self.state, self.problem) = (State::Damaged, Some(error.to_string())),
        }
    }
}

fn since(metadata: &fs::Metadata) -> Option<Duration> {
    // A clock that was set back makes nothing older.
    metadata.modified().ok().map(|then| SystemTime::now().duration_since(then).unwrap_or_default())
}

/// Whether a log is called like its session: only then files beside it are the session's.
fn is_log_of(log: &Path, id: &str) -> bool {
    is_id(id) && log.file_name().is_some_and(|name| name == format!("{id}.rows").as_str())
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The names in the folders of sessions: each folder is listed once, however many sessions it has.
struct Files(HashMap<PathBuf, HashSet<OsString>>);

impl Files {
    fn list<'a>(folders: impl Iterator<Item = &'a Path>, data: &'a Path) -> Result<Files, Error> {
        let folders: HashSet<&Path> = folders.chain([data]).collect();
        let mut files = HashMap::new();
        for folder in folders {
            let mut names = HashSet::new();
            match fs::read_dir(folder) {
                Ok(entries) => {
                    for entry in entries {
                        names.insert(entry.map_err(|e| Error::file(folder, e))?.file_name());
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::file(folder, e)),
            }
            files.insert(folder.to_path_buf(), names);
        }
        Ok(Files(files))
    }

    fn has(&self, path: &Path) -> bool {
        let names = path.parent().and_then(|folder| self.0.get(folder));
        names.zip(path.file_name()).is_some_and(|(names, name)| names.contains(name))
    }

    fn metadata(&self, path: &Path) -> Option<fs::Metadata> {
        if self.has(path) { fs::metadata(path).ok() } else { None }
    }

    /// The logs of a folder that are called like sessions.
    fn logs_in(&self, folder: &Path) -> impl Iterator<Item = PathBuf> {
        let names = self.0.get(folder).into_iter().flatten();
        let logs = names.filter(|name| {
            name.to_str().and_then(|name| name.strip_suffix(".rows")).is_some_and(is_id)
        });
        logs.map(|name| folder.join(name))
    }
}

/// What is needed of a manifest to read logs. Its commitments are left alone: that takes seconds.
struct Names {
    adapter: String,
    names: Vec<String>,
}

impl Names {
    fn read(artifacts: &Path) -> Result<Names, Error> {
        #[derive(Deserialize)]
        struct Module {
            name: String,
        }
        #[derive(Deserialize)]
        struct Modules {
            modules: Vec<Module>,
        }
        let path = artifacts::public_folder(artifacts)?.join(artifacts::MANIFEST);
        let bytes = zklora_files::read(&path, manifest::MAX_BYTES as u64)?;
        let parsed: Modules = serde_json::from_slice(&bytes).map_err(|e| Error::file(&path, e))?;
        let adapter = blake3::hash(&bytes).to_hex().to_string();
        Ok(Names { adapter, names: parsed.modules.into_iter().map(|module| module.name).collect() })
    }
}
