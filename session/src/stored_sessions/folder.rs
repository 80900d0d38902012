//! The sessions of an artifacts folder.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use zklora_artifacts::folder as artifacts;
use zklora_proof::manifest;

use super::{
    files::{Files, ModuleNames},
    ledger_lines::sessions_of,
    stored::{State, Stored, unlisted},
};
use crate::{Error, ledger, session_files::default_data, session_log};

/// An artifacts folder, and the folder of its server's sessions.
#[derive(Debug, Clone)]
pub struct Folder {
    pub(super) artifacts: PathBuf,
    pub(super) data: PathBuf,
}

impl Folder {
    /// The folder that compile wrote; `data` as it is passed to `serve`.
    ///
    /// # Errors
    /// [`Error::Artifact`]: one of them does not exist.
    pub fn new(artifacts: &Path, data: Option<&Path>) -> Result<Folder, Error> {
        if !artifacts.join("private").is_dir() {
            return Err(Error::file(
                artifacts,
                "it has no folder private/: name the folder that compile wrote",
            ));
        }
        let data = match data {
            Some(data) => data.canonicalize().map_err(|e| Error::file(data, e))?,
            // It does not exist before the first server has started.
            None => {
                let data = default_data(artifacts);
                data.canonicalize().unwrap_or(data)
            }
        };
        Ok(Folder { artifacts: artifacts.to_path_buf(), data })
    }

    pub(super) fn ledger(&self) -> PathBuf {
        self.artifacts.join("private").join(artifacts::LEDGER)
    }

    /// Whether a server that serves from this folder runs.
    pub fn is_served(&self) -> bool {
        ledger::is_locked(&self.ledger())
    }

    /// All sessions, the newest first. Reads the logs of those whose rows are not in the ledger.
    ///
    /// # Errors
    /// [`Error::Artifact`]: the ledger or a folder cannot be read. A session whose log cannot be
    /// read is [`State::Damaged`].
    pub fn sessions(&self) -> Result<Vec<Stored>, Error> {
        let lines = sessions_of(ledger::read(&self.ledger())?);
        let files = Files::list(
            lines.iter().filter_map(|line| line.known.log.as_deref()?.parent()),
            &self.data,
        )?;
        let named: HashSet<&Path> =
            lines.iter().filter_map(|line| line.known.log.as_deref()).collect();
        let not_entered: Vec<PathBuf> =
            files.logs_in(&self.data).filter(|log| !named.contains(log.as_path())).collect();
        let mut sessions: Vec<Stored> =
            not_entered.into_iter().map(|log| unlisted(log, &files)).collect();
        sessions.extend(lines.into_iter().rev().map(|line| line.stored(&files)));
        // Those whose rows are only in their log.
        let to_read: Vec<&mut Stored> = sessions
            .iter_mut()
            .filter(|s| matches!(s.state, State::Open | State::NotEntered))
            .collect();
        if !to_read.is_empty() {
            let modules = ModuleNames::read(&self.artifacts)?;
            to_read.into_par_iter().for_each(|session| session.read_log(&modules));
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

    /// The session whose id has this prefix, with its number of batches.
    ///
    /// # Errors
    /// [`Error::Artifact`]: none has it, or several do.
    pub fn session(&self, prefix: &str) -> Result<Stored, Error> {
        let found = self.with_id(prefix)?;
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

    /// The sessions of the one id with this prefix. There are several only if logs were copied.
    pub(super) fn with_id(&self, prefix: &str) -> Result<Vec<Stored>, Error> {
        let hex = !prefix.is_empty()
            && prefix.len() <= 64
            && prefix.bytes().all(|b| b.is_ascii_hexdigit());
        if !hex {
            return Err(Error::input(
                "name a session by its id, 64 hex digits, or by the beginning of its id",
            ));
        }
        let prefix = prefix.to_ascii_lowercase();
        let mut sessions = self.sessions()?;
        sessions.retain(|session| session.id.starts_with(&prefix));
        let ids: HashSet<&str> = sessions.iter().map(|session| session.id.as_str()).collect();
        match ids.len() {
            0 => Err(Error::input(format!(
                "no session begins with {prefix}: `zklora sessions list --all` lists all"
            ))),
            1 => Ok(sessions),
            many => {
                let mut ids: Vec<&str> = ids.into_iter().collect();
                ids.sort_unstable();
                let some: Vec<&str> = ids.into_iter().take(4).collect();
                let list = some.join(", ");
                Err(Error::input(format!(
                    "{many} sessions begin with {prefix}, such as {list}: give more digits"
                )))
            }
        }
    }
}

pub(super) fn several_logs(sessions: &[Stored]) -> Error {
    let logs = sessions
        .iter()
        .map(|s| s.log.as_ref().map_or("(no log)".into(), |log| log.display().to_string()));
    let logs: Vec<String> = logs.take(4).collect();
    Error::input(format!(
        "several sessions have this id: {}: name one of their folders with --data",
        logs.join(", ")
    ))
}
