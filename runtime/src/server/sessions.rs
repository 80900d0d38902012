//! All sessions of a server, and the rows that it has served.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tonic::Status;
use zklora_circuit::{manifest::Pinned, trace::TraceDigest};

use super::{
    limits::Limits,
    session::{Session, Stage, key_hash, log_path, proof_path},
};
use crate::{
    Error,
    artifacts::Artifacts,
    files::{self, Access},
    frame_log,
    ledger::{Entry, Ledger},
    served::Served,
    session_log,
    wire::SessionRef,
};

/// The ledger, which no other process writes to meanwhile, and what it adds up to.
pub(super) struct Counts {
    inner: Mutex<(Ledger, Served)>,
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, (Ledger, Served)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was served so far.
    pub fn served(&self) -> Served {
        self.lock().1.clone()
    }

    /// Counts rows that are about to leave, if the budget has them.
    pub fn reserve<'a>(
        &'a self,
        client: &'a str,
        more: &'a [(usize, u64)],
        pinned: &Pinned,
        limits: &Limits,
    ) -> Result<Counted<'a>, Status> {
        let mut inner = self.lock();
        inner.1.check(pinned, more, limits.max_rows).map_err(|e| Status::resource_exhausted(e.to_string()))?;
        more.iter().for_each(|(module, rows)| inner.1.add(client, *module, *rows));
        Ok(Counted { counts: self, client, more, kept: false })
    }

    /// The ledger's line for a session that begins; only the first time.
    pub fn opened(&self, id: &[u8; 32], client: &str, log: &Path) -> Result<(), Error> {
        let (mut inner, entry) = (self.lock(), Entry::opened(id, client, log));
        if inner.0.entries().iter().any(|known| known.session == entry.session) {
            return Ok(());
        }
        inner.0.append(entry)
    }

    /// The ledger's line for a session that has ended; only the first time.
    pub fn ended(&self, entry: Entry) -> Result<(), Error> {
        let mut inner = self.lock();
        if inner.0.entries().iter().any(|known| known.has_ended() && known.session == entry.session) {
            return Ok(());
        }
        inner.0.append(entry)
    }
}

/// Rows that were counted and have not left: taken back when this is dropped, unless they are kept.
pub(super) struct Counted<'a> {
    counts: &'a Counts,
    client: &'a str,
    more: &'a [(usize, u64)],
    kept: bool,
}

impl Counted<'_> {
    /// They are on disk and leave.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let mut inner = self.counts.lock();
            self.more.iter().for_each(|(module, rows)| inner.1.take_back(self.client, *module, *rows));
        }
    }
}

/// What a server found of its earlier lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Sessions that can go on.
    pub open: usize,
    /// Sessions that had ended and are proven now.
    pub to_prove: usize,
    /// Sessions whose proof is there.
    pub proven: usize,
}

/// The sessions of a server.
pub(super) struct Sessions {
    folder: PathBuf,
    /// Those in memory; others are on the disk.
    known: Mutex<HashMap<[u8; 32], Arc<Session>>>,
    /// Held while a session is taken up from the disk: it must not be there twice.
    taking_up: Mutex<()>,
    pub counts: Counts,
    limit: usize,
}

/// Sessions that are in memory at the same time, for every one that may exchange batches.
const KNOWN_PER_ACTIVE: usize = 64;

