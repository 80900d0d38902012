//! All sessions of a server, and the rows that it has served.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rayon::prelude::*;
use tonic::Status;
use zklora_artifacts::folder::Artifacts;
use zklora_files::Access;
use zklora_proof::{checked_manifest::CheckedManifest, manifest::MAX_MODULES};

use super::{
    attempts,
    limits::Limits,
    metrics::{Cause, Metrics},
    session::{Session, Stage, key_hash, log_path, proof_path},
};
use crate::{
    Error, frame_log,
    ledger::{Book, Entry, Known, Ledger, Rows, digest_of},
    served::Served,
    session_log::{self, Contents},
    wire::SessionRef,
};

/// The ledger, which no other process writes to meanwhile, and what it adds up to.
pub(super) struct Counts {
    inner: Mutex<(Ledger, Served)>,
    /// What else is counted, for whoever watches the server.
    pub metrics: Arc<Metrics>,
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, (Ledger, Served)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was served so far.
    pub fn served(&self) -> Served {
        self.lock().1.clone()
    }

    /// Rows of each module, and rows of all modules of each client.
    pub fn sums(&self) -> (Vec<u64>, Vec<(String, u64)>) {
        let inner = self.lock();
        let sum = |rows: &Vec<u64>| rows.iter().fold(0, |all: u64, rows| all.saturating_add(*rows));
        let clients = inner.1.clients.iter().map(|(client, rows)| (client.clone(), sum(rows)));
        (inner.1.total.clone(), clients.collect())
    }

    /// Works with what the ledger adds up to. Rows are counted by nobody meanwhile.
    pub fn book<T>(&self, work: impl FnOnce(&Book) -> T) -> T {
        work(self.lock().0.book())
    }

    /// Counts rows that are about to leave, if the budget has them.
    pub fn reserve<'a>(
        &'a self,
        client: &'a str,
        more: &'a [(usize, u64)],
        manifest: &CheckedManifest,
        limits: &Limits,
    ) -> Result<Counted<'a>, Status> {
        let mut inner = self.lock();
        inner
            .1
            .check(manifest, more, limits.max_rows)
            .map_err(|e| Cause::Budget.of(Status::resource_exhausted(e.to_string())))?;
        more.iter().for_each(|(module, rows)| inner.1.add(client, *module, *rows));
        Ok(Counted { counts: self, client, more, kept: false })
    }

    /// The ledger's line for a session that begins, before its first row leaves; only the first
    /// time.
    ///
    /// # Errors
    /// [`Error::Reused`]: the ledger knows the id, of another log or of one that has ended.
    pub fn opened(&self, id: &[u8; 32], client: &str, log: &Path) -> Result<(), Error> {
        let mut inner = self.lock();
        // It died between the two writes, or the disk was full.
        let known = matches!(inner.0.book().of_id(id), [one] if one.is_open() && one.log.as_deref() == Some(log));
        if known {
            return Ok(());
        }
        inner.0.append(Entry::opened(id, client, log))?;
        self.metrics.open.inc();
        Ok(())
    }

    /// The ledger's line for a session that has ended; only the first time.
    pub fn ended(&self, entry: Entry) -> Result<(), Error> {
        let mut inner = self.lock();
        let same = |known: &crate::ledger::Known| {
            known.log == entry.log && known.trace.map(|trace| hex::encode(trace.0)) == entry.trace
        };
        let mut id = [0u8; 32];
        let known = hex::decode_to_slice(&entry.session, &mut id).is_ok()
            && inner.0.book().of_id(&id).iter().any(|known| !known.is_open() && same(known));
        if known { Ok(()) } else { inner.0.append(entry) }
    }

    /// Whether a session of this id may begin, or go on with the log at `path`: the ledger knows
    /// nothing of the id, or that log alone.
    fn check_id(&self, id: &[u8; 32], path: &Path) -> Result<(), Status> {
        self.book(|book| match book.of_id(id) {
            [] => Ok(()),
            [one] if one.log.as_deref() == Some(path) && !one.abandoned && path.is_file() => Ok(()),
            _ => Err(used_before()),
        })
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
            self.more
                .iter()
                .for_each(|(module, rows)| inner.1.take_back(self.client, *module, *rows));
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
    /// Ids of sessions that had ended and are not proven: the server died while it proved them,
    /// time and again.
    pub set_aside: Vec<String>,
}

/// The sessions of a server.
pub(super) struct Sessions {
    folder: PathBuf,
    /// Those in memory; others are on the disk.
    known: Mutex<HashMap<[u8; 32], Arc<Session>>>,
    /// Held while a session is taken up from the disk: it must not be there twice. By the first
    /// byte of the id, so that a long log keeps few others waiting.
    taking_up: [Mutex<()>; 256],
    pub counts: Counts,
    limit: usize,
}

