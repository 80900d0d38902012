//! Proofs beside inference: one thread with a pool of its own, one session after the other, one of
//! each identity in turn.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tonic::Status;
use zklora_artifacts::trace_reader::TraceReader;
use zklora_files::{Access, Kind};
use zklora_proof::{keys::KeyStore, srs::Srs};

use super::{
    attempts,
    queue::{Turns, Waits},
    session::{Session, Stage},
    sessions::Sessions,
};
use crate::{Error, adapter::ServedAdapter, ledger::Entry, prove};

/// What proofs are made of.
pub(super) struct Workshop {
    pub artifacts: ServedAdapter,
    pub srs: Srs,
    pub keys: KeyStore,
    pub sessions: Sessions,
}

/// The first wait after a proof that could not be read or written, doubled every time up to the
/// longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A session that waits.
struct Job {
    session: Arc<Session>,
    not_before: Instant,
    /// How long it waits after the next failure of the disk.
    next_wait: Duration,
}

impl Waits for Job {
    fn client(&self) -> &str {
        &self.session.client
    }

    fn not_before(&self) -> Instant {
        self.not_before
    }
}

#[derive(Default)]
struct Queue {
    waiting: Turns<Job>,
    /// The session that is being proven, and how many of its attempts had died before.
    current: Option<(Arc<Session>, u32)>,
    stopping: bool,
    /// Whether the thread has let go of everything.
    ended: bool,
}

/// A place for a session that is about to end. It is dropped when the session is in the queue, or
/// is not to be.
pub(super) struct Promise {
    prover: Arc<Prover>,
    client: String,
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.prover.lock().waiting.redeem(&self.client);
    }
}