impl Sessions {
    /// Locks the ledger and takes up every session of the folder. Those that wait for their proof are returned.
    pub fn open(
        folder: &Path,
        artifacts: &Artifacts,
        limits: &Limits,
    ) -> Result<(Sessions, Vec<Arc<Session>>, Restored), Error> {
        files::create_folder(folder, Access::Private)?;
        // The ledger names logs by their full path, whatever folder the next reader works in.
        let folder = folder.canonicalize().map_err(|e| Error::file(folder, e))?;
        let mut ledger = Ledger::lock(&artifacts.ledger())?;
        let mut known = HashMap::new();
        let (mut queue, mut restored) = (Vec::new(), Restored::default());
        for path in logs(&folder)? {
            let Some((session, ended)) = take_up(&path, &folder, &mut ledger, artifacts)? else { continue };
            let session = Arc::new(session);
            match session.stage() {
                Stage::Proven(_) => restored.proven += 1,
                _ if ended => {
                    session.set_stage(Stage::Queued(u64::MAX));
                    queue.push(Arc::clone(&session));
                    restored.to_prove += 1;
                }
                _ => restored.open += 1,
            }
            known.insert(session.id, session);
        }
        let served = Served::count(ledger.entries(), &artifacts.pinned)?;
        let counts = Counts { inner: Mutex::new((ledger, served)) };
        let limit = limits.max_sessions.saturating_mul(KNOWN_PER_ACTIVE);
        Ok((Sessions { folder, known: Mutex::new(known), taking_up: Mutex::new(()), counts, limit }, queue, restored))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<Session>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session, or finds the one that this caller opened before.
    pub fn open_session(&self, reference: Option<&SessionRef>, client: &str) -> Result<Arc<Session>, Status> {
        let (id, key) = parse(reference)?;
        let found = match self.look_up(&id, key, client)? {
            Some(session) => session,
            None => self.keep(Session::new(id, key, client.to_string(), &self.folder))?,
        };
        if found.belongs_to(key, client) { Ok(found) } else { Err(not_yours()) }
    }

    /// The session of this caller.
    pub fn find(&self, reference: Option<&SessionRef>, client: &str) -> Result<Arc<Session>, Status> {
        let (id, key) = parse(reference)?;
        // The same answer whether there is such a session or not: ids are not to be searched for.
        match self.look_up(&id, key, client)? {
            Some(session) if session.belongs_to(key, client) => Ok(session),
            _ => Err(not_yours()),
        }
    }

    /// The session with this id, whoever opened it; from the disk only for who did.
    fn look_up(&self, id: &[u8; 32], key: &[u8], client: &str) -> Result<Option<Arc<Session>>, Status> {
        let in_memory = || self.lock().get(id).cloned();
        let path = log_path(&self.folder, id);
        if let Some(session) = in_memory() {
            return Ok(Some(session));
        }
        if !path.is_file() {
            return Ok(None);
        }
        let _alone = self.taking_up.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = in_memory() {
            return Ok(Some(session));
        }
        let failed = |e: Error| {
            tracing::error!("{e}");
            Status::unavailable(
                "this server cannot read the session's log: its operator finds the reason in the server's log",
            )
        };
        let header = session_log::header(&path).map_err(failed)?;
        if header.key_bytes() != Some(*key_hash(key).as_bytes()) || header.peer != client {
            return Err(not_yours());
        }
        let proof = proof_in(self.counts.lock().0.entries(), &self.folder, id);
        let (session, ended) = Session::restore(&path, &self.folder, proof).map_err(failed)?;
        if ended && session.stage() == Stage::Open {
            session.set_stage(Stage::Failed("this server has lost the proof; it is made again after a restart".into()));
        }
        self.keep(session).map(Some)
    }

    /// Keeps a session in memory, or returns the one with its id that is there.
    fn keep(&self, session: Session) -> Result<Arc<Session>, Status> {
        let mut known = self.lock();
        if known.len() >= self.limit {
            // Those that nobody works on, and of which the disk knows everything.
            known.retain(|_, session| {
                Arc::strong_count(session) > 1 || !matches!(session.stage(), Stage::Open | Stage::Proven(_))
            });
        }
        if known.len() >= self.limit {
            return Err(Status::unavailable("this server knows too many sessions: try again later"));
        }
        Ok(Arc::clone(known.entry(session.id).or_insert_with(|| Arc::new(session))))
    }
}

fn not_yours() -> Status {
    Status::permission_denied(
        "no session of yours has this id and key: open it first, with the identity that it was opened with",
    )
}

fn parse(reference: Option<&SessionRef>) -> Result<([u8; 32], &[u8]), Status> {
    let reference = reference.ok_or_else(|| Status::invalid_argument("the request names no session"))?;
    match (<[u8; 32]>::try_from(&reference.id[..]), reference.key.len()) {
        (Ok(id), 32) => Ok((id, &reference.key)),
        _ => Err(Status::invalid_argument("a session has an id of 32 bytes and a key of 32 bytes")),
    }
}

fn logs(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::file(folder, e))? {
        let path = entry.map_err(|e| Error::file(folder, e))?.path();
        if path.extension().is_some_and(|extension| extension == "rows") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// A session of an earlier life; none if it died before it was opened.
fn take_up(
    path: &Path,
    folder: &Path,
    ledger: &mut Ledger,
    artifacts: &Artifacts,
) -> Result<Option<(Session, bool)>, Error> {
    let of = |id: &str| ledger.entries().iter().filter(|entry| entry.session == id).cloned().collect::<Vec<_>>();
    // The machine died while the log was made: no row of it was served, and the ledger does not know it.
    let unknown = path.file_stem().is_some_and(|stem| of(&stem.to_string_lossy()).is_empty());
    if unknown && frame_log::is_unborn(path)? {
        tracing::warn!("{}: cut before the session was opened; removed", path.display());
        files::remove(path)?;
        return Ok(None);
    }
    let header = session_log::header(path)?;
    if header.adapter_id != artifacts.pinned.id().to_string() {
        return Err(Error::file(
            path,
            format!("a session of adapter {}: serve each adapter from its own --data folder", header.adapter_id),
        ));
    }
    let entries = of(&header.session);
    let Some(id) = header.session_id() else { return Err(Error::file(path, "its header is not one")) };
    if entries.is_empty() {
        // It died between the two writes.
        ledger.append(Entry::opened(&id, &header.peer, &log_path(folder, &id)))?;
    }
    Session::restore(path, folder, proof_in(&entries, folder, &id)).map(Some)
}

/// The digest of a session that is proven: the ledger knows its rows, and the proof is there.
fn proof_in(entries: &[Entry], folder: &Path, id: &[u8; 32]) -> Option<TraceDigest> {
    let session = hex::encode(id);
    let trace = entries.iter().filter(|entry| entry.session == session).find_map(|entry| entry.trace.as_deref())?;
    let mut digest = [0u8; 32];
    hex::decode_to_slice(trace, &mut digest).ok()?;
    proof_path(folder, id).is_file().then_some(TraceDigest(digest))
}