/// Sessions that are in memory at the same time, for every one that may exchange batches.
const KNOWN_PER_ACTIVE: usize = 64;

impl Sessions {
    /// Locks the ledger and looks at every session of the folder, once. Those that wait for their
    /// proof are returned.
    pub fn open(
        folder: &Path,
        artifacts: &Artifacts,
        limits: &Limits,
    ) -> Result<(Sessions, Vec<Arc<Session>>, Restored), Error> {
        zklora_files::create_folder(folder, Access::Private)?;
        // The ledger names logs by their full path, whatever folder the next reader works in.
        let folder = folder.canonicalize().map_err(|e| Error::file(folder, e))?;
        let mut ledger = Ledger::lock(&artifacts.ledger())?;
        // What an earlier life was writing when it was killed.
        zklora_files::sweep(&folder);
        let found = Found::in_folder(&folder)?;
        // Nothing is written before all of it was understood: a start that fails leaves the ledger
        // as it was.
        let (mut book, mut entries) = (ledger.book().clone(), Vec::new());
        for id in &found.logs {
            if let Some(entry) = enter(&folder, id, &book, artifacts)? {
                book.enter(entry.clone()).map_err(|why| Error::file(&artifacts.ledger(), why))?;
                entries.push(entry);
            }
        }
        let (mut known, mut queue, mut restored) =
            (HashMap::new(), Vec::new(), Restored::default());
        let mut take = |id: &[u8; 32], session: Session| {
            let session = Arc::new(session);
            if attempts::read(&folder, id) >= attempts::MOST {
                restored.set_aside.push(hex::encode(id));
                session.set_stage(Stage::Failed(attempts::SET_ASIDE.into()));
            } else {
                queue.push(Arc::clone(&session));
            }
            known.insert(*id, session);
        };
        // What the ledger calls open is counted in its log, wherever it is.
        let modules = artifacts.manifest.modules().len();
        let open: Vec<_> = book.open_logs().collect();
        let read = open
            .par_iter()
            .map(|(client, log)| Ok((*client, *log, session_log::contents(log, modules)?)));
        let mut served = Served::of_ended(&book, &artifacts.manifest);
        let mut can_go_on = 0;
        for (client, log, contents) in read.collect::<Result<Vec<_>, Error>>()? {
            contents
                .rows
                .iter()
                .enumerate()
                .for_each(|(module, rows)| served.add(client, module, *rows));
            if log.parent() != Some(&folder) {
                continue;
            }
            let id = id_of(log, &contents, artifacts)?;
            if book.of_id(&id).len() > 1 {
                tracing::warn!(
                    "{}: another log has the same session id: its rows are counted, it does not go on",
                    log.display()
                );
            } else if contents.ended {
                take(&id, Session::restore(log, &folder, None)?.0);
            } else {
                can_go_on += 1;
            }
        }
        // Those whose rows are in the ledger.
        let (mut proven, mut lost) = (0, Vec::new());
        for id in &found.logs {
            match book.of_log(id, &log_path(&folder, id)) {
                Some(known) if known.trace.is_some() && found.proofs.contains(id) => proven += 1,
                Some(known) if known.trace.is_some() => lost.push(*id),
                _ => {}
            }
        }
        for id in lost {
            take(&id, Session::restore(&log_path(&folder, &id), &folder, None)?.0);
        }
        (restored.open, restored.to_prove, restored.proven) = (can_go_on, queue.len(), proven);
        let metrics = Metrics::new()?;
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.open.set(gauge(restored.open));
        metrics.proven.set(gauge(restored.proven));
        metrics.failed.set(gauge(restored.set_aside.len()));
        ledger.append_found(entries)?;
        let counts = Counts { inner: Mutex::new((ledger, served)), metrics };
        let limit = limits.max_sessions.saturating_mul(KNOWN_PER_ACTIVE);
        let taking_up = std::array::from_fn(|_| Mutex::new(()));
        Ok((
            Sessions { folder, known: Mutex::new(known), taking_up, counts, limit },
            queue,
            restored,
        ))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<Session>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session, or finds the one that this caller opened before.
    pub fn open_session(
        &self,
        reference: Option<&SessionRef>,
        client: &str,
    ) -> Result<Arc<Session>, Status> {
        let (id, key) = parse(reference)?;
        let found = match self.look_up(&id, key, client)? {
            Some(session) => session,
            None => {
                self.counts.check_id(&id, &log_path(&self.folder, &id))?;
                self.keep(Session::new(id, key, client.to_string(), &self.folder))?
            }
        };
        if found.belongs_to(key, client) { Ok(found) } else { Err(not_yours()) }
    }

    /// The session of this caller.
    pub fn find(
        &self,
        reference: Option<&SessionRef>,
        client: &str,
    ) -> Result<Arc<Session>, Status> {
        let (id, key) = parse(reference)?;
        // The same answer whether there is such a session or not: ids are not to be searched for.
        match self.look_up(&id, key, client)? {
            Some(session) if session.belongs_to(key, client) => Ok(session),
            _ => Err(not_yours()),
        }
    }

    /// The session with this id, whoever opened it; from the disk only for who did.
    fn look_up(
        &self,
        id: &[u8; 32],
        key: &[u8],
        client: &str,
    ) -> Result<Option<Arc<Session>>, Status> {
        let in_memory = || self.lock().get(id).cloned();
        let path = log_path(&self.folder, id);
        if let Some(session) = in_memory() {
            // Its operator may have removed the files of a session that is over: there is no such
            // session any more.
            if matches!(session.stage(), Stage::Proven(_)) && !path.is_file() {
                self.lock().remove(id);
                return Ok(None);
            }
            return Ok(Some(session));
        }
        if !path.is_file() {
            return Ok(None);
        }
        let _alone =
            self.taking_up[usize::from(id[0])].lock().unwrap_or_else(PoisonError::into_inner);
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
        self.counts.check_id(id, &path)?;
        let known = self.counts.book(|book| book.of_log(id, &path).cloned());
        // It appeared while the server runs: its rows are counted at the next start.
        if known.is_none() && session_log::contents(&path, MAX_MODULES).map_err(failed)?.batches > 0
        {
            return Err(used_before());
        }
        let trace = known.and_then(|known| known.trace);
        let proof = trace.filter(|_| proof_path(&self.folder, id).is_file());
        let (session, ended) = Session::restore(&path, &self.folder, proof).map_err(failed)?;
        // What the ledger calls ended takes no rows, whatever its log says.
        if (ended || trace.is_some()) && session.stage() == Stage::Open {
            session.set_stage(Stage::Failed(
                "this server has lost the proof; it is made again after a restart".into(),
            ));
        }
        self.keep(session).map(Some)
    }

    /// Keeps a session in memory, or returns the one with its id that is there.
    fn keep(&self, session: Session) -> Result<Arc<Session>, Status> {
        let mut known = self.lock();
        if known.len() >= self.limit {
            // Those that nobody works on, and of which the disk knows everything. Those that wait
            // for their proof stay: how many each identity may have of them is bounded,
            // and they keep nobody else out.
            let waits =
                |session: &Session| matches!(session.stage(), Stage::Queued | Stage::Proving);
            known.retain(|_, session| Arc::strong_count(session) > 1 || waits(session));
            if known.values().filter(|session| !waits(session)).count() >= self.limit {
                return Err(Status::unavailable(
                    "this server knows too many sessions: try again later",
                ));
            }
        }
        Ok(Arc::clone(known.entry(session.id).or_insert_with(|| Arc::new(session))))
    }
}

/// What the owner of an id hears that cannot be used again.
pub(super) fn used_before() -> Status {
    Cause::ReusedId.of(Status::failed_precondition(
        "a session of this id was served before, and what is left of it is not a session that can go on: \
         begin a new session",
    ))
}

fn not_yours() -> Status {
    Status::permission_denied(
        "no session of yours has this id and key: open it first, with the identity that it was opened with",
    )
}

fn parse(reference: Option<&SessionRef>) -> Result<([u8; 32], &[u8]), Status> {
    let reference =
        reference.ok_or_else(|| Status::invalid_argument("the request names no session"))?;
    match (<[u8; 32]>::try_from(&reference.id[..]), reference.key.len()) {
        (Ok(id), 32) => Ok((id, &reference.key)),
        _ => Err(Status::invalid_argument("a session has an id of 32 bytes and a key of 32 bytes")),
    }
}

/// The files of a server's folder, by session id.
#[derive(Default)]
struct Found {
    logs: Vec<[u8; 32]>,
    proofs: HashSet<[u8; 32]>,
}

impl Found {
    /// Lists a folder, once. Traces that a proof was being made from when the server died are
    /// removed.
    fn in_folder(folder: &Path) -> Result<Found, Error> {
        let (mut found, mut traces) = (Found::default(), Vec::new());
        for entry in std::fs::read_dir(folder).map_err(|e| Error::file(folder, e))? {
            let path = entry.map_err(|e| Error::file(folder, e))?.path();
            let Some(extension) = path.extension().and_then(|extension| extension.to_str()) else {
                continue;
            };
            let mut id = [0u8; 32];
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let named = hex::decode_to_slice(stem, &mut id).is_ok() && hex::encode(id) == stem;
            match (extension, named) {
                ("rows", true) => found.logs.push(id),
                ("rows", false) => {
                    // It says what the file is instead.
                    session_log::header(&path)?;
                    return Err(Error::file(
                        &path,
                        "it is not called like its session: somebody renamed it",
                    ));
                }
                ("pf", true) => drop(found.proofs.insert(id)),
                ("trace", true) => traces.push((id, path)),
                _ => {}
            }
        }
        found.logs.sort_unstable();
        // A trace without a log beside it is somebody else's.
        let mut own = traces.iter().filter(|(id, _)| found.logs.binary_search(id).is_ok());
        own.try_for_each(|(_, path)| zklora_files::remove(path))?;
        Ok(found)
    }
}

/// The line that the ledger needs for a log in the server's folder, if it needs one.
///
/// A log is known by what it is, not by where: it is the one that a line names if it is the same
/// file, or if that file is gone and the rows are those of the line. Whatever else has the id of a
/// session is counted beside it.
fn enter(
    folder: &Path,
    id: &[u8; 32],
    book: &Book,
    artifacts: &Artifacts,
) -> Result<Option<Entry>, Error> {
    let (path, modules) = (log_path(folder, id), artifacts.manifest.modules());
    let named = book.of_log(id, &path);
    if named.is_some_and(|known| !known.to_check) {
        return Ok(None);
    }
    // The machine died while the log was made: no row of it was served, and the ledger does not
    // know it.
    if book.of_id(id).is_empty() && frame_log::is_unborn(&path)? {
        tracing::warn!("{}: cut before the session was opened; removed", path.display());
        zklora_files::remove(&path)?;
        return Ok(None);
    }
    // Of another adapter it may have other modules: that is said first.
    let header = session_log::header(&path)?;
    check_adapter(&path, &header, artifacts)?;
    let contents = session_log::contents(&path, modules.len())?;
    id_of(&path, &contents, artifacts)?;
    let rows: Rows = modules.iter().map(|module| module.name.clone()).zip(contents.rows).collect();
    let same_rows = |known: &Known| known.rows == Some(digest_of(&rows));
    let moved =
        |known: &Known, from: &Path, rows| Some(Entry::moved(id, &known.client, from, &path, rows));
    if let Some(known) = named {
        // Ended by an older version. If its log has other rows than its line, it was begun a second
        // time: all of them count.
        return Ok(moved(known, &path, if same_rows(known) { Rows::new() } else { rows }));
    }
    let mut others = book.of_id(id).iter().filter_map(|known| Some((known, known.log.as_deref()?)));
    // A link to the folder, or the folder mounted elsewhere.
    if let Some((known, from)) = others.clone().find(|(_, from)| is_same_file(from, &path)) {
        return Ok(moved(known, from, Rows::new()));
    }
    let gone = |from: &Path| matches!(from.try_exists(), Ok(false));
    if let Some((known, from)) = others.clone().find(|(known, from)| {
        gone(from) && (known.is_open() || known.trace.is_some() && same_rows(known))
    }) {
        return Ok(moved(known, from, Rows::new()));
    }
    // A copy of a session that has ended: its rows are in the ledger, and nobody goes on with it.
    if others.any(|(known, _)| !known.is_open() && same_rows(known)) {
        return Ok(None);
    }
    Ok(Some(Entry::opened(id, &header.peer, &path)))
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

fn check_adapter(
    path: &Path,
    header: &session_log::Header,
    artifacts: &Artifacts,
) -> Result<(), Error> {
    if header.adapter_id == artifacts.manifest.id().to_string() {
        return Ok(());
    }
    let why = format!(
        "a session of adapter {}: serve each adapter from its own --data folder",
        header.adapter_id
    );
    Err(Error::file(path, why))
}

/// The session id of a log of this adapter that is called like its session.
fn id_of(path: &Path, contents: &Contents, artifacts: &Artifacts) -> Result<[u8; 32], Error> {
    check_adapter(path, &contents.header, artifacts)?;
    let id =
        contents.header.session_id().ok_or_else(|| Error::file(path, "its header is not one"))?;
    match path.parent() {
        Some(folder) if log_path(folder, &id) == path => Ok(id),
        _ => Err(Error::file(path, "it is not called like its session: somebody renamed it")),
    }
}
