//! One session at the contributor: batches in order, each counted and on disk before it is
//! answered.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;
use tonic::Status;
use zklora_artifacts::{folder::Artifacts, trace_writer::TraceWriter, verify::MAX_PROOF};
use zklora_files::Access;
use zklora_proof::trace::TraceDigest;

use super::{
    attempts,
    limits::Limits,
    log_rate::LogRate,
    metrics::Cause,
    sessions::{Counts, used_before},
    trouble::cannot_write,
};
use crate::{
    Error,
    adapter::ServedAdapter,
    batch::{self, answer_digest, deltas_to_wire},
    ledger::Rows,
    session_log::{self, Event, Header, SessionLog},
    wire::{Batch, InferResponse},
};

static NOT_SYNCED: LogRate = LogRate::new();

/// How far a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// It takes batches.
    Open,
    /// It has ended and waits for the prover.
    Queued,
    /// It is being proven.
    Proving,
    /// The proof is on disk.
    Proven(TraceDigest),
    /// Proving failed; a restart tries again.
    Failed(String),
}

/// A session.
pub(super) struct Session {
    pub id: [u8; 32],
    pub client: String,
    key_hash: blake3::Hash,
    folder: PathBuf,
    inner: Mutex<Inner>,
    /// How many batches are on disk: whoever asks does not wait for one that is being computed.
    next: AtomicU64,
    stage: watch::Sender<Stage>,
    /// Number of the stream that may send batches: the newest.
    stream: watch::Sender<u64>,
}

struct Inner {
    /// Open while a stream is; there is no file before the first batch.
    log: Option<SessionLog>,
    /// Digests of the batches that are on disk.
    batches: Vec<[u8; 32]>,
    /// Rows per module.
    rows: BTreeMap<usize, u64>,
}

/// The hash of a session key: what the contributor keeps of it.
pub(super) fn key_hash(key: &[u8]) -> blake3::Hash {
    blake3::Hasher::new_derive_key("zklora v1 session key").update(key).finalize()
}

impl Session {
    /// A session that has just been opened. Nothing is on disk.
    pub fn new(id: [u8; 32], key: &[u8], client: String, folder: &Path) -> Session {
        let inner = Inner { log: None, batches: Vec::new(), rows: BTreeMap::new() };
        Session::with(id, key_hash(key), client, folder, inner, Stage::Open)
    }

    fn with(
        id: [u8; 32],
        key_hash: blake3::Hash,
        client: String,
        folder: &Path,
        inner: Inner,
        stage: Stage,
    ) -> Session {
        let (stage, stream) = (watch::Sender::new(stage), watch::Sender::new(0));
        let (folder, next) = (folder.to_path_buf(), AtomicU64::new(inner.batches.len() as u64));
        Session { id, client, key_hash, folder, inner: Mutex::new(inner), next, stage, stream }
    }

    /// A session of an earlier life of the server. Whether it had ended is in the result; the
    /// caller queues it then.
    pub fn restore(
        path: &Path,
        folder: &Path,
        proof: Option<TraceDigest>,
    ) -> Result<(Session, bool), Error> {
        let mut inner = Inner { log: None, batches: Vec::new(), rows: BTreeMap::new() };
        let mut ended = false;
        let header = if proof.is_some() {
            session_log::header(path)?
        } else {
            // Opening it cuts a torn end.
            let (_, header) = SessionLog::open(path, &mut |event| {
                match event {
                    Event::Served { batch, .. } if !ended => inner.push(&batch),
                    Event::Ended if !ended => ended = true,
                    _ => {
                        return Err(Error::file(
                            path,
                            "its events are not those of a contributor's session",
                        ));
                    }
                }
                Ok(())
            })?;
            header
        };
        let unreadable = || Error::file(path, "its header is not one");
        let id = header.session_id().ok_or_else(unreadable)?;
        let key = header.key_bytes().ok_or_else(unreadable)?;
        if path != log_path(folder, &id) {
            return Err(Error::file(
                path,
                "it is not called like its session: somebody renamed it",
            ));
        }
        let stage = match proof {
            Some(digest) => Stage::Proven(digest),
            None if ended && attempts::read(folder, &id) >= attempts::MOST => {
                Stage::Failed(attempts::SET_ASIDE.into())
            }
            None => Stage::Open,
        };
        Ok((
            Session::with(
                id,
                blake3::Hash::from_bytes(key),
                header.peer.clone(),
                folder,
                inner,
                stage,
            ),
            ended,
        ))
    }

