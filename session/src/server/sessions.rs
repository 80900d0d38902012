//! The sessions of a server: those in memory, and those that are loaded from the disk when their
//! user asks for them.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tonic::Status;
use zklora_proof::manifest::MAX_MODULES;

use super::{
    refusals::{no_rows, no_such_session, used_before},
    row_counter::RowCounter,
    row_service::RowService,
    session::{Session, Stage, key_hash},
};
use crate::{
    Error,
    session_files::{log_path, proof_path},
    session_log,
    wire::SessionRef,
};

/// Sessions in memory for each one that may exchange batches.
const LOADED_PER_ACTIVE: usize = 64;

/// The sessions of a server.
pub(super) struct Sessions {
    folder: PathBuf,
    /// Those in memory. The others are on the disk.
    loaded: Mutex<HashMap<[u8; 32], Arc<Session>>>,
    /// Locked while a session is loaded, so that it is not loaded twice. One lock for each first
    /// byte of an id, so that a long log delays few other sessions.
    loading: [Mutex<()>; 256],
    pub row_counter: RowCounter,
    max_loaded: usize,
}

impl Sessions {
    /// The sessions of `folder`, of which `loaded` are in memory.
    pub fn new(
        folder: PathBuf,
        loaded: HashMap<[u8; 32], Arc<Session>>,
        row_counter: RowCounter,
        max_sessions: usize,
    ) -> Sessions {
        Sessions {
            folder,
            loaded: Mutex::new(loaded),
            loading: std::array::from_fn(|_| Mutex::new(())),
            row_counter,
            max_loaded: max_sessions.saturating_mul(LOADED_PER_ACTIVE),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<Session>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a new session if rows are served, or returns the one that this client opened before.
    pub fn open_session(
        &self,
        reference: Option<&SessionRef>,
        client: &str,
        rows: RowService,
    ) -> Result<Arc<Session>, Status> {
        let (id, key) = parse(reference)?;
        let session = match self.load(&id, key, client)? {
            Some(session) => session,
            None if rows == RowService::Off => return Err(no_rows()),
            None => {
                self.row_counter.check_id(&id, &log_path(&self.folder, &id))?;
                self.insert(Session::new(id, key, client.to_string(), &self.folder))?
            }
        };
        if session.belongs_to(key, client) { Ok(session) } else { Err(no_such_session()) }
    }

    /// The session that this client opened before.
    pub fn find(
        &self,
        reference: Option<&SessionRef>,
        client: &str,
    ) -> Result<Arc<Session>, Status> {
        let (id, key) = parse(reference)?;
        match self.load(&id, key, client)? {
            Some(session) if session.belongs_to(key, client) => Ok(session),
            _ => Err(no_such_session()),
        }
    }

    /// The session with this id. One in memory may belong to another client; the disk is read only
    /// for the client that opened the session.
    fn load(
        &self,
        id: &[u8; 32],
        key: &[u8],
        client: &str,
    ) -> Result<Option<Arc<Session>>, Status> {
        let in_memory = || self.lock().get(id).cloned();
        let path = log_path(&self.folder, id);
        if let Some(session) = in_memory() {
            // The operator may have removed the files of a proven session. Then it no longer
            // exists.
            if matches!(session.stage(), Stage::Proven(_)) && !path.is_file() {
                self.lock().remove(id);
                return Ok(None);
            }
            return Ok(Some(session));
        }
        if !path.is_file() {
            return Ok(None);
        }
        let _loading =
            self.loading[usize::from(id[0])].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = in_memory() {
            return Ok(Some(session));
        }
        let failed = |e: Error| {
            tracing::error!("{e}");
            Status::unavailable(
                "this server cannot read the session's log: its operator finds the reason in the \
                 server's log",
            )
        };
        let header = session_log::header(&path).map_err(failed)?;
        if header.key != *key_hash(key).as_bytes() || header.peer != client {
            return Err(no_such_session());
        }
        self.row_counter.check_id(id, &path)?;
        let known = self.row_counter.with_index(|index| index.by_log(id, &path).cloned());
        // A log that appeared while the server runs: the next start counts its rows.
        if known.is_none() && session_log::contents(&path, MAX_MODULES).map_err(failed)?.batches > 0
        {
            return Err(used_before());
        }
        let trace = known.and_then(|known| known.trace);
        let proof = trace.filter(|_| proof_path(&self.folder, id).is_file());
        let (session, ended) = Session::restore(&path, &self.folder, proof).map_err(failed)?;
        // A session that the ledger calls ended takes no rows, whatever its log says.
        if (ended || trace.is_some()) && session.stage() == Stage::Open {
            session.set_stage(Stage::Failed(
                "this server has lost the proof, and makes it again after a restart".into(),
            ));
        }
        self.insert(session).map(Some)
    }

    /// Keeps a session in memory, or returns the one with its id that is in memory already.
    fn insert(&self, session: Session) -> Result<Arc<Session>, Status> {
        let mut loaded = self.lock();
        if loaded.len() >= self.max_loaded {
            // Drops the sessions that are not in use; the disk has all of them. Sessions that wait
            // for their proof stay. Their number is bounded for each client, so they do not count
            // here.
            let waits =
                |session: &Session| matches!(session.stage(), Stage::Queued | Stage::Proving);
            loaded.retain(|_, session| Arc::strong_count(session) > 1 || waits(session));
            if loaded.values().filter(|session| !waits(session)).count() >= self.max_loaded {
                return Err(Status::unavailable(
                    "this server has too many sessions in use: try again later",
                ));
            }
        }
        Ok(Arc::clone(loaded.entry(session.id).or_insert_with(|| Arc::new(session))))
    }
}

fn parse(reference: Option<&SessionRef>) -> Result<([u8; 32], &[u8]), Status> {
    let reference =
        reference.ok_or_else(|| Status::invalid_argument("the request names no session"))?;
    match (<[u8; 32]>::try_from(&reference.id[..]), reference.key.len()) {
        (Ok(id), 32) => Ok((id, &reference.key)),
        _ => Err(Status::invalid_argument("a session has an id of 32 bytes and a key of 32 bytes")),
    }
}