/// The queue of sessions that wait for their proof.
#[derive(Default)]
pub(super) struct Prover {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Prover {
    /// Starts the thread. It ends after [`Prover::stop`], when its session is proven.
    pub fn start(workshop: &Arc<Workshop>, threads: usize) -> Result<Arc<Prover>, Error> {
        let failed = |e: &dyn std::fmt::Display| {
            Error::input(format!("the prover's threads cannot be started: {e}"))
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("prove-{i}"))
            .build()
            .map_err(|e| failed(&e))?;
        let prover = Arc::new(Prover::default());
        let (own, workshop) = (Arc::clone(&prover), Arc::clone(workshop));
        let thread = std::thread::Builder::new().name("prover".into()).spawn(move || {
            own.work(&workshop, &pool);
            // With it goes the ledger's lock: another server may have it.
            drop(workshop);
            own.lock().ended = true;
            own.changed.notify_all();
        });
        thread.map_err(|e| failed(&e))?;
        Ok(prover)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Promises a place in the queue.
    ///
    /// # Errors
    /// `UNAVAILABLE`: `most` sessions of this identity wait already.
    pub fn promise(self: &Arc<Prover>, client: &str, most: usize) -> Result<Promise, Status> {
        let mut queue = self.lock();
        let current = queue.current.as_ref().is_some_and(|(session, _)| session.client == client);
        if queue.waiting.of(client) + usize::from(current) >= most {
            return Err(Status::unavailable(format!(
                "so many sessions of yours wait for their proof ({most}): this one stays open, try again later"
            )));
        }
        queue.waiting.promise(client);
        Ok(Promise { prover: Arc::clone(self), client: client.to_string() })
    }

    /// Puts a session that has ended at the end of the queue of its identity.
    pub fn enqueue(&self, session: Arc<Session>) {
        let wait = attempts::wait(attempts::read(session.folder(), &session.id));
        self.push(Job { session, not_before: Instant::now() + wait, next_wait: FIRST_WAIT });
    }

    fn push(&self, job: Job) {
        job.session.set_stage(Stage::Queued);
        self.lock().waiting.push(job);
        self.changed.notify_all();
    }

    /// Sessions before this one.
    pub fn ahead(&self, session: &Session) -> u32 {
        let queue = self.lock();
        let place = queue.waiting.ahead(&session.client, |job| job.session.id == session.id);
        u32::try_from(place + usize::from(queue.current.is_some())).unwrap_or(u32::MAX)
    }

    /// Sessions that wait, and whether one is being proven.
    pub fn length(&self) -> (usize, bool) {
        let queue = self.lock();
        (queue.waiting.len(), queue.current.is_some())
    }

    /// No further session is begun. One that is being proven did not kill the server: its attempt
    /// does not count.
    pub fn stop(&self) {
        let mut queue = self.lock();
        queue.stopping = true;
        if let Some((session, before)) = &queue.current {
            let _ = attempts::write(session.folder(), &session.id, *before);
        }
        self.changed.notify_all();
    }

    /// After [`Prover::stop`]: waits until the thread has ended, but not for a proof that takes
    /// longer than this.
    pub fn wait_for_end(&self, most: Duration) {
        let queue = self.lock();
        let waited = self.changed.wait_timeout_while(queue, most, |queue| !queue.ended);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// The next session whose time has come; none when the server stops.
    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if queue.stopping {
                return None;
            }
            let now = Instant::now();
            if let Some(job) = queue.waiting.next(now) {
                return Some(job);
            }
            let wait = queue
                .waiting
                .soonest()
                .map_or(LONGEST_WAIT, |at| at.saturating_duration_since(now));
            queue =
                self.changed.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn work(&self, workshop: &Workshop, pool: &rayon::ThreadPool) {
        let metrics = &workshop.sessions.counts.metrics;
        while let Some(job) = self.next() {
            let session = Arc::clone(&job.session);
            let start = Instant::now();
            match self.attempt(workshop, &session, pool) {
                // The server stops.
                Ok(None) => return,
                Ok(Some(stage)) => {
                    let (seconds, rows) = (start.elapsed().as_secs_f64(), session.rows_in_all());
                    tracing::info!(
                        session = session.name(),
                        client = session.client,
                        rows,
                        seconds,
                        "proven"
                    );
                    metrics.proved(seconds);
                    session.set_stage(stage);
                }
                // A full disk is emptied some time: nobody should have to start the server again
                // for it.
                Err(error) if error.kind().is_some_and(Kind::is_of_system) => {
                    let wait = job.next_wait;
                    metrics.proof_failed(false);
                    tracing::error!(
                        session = session.name(),
                        "proving failed, tried again in {} s: {error}",
                        wait.as_secs()
                    );
                    let (not_before, next_wait) =
                        (Instant::now() + wait, (wait * 2).min(LONGEST_WAIT));
                    self.push(Job { session, not_before, next_wait });
                }
                Err(error) => {
                    tracing::error!(session = session.name(), "proving failed: {error}");
                    metrics.proof_failed(true);
                    session.set_stage(Stage::Failed(shown(&error)));
                }
            }
        }
    }

    /// One attempt, which is on the disk while it lasts; none when the server stops.
    fn attempt(
        &self,
        workshop: &Workshop,
        session: &Arc<Session>,
        pool: &rayon::ThreadPool,
    ) -> Result<Option<Stage>, Error> {
        let before = attempts::read(session.folder(), &session.id);
        {
            // Both or neither: whoever stops the server takes the attempt back.
            let mut queue = self.lock();
            if queue.stopping {
                return Ok(None);
            }
            attempts::write(session.folder(), &session.id, before + 1)?;
            queue.current = Some((Arc::clone(session), before));
        }
        session.set_stage(Stage::Proving);
        // Whatever goes wrong with one session, the next ones are proven.
        let prove = || pool.install(|| prove(workshop, session));
        let proven = std::panic::catch_unwind(std::panic::AssertUnwindSafe(prove));
        let _ = zklora_files::remove(&session.trace_path());
        self.lock().current = None;
        // The server lives. (Should the disk not take this, one attempt too many is counted.)
        let _ = attempts::write(session.folder(), &session.id, 0);
        proven.unwrap_or_else(|_| Err(Error::Internal("the prover panicked".into()))).map(Some)
    }
}

/// What the user is told: paths and the like stay here.
fn shown(error: &Error) -> String {
    match error {
        Error::Artifact(zklora_artifacts::Error::Proof(error)) => error.to_string(),
        _ => "this server could not prove the session: its operator finds the reason in the server's log".into(),
    }
}

/// The log becomes a trace on the disk, in pieces, and that is proven in pieces: a session may be
/// larger than the memory.
fn prove(workshop: &Workshop, session: &Session) -> Result<Stage, Error> {
    let Workshop { artifacts, srs, keys, sessions } = workshop;
    let path = session.trace_path();
    let rows = session.write_trace(artifacts, &path)?;
    let trace = TraceReader::trace(&path, &artifacts.manifest)?;
    let digest = trace.digest();
    sessions.counts.ended(Entry::ended(
        &session.id,
        &session.client,
        &session.log_path(),
        digest,
        rows,
    ))?;
    let proof = sessions
        .counts
        .book(|book| prove::check_served(artifacts, book, &trace))
        .and_then(|()| prove::prove_served(artifacts, &trace, srs, keys))?;
    zklora_files::write(&session.proof_path(), &proof, Access::Public)?;
    Ok(Stage::Proven(digest))
}