    /// Whether this caller opened the session.
    pub fn belongs_to(&self, key: &[u8], client: &str) -> bool {
        // Constant time: `blake3::Hash` compares so.
        self.key_hash == key_hash(key) && self.client == client
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What a panicked holder left is what is on disk: the fields change after the log did.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stage(&self) -> Stage {
        self.stage.borrow().clone()
    }

    pub fn set_stage(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    pub fn watch(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Sequence number of the next new batch.
    pub fn next_sequence(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// A new stream takes over; the one before is told so by the receiver that it holds.
    pub fn take_over(&self) -> (u64, watch::Receiver<u64>) {
        let mut number = 0;
        self.stream.send_modify(|current| {
            *current += 1;
            number = *current;
        });
        (number, self.stream.subscribe())
    }

    /// Lets go of the log's file, if no newer stream uses it. What was served is on the disk then.
    pub fn leave(&self, stream: u64) {
        let mut inner = self.lock();
        if *self.stream.borrow() == stream
            && let Some(mut log) = inner.log.take()
            && let Err(error) = log.sync()
        {
            NOT_SYNCED.warn(|| {
                format!(
                    "session {}: its last batches may not survive a power cut: {error}",
                    self.name()
                )
            });
        }
    }

    /// Answers a batch: checks it, counts its rows, computes the deltas, writes both down, and only
    /// then returns them.
    pub fn serve(
        &self,
        stream: u64,
        batch: Batch,
        artifacts: &ServedAdapter,
        counts: &Counts,
        limits: &Limits,
    ) -> Result<InferResponse, Status> {
        let calls = batch::parse(&batch, &artifacts.manifest)
            .map_err(|why| Status::invalid_argument(format!("batch {}: {why}", batch.sequence)))?;
        let digest = batch::digest(&batch);
        let mut inner = self.lock();
        if *self.stream.borrow() != stream {
            return Err(superseded());
        }
        let next = inner.batches.len() as u64;
        match usize::try_from(batch.sequence).ok().and_then(|at| inner.batches.get(at)) {
            Some(known) if *known == digest => {
                return Ok(deltas_to_wire(batch.sequence, deltas(&calls, artifacts)));
            }
            Some(_) => {
                return Err(Status::failed_precondition(format!(
                    "batch {} was sent before with other content: a batch is repeated byte for byte, or not at all",
                    batch.sequence
                )));
            }
            None if self.stage() != Stage::Open => {
                return Err(Status::failed_precondition(
                    "this session has ended: open another one",
                ));
            }
            None if batch.sequence != next => {
                let why = format!("batch {} came, batch {next} is next", batch.sequence);
                return Err(Cause::State.of(Status::out_of_range(why)));
            }
            None => {}
        }
        // Only now: what was counted under other limits is answered again.
        check_size(&batch, artifacts, limits)?;
        let more: Vec<(usize, u64)> = batch.counts().collect();
        check_session(&inner.rows, &more, artifacts, limits)?;
        let counted = counts.reserve(&self.client, &more, &artifacts.manifest, limits)?;
        let (sequence, deltas) = (batch.sequence, deltas(&calls, artifacts));
        let answer = answer_digest(sequence, &deltas);
        self.write(&mut inner, Event::Served { answer, batch }, artifacts, counts)?;
        counted.keep();
        if sequence == 0 {
            let rows: u64 = more.iter().map(|(_, rows)| rows).sum();
            tracing::info!(session = self.name(), client = self.client, rows, "began");
        }
        inner.add(digest, more);
        self.next.store(inner.batches.len() as u64, Ordering::Release);
        Ok(deltas_to_wire(sequence, deltas))
    }

    fn write(
        &self,
        inner: &mut Inner,
        event: Event,
        artifacts: &Artifacts,
        counts: &Counts,
    ) -> Result<(), Status> {
        let batches = inner.batches.len();
        let written = match &mut inner.log {
            Some(log) => append(log, &event),
            none => self
                .open_log(batches, artifacts, counts)
                .and_then(|log| append(none.insert(log), &event)),
        };
        written.map_err(|e| {
            // What is in the file is looked at again before anything is added.
            inner.log = None;
            if let Error::Reused(_) = e {
                return Cause::ReusedId.of(Status::failed_precondition(e.to_string()));
            }
            cannot_write(&self.name(), &e)
        })
    }

    /// The log, which holds this many batches.
    fn open_log(
        &self,
        batches: usize,
        artifacts: &Artifacts,
        counts: &Counts,
    ) -> Result<SessionLog, Error> {
        let path = log_path(&self.folder, &self.id);
        // Only a session without rows may have no log yet: a second one would count and prove less
        // than was served.
        let log = if batches == 0 && !path.exists() {
            let header = Header::new(
                artifacts.manifest.id().to_string(),
                self.client.clone(),
                &self.id,
                self.key_hash.as_bytes(),
            );
            SessionLog::create(&path, &header)?
        } else {
            let mut found = 0;
            let (log, _) = SessionLog::open(&path, &mut |event| match event {
                Event::Served { .. } => {
                    found += 1;
                    Ok(())
                }
                _ => Err(Error::file(
                    &path,
                    "it has ended, which its server does not know: restart the server",
                )),
            })?;
            if found != batches {
                return Err(Error::file(
                    &path,
                    format!("it holds {found} batches, {batches} were served"),
                ));
            }
            log
        };
        if batches == 0 {
            // After the log is there: the ledger must not name a log that is not. Before any row
            // is: the ledger names them all.
            counts.opened(&self.id, &self.client, &path)?;
        }
        Ok(log)
    }

    /// Ends the session, if it may wait for its proof: no batch is taken any more. None: it had
    /// ended before.
    pub fn end<P>(
        &self,
        sequence: u64,
        artifacts: &Artifacts,
        counts: &Counts,
        may_wait: impl FnOnce() -> Result<P, Status>,
    ) -> Result<Option<P>, Status> {
        let mut inner = self.lock();
        let next = inner.batches.len() as u64;
        if self.stage() != Stage::Open {
            return Ok(None);
        }
        if sequence != next {
            return Err(Status::failed_precondition(format!(
                "you count {sequence} batches, this server {next}: send the missing ones, or open the session again"
            )));
        }
        if next == 0 {
            return Err(Status::failed_precondition(
                "the session has no rows: there is nothing to prove",
            ));
        }
        let place = may_wait()?;
        self.write(&mut inner, Event::Ended, artifacts, counts)?;
        inner.log = None;
        // Before the lock goes: no second caller ends it again.
        self.set_stage(Stage::Queued);
        counts.metrics.open.dec();
        Ok(Some(place))
    }

    /// Writes the rows of the log with deltas, computed anew and checked against the digests of the
    /// answers that left, as a trace: batch by batch, so that it needs the memory of one.
    /// Returns the rows of each module that has any.
    pub fn write_trace(&self, artifacts: &ServedAdapter, out: &Path) -> Result<Rows, Error> {
        let (path, manifest) = (self.log_path(), &artifacts.manifest);
        let modules = manifest.modules();
        let contents = session_log::contents(&path, modules.len())?;
        if contents.header.adapter_id != manifest.id().to_string() {
            let why =
                format!("it is of adapter {}, not of the one served", contents.header.adapter_id);
            return Err(Error::file(&path, why));
        }
        let too_many = |_| Error::file(&path, "it has more rows than this machine can address");
        let counts = contents.rows.iter().map(|rows| usize::try_from(*rows).map_err(too_many));
        let counts = counts.collect::<Result<Vec<_>, _>>()?;
        let mut trace = TraceWriter::create(out, manifest.id(), self.id, modules, &counts)?;
        session_log::read(&path, &mut |event| {
            let Event::Served { answer: digest, batch } = event else { return Ok(()) };
            let calls = batch::parse(&batch, manifest).map_err(|why| Error::file(&path, why))?;
            let deltas = deltas(&calls, artifacts);
            if answer_digest(batch.sequence, &deltas) != digest {
                let why = "the adapter computes other deltas than those that left";
                return Err(Error::input(format!(
                    "{}: batch {}: {why}",
                    path.display(),
                    batch.sequence
                )));
            }
            calls
                .iter()
                .zip(deltas)
                .try_for_each(|(call, delta)| Ok(trace.push(call.module, &call.rows, &delta)?))
        })?;
        trace.finish()?;
        let named = modules.iter().map(|module| module.name.clone()).zip(contents.rows);
        Ok(named.filter(|(_, rows)| *rows > 0).collect())
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where its batches are.
    pub fn log_path(&self) -> PathBuf {
        log_path(&self.folder, &self.id)
    }

    /// Where its rows and deltas are while it is being proven.
    pub fn trace_path(&self) -> PathBuf {
        self.folder.join(format!("{}.trace", hex::encode(self.id)))
    }

    /// Where its proof is, once it is.
    pub fn proof_path(&self) -> PathBuf {
        proof_path(&self.folder, &self.id)
    }

    /// The proof, which is about to be sent. The first time, a mark is left beside it: `zklora
    /// sessions prune` goes by that.
    pub fn proof(&self) -> Result<Vec<u8>, Status> {
        let proof = zklora_files::read(&self.proof_path(), MAX_PROOF).map_err(|error| {
            if !self.log_path().exists() {
                // Its operator has just removed it.
                return used_before();
            }
            tracing::error!(session = self.name(), "{error}");
            Status::internal("this server cannot read its proof: its operator finds the reason in the server's log")
        })?;
        let mark = self.folder.join(format!("{}.fetched", hex::encode(self.id)));
        if !mark.exists()
            && let Err(error) = zklora_files::write(&mark, &[], Access::Private)
        {
            tracing::warn!(
                session = self.name(),
                "that its proof was fetched cannot be noted: {error}"
            );
        }
        Ok(proof)
    }

    /// Rows of all modules.
    pub fn rows_in_all(&self) -> u64 {
        self.lock().rows.values().sum()
    }

    /// What logs call it: the beginning of its id.
    pub fn name(&self) -> String {
        hex::encode(&self.id[..8])
    }
}

/// The end of a session is on the disk, with all before it: the ledger's line about its rows must
/// not outlive them.
fn append(log: &mut SessionLog, event: &Event) -> Result<(), Error> {
    if *event == Event::Ended { log.append_to_disk(event) } else { log.append(event) }
}

impl Inner {
    fn push(&mut self, batch: &Batch) {
        self.add(batch::digest(batch), batch.counts());
    }

    fn add(&mut self, digest: [u8; 32], rows: impl IntoIterator<Item = (usize, u64)>) {
        self.batches.push(digest);
        rows.into_iter().for_each(|(module, rows)| *self.rows.entry(module).or_default() += rows);
    }
}

pub(super) fn superseded() -> Status {
    Status::aborted("another stream goes on with this session")
}

/// The log of a session.
pub(super) fn log_path(folder: &Path, id: &[u8; 32]) -> PathBuf {
    folder.join(format!("{}.rows", hex::encode(id)))
}

/// The proof of a session.
pub(super) fn proof_path(folder: &Path, id: &[u8; 32]) -> PathBuf {
    folder.join(format!("{}.pf", hex::encode(id)))
}

fn check_size(batch: &Batch, artifacts: &Artifacts, limits: &Limits) -> Result<(), Status> {
    if let Some((_, rows)) =
        batch.counts().find(|(_, rows)| *rows > u64::from(limits.max_batch_rows))
    {
        return Err(Status::resource_exhausted(format!(
            "batch {} has {rows} rows of a module, this server takes {}: split it",
            batch.sequence, limits.max_batch_rows
        )));
    }
    let modules = artifacts.manifest.modules();
    let answer: u64 =
        batch.counts().map(|(module, rows)| rows * modules[module].d_out as u64 * 8).sum();
    if answer > limits.max_message_bytes as u64 {
        return Err(Status::resource_exhausted(format!(
            "batch {} would be answered with {answer} bytes, this server sends {}: split it",
            batch.sequence, limits.max_message_bytes
        )));
    }
    Ok(())
}

/// Whether a session of these rows may get `more`.
fn check_session(
    rows: &BTreeMap<usize, u64>,
    more: &[(usize, u64)],
    artifacts: &Artifacts,
    limits: &Limits,
) -> Result<(), Status> {
    let refuse = |what: String, most: String| {
        Err(Status::resource_exhausted(format!(
            "the session would have {what}, this server proves at most {most} in one: end it and open another"
        )))
    };
    let all = || rows.iter().map(|(module, rows)| (*module, *rows)).chain(more.iter().copied());
    let count: u64 = all().map(|(_, rows)| rows).sum();
    if count > limits.max_session_rows {
        return refuse(format!("{count} rows"), limits.max_session_rows.to_string());
    }
    let bytes: u64 =
        all().map(|(module, rows)| rows.saturating_mul(row_bytes(artifacts, module))).sum();
    if bytes > limits.max_session_bytes {
        return refuse(format!("a trace of {bytes} bytes"), limits.max_session_bytes.to_string());
    }
    Ok(())
}

/// Bytes of a row of a trace: activations, scale, the constant 1, deltas.
fn row_bytes(artifacts: &Artifacts, module: usize) -> u64 {
    let module = &artifacts.manifest.modules()[module];
    let words = module.inputs.iter().map(|input| input.dim).sum::<usize>()
        + 1
        + usize::from(module.has_bias());
    (words * 4 + module.d_out * 8) as u64
}

fn deltas(calls: &[batch::Call], adapter: &ServedAdapter) -> Vec<Vec<i64>> {
    calls.iter().map(|call| adapter.compute(call.module, &call.rows)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_opens_a_session_again_does_not_wait_for_the_batch_that_is_computed() {
        let session = Session::new([7; 32], &[8; 32], "alice".into(), Path::new("nowhere"));
        let _computing = session.lock();
        assert_eq!((session.next_sequence(), session.stage()), (0, Stage::Open));
    }
}
