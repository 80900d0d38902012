//! One session in memory: its stage, and a summary of its log.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;
use zklora_proof::trace::TraceDigest;

use super::log_rate::LogRate;
use crate::{
    Error, batch, proof_attempts, session_files,
    session_log::{self, SessionLog},
    wire::Batch,
};

static NOT_SYNCED: LogRate = LogRate::new();

/// The stage of a session.
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
    /// Proving failed. The next start of the server tries again.
    Failed(String),
}

/// A session.
pub(super) struct Session {
    pub id: [u8; 32],
    pub client: String,
    pub(super) key_hash: blake3::Hash,
    pub(super) folder: PathBuf,
    logged: Mutex<Logged>,
    /// Number of batches on disk. Readers of it do not wait for a batch that is being computed.
    pub(super) next: AtomicU64,
    stage: watch::Sender<Stage>,
    /// Number of the newest stream, the only one that may send batches.
    stream: watch::Sender<u64>,
}

/// Batches that are answered again. A client has one batch without an answer, so one would do.
const KNOWN_BATCHES: usize = 1024;

/// A session's log, and what was written to it.
pub(super) struct Logged {
    /// Open while a stream is attached. The file exists from the first batch on.
    pub log: Option<SessionLog>,
    /// Number of batches on disk.
    pub batches: u64,
    /// Digests of the last of them, at most [`KNOWN_BATCHES`].
    latest: VecDeque<[u8; 32]>,
    /// Rows per module.
    pub rows: BTreeMap<usize, u64>,
}

/// The hash of a session key. The contributor stores this and not the key.
pub(super) fn key_hash(key: &[u8]) -> blake3::Hash {
    blake3::Hasher::new_derive_key("zklora v1 session key").update(key).finalize()
}

impl Session {
    /// A new session, of which nothing is on disk.
    pub fn new(id: [u8; 32], key: &[u8], client: String, folder: &Path) -> Session {
        Session::with(id, key_hash(key), client, folder, Logged::empty(), Stage::Open)
    }

    fn with(
        id: [u8; 32],
        key_hash: blake3::Hash,
        client: String,
        folder: &Path,
        logged: Logged,
        stage: Stage,
    ) -> Session {
        let (stage, stream) = (watch::Sender::new(stage), watch::Sender::new(0));
        let (folder, next) = (folder.to_path_buf(), AtomicU64::new(logged.batches));
        Session { id, client, key_hash, folder, logged: Mutex::new(logged), next, stage, stream }
    }

    /// A session from its log, and whether it has ended. The caller queues it then.
    pub fn restore(
        path: &Path,
        folder: &Path,
        proof: Option<TraceDigest>,
    ) -> Result<(Session, bool), Error> {
        let mut logged = Logged::empty();
        let mut ended = false;
        let header = if proof.is_some() {
            session_log::header(path)?
        } else {
            // Opening it cuts a torn end.
            let (_, header) = SessionLog::open(path, &mut |event| {
                if let Some(batch) = event.into_served_batch(path, &mut ended)? {
                    logged.push(&batch);
                }
                Ok(())
            })?;
            header
        };
        let (id, key) = (header.session, header.key);
        if path != session_files::log_path(folder, &id) {
            return Err(session_files::misnamed(path));
        }
        let stage = match proof {
            Some(digest) => Stage::Proven(digest),
            None if ended && proof_attempts::read(folder, &id) >= proof_attempts::MAX_ATTEMPTS => {
                Stage::Failed(proof_attempts::SET_ASIDE.into())
            }
            None => Stage::Open,
        };
        Ok((
            Session::with(
                id,
                blake3::Hash::from_bytes(key),
                header.peer.clone(),
                folder,
                logged,
                stage,
            ),
            ended,
        ))
    }

    /// Whether this client opened the session with this key.
    pub fn belongs_to(&self, key: &[u8], client: &str) -> bool {
        // `blake3::Hash` compares in constant time.
        self.key_hash == key_hash(key) && self.client == client
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Logged> {
        // The fields change after the log did, so a panic while the lock is held leaves them as
        // the disk is.
        self.logged.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Attaches a new stream. It replaces the stream before, whose receiver sees the new number.
    pub fn attach_stream(&self) -> (u64, watch::Receiver<u64>) {
        let mut number = 0;
        self.stream.send_modify(|current| {
            *current += 1;
            number = *current;
        });
        (number, self.stream.subscribe())
    }

    /// Whether this stream is the newest.
    pub(super) fn is_attached(&self, stream: u64) -> bool {
        *self.stream.borrow() == stream
    }

    /// Syncs and closes the log, unless a newer stream uses it.
    pub fn detach_stream(&self, stream: u64) {
        let mut logged = self.lock();
        if self.is_attached(stream)
            && let Some(mut log) = logged.log.take()
            && let Err(error) = log.sync()
        {
            NOT_SYNCED.warn(|| {
                format!("session {}: a power cut may lose its last batches: {error}", self.name())
            });
        }
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The log of its batches.
    pub fn log_path(&self) -> PathBuf {
        session_files::log_path(&self.folder, &self.id)
    }

    /// Its rows and deltas while it is being proven.
    pub fn trace_path(&self) -> PathBuf {
        session_files::trace_path(&self.folder, &self.id)
    }

    /// Its proof.
    pub fn proof_path(&self) -> PathBuf {
        session_files::proof_path(&self.folder, &self.id)
    }

    /// Rows of all modules.
    pub fn rows_in_all(&self) -> u64 {
        self.lock().rows.values().sum()
    }

    /// Its name in log lines: the beginning of its id.
    pub fn name(&self) -> String {
        hex::encode(&self.id[..8])
    }
}

impl Logged {
    fn empty() -> Logged {
        Logged { log: None, batches: 0, latest: VecDeque::new(), rows: BTreeMap::new() }
    }

    fn push(&mut self, batch: &Batch) {
        self.add(batch::digest(batch), batch.counts());
    }

    /// The digest of a batch on disk. None: it is not one of the last.
    pub fn digest_of(&self, sequence: u64) -> Option<&[u8; 32]> {
        let before = self.batches.checked_sub(sequence)?;
        let at = self.latest.len().checked_sub(usize::try_from(before).ok()?)?;
        self.latest.get(at)
    }

    pub fn add(&mut self, digest: [u8; 32], rows: impl IntoIterator<Item = (usize, u64)>) {
        self.batches += 1;
        if self.latest.len() == KNOWN_BATCHES {
            self.latest.pop_front();
        }
        self.latest.push_back(digest);
        rows.into_iter().for_each(|(module, rows)| *self.rows.entry(module).or_default() += rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_a_session_again_does_not_wait_for_a_batch_that_is_computed() {
        let session = Session::new([7; 32], &[8; 32], "alice".into(), Path::new("nowhere"));
        let _computing = session.lock();
        assert_eq!((session.next_sequence(), session.stage()), (0, Stage::Open));
    }
}
