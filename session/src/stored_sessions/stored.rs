//! One stored session: its state, its files, and what its log says.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::files::{Files, ModuleNames};
use crate::{
    Error,
    ledger::{LOCAL, Rows},
    proof_attempts, session_log,
};

/// The state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Its user can resume it.
    Open,
    /// It has ended. The running server, or the next one, proves it.
    ToProve,
    /// It has ended, and servers died while they proved it. The operator decides about a retry.
    SetAside,
    /// It has a proof that was not sent yet.
    Proven,
    /// Its proof was sent.
    Fetched,
    /// It was recorded in this folder, without a network.
    Recorded,
    /// Its operator abandoned it. Its rows are counted.
    Abandoned,
    /// Its files were removed. Its rows are counted.
    Removed,
    /// It is open, and its log is missing. Its rows are unknown, and no server starts.
    LogMissing,
    /// Its log is in the folder, and not in the ledger. The next server enters it.
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

    /// Its name in the output of commands.
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

/// A session.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its id: 64 hex digits, or the text that a damaged ledger has instead.
    pub id: String,
    /// The client.
    pub client: String,
    /// Its state.
    pub state: State,
    /// Rows of each module that has any.
    pub rows: Rows,
    /// Number of batches, if the log was read.
    pub batches: Option<u64>,
    /// The path of its log, which may have been removed.
    pub log: Option<PathBuf>,
    /// Bytes of its log.
    pub log_bytes: u64,
    /// Bytes of its proof.
    pub proof_bytes: u64,
    /// Attempts to prove it that ended with the death of the server, and the one under way.
    pub attempts: u32,
    /// Time since its log was written to.
    pub age: Option<Duration>,
    /// Time since its proof was first sent.
    pub fetched: Option<Duration>,
    /// What is wrong with its log.
    pub problem: Option<String>,
    /// Whether the ledger has its rows.
    pub(super) counted: bool,
}

impl Stored {
    /// A session whose files were not read yet.
    pub(super) fn new(id: String, client: String, log: Option<PathBuf>, counted: bool) -> Stored {
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

    /// Whether its rows are in the ledger. If not, they are only in its log.
    pub fn is_counted(&self) -> bool {
        self.counted
    }

    /// A file beside its log.
    pub(super) fn beside(&self, extension: &str) -> Option<PathBuf> {
        self.log.as_ref().map(|log| log.with_extension(extension))
    }
}

pub(super) fn unlisted(log: PathBuf, files: &Files) -> Stored {
    let id = log.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut session = Stored::new(id, LOCAL.into(), Some(log.clone()), false);
    session.state = State::NotEntered;
    session.read_files(&log, files);
    session
}

impl Stored {
    /// Reads the sizes and times of its files.
    pub(super) fn read_files(&mut self, log: &Path, files: &Files) {
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
            self.attempts = proof_attempts::read(folder, &id);
        }
    }

    /// Its state if it has ended and has no proof.
    pub(super) fn state_without_proof(&self) -> State {
        if self.attempts >= proof_attempts::MAX_ATTEMPTS { State::SetAside } else { State::ToProve }
    }

    pub(super) fn read_log(&mut self, modules: &ModuleNames) {
        let Some(log) = self.log.clone() else { return };
        let contents = session_log::contents(&log, modules.names.len()).and_then(|contents| {
            let of_this = contents.header.adapter_id == modules.adapter
                && hex::encode(contents.header.session) == self.id;
            if of_this {
                Ok(contents)
            } else {
                Err(Error::file(&log, "the log of another adapter or session"))
            }
        });
        match contents {
            Ok(contents) => {
                let named = modules.names.iter().cloned().zip(contents.rows.iter().copied());
                self.rows = named.filter(|(_, rows)| *rows > 0).collect();
                self.batches = Some(contents.batches);
                match self.state {
                    State::NotEntered => self.client.clone_from(&contents.header.peer),
                    _ if contents.ended => self.state = self.state_without_proof(),
                    _ => {}
                }
            }
            Err(error) => (self.state, self.problem) = (State::Damaged, Some(error.to_string())),
        }
    }
}

fn since(metadata: &fs::Metadata) -> Option<Duration> {
    // A clock that was set back gives an age of zero.
    metadata.modified().ok().map(|then| SystemTime::now().duration_since(then).unwrap_or_default())
}
