//! The thread that scores accepted requests: one request of each client in turn.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use zklora_evaluation::{answering::Answering, digest::Digest};

use crate::{
    Error,
    server::{
        fair_queue::{FairQueue, Schedulable},
        log_rate::LogRate,
    },
};

/// An answer is shown to be there at a whole number of these after its scoring began: the exact
/// time depends on the adapter, too.
const TICK: Duration = Duration::from_secs(1);

/// The same for a proof, which takes longer, and whose time depends on more.
const PROOF_TICK: Duration = Duration::from_secs(10);

/// How often the number of scored units is told, at least.
const TOLD_EVERY: Duration = Duration::from_secs(2);

/// How long a request is scored while other clients wait.
const TURN: Duration = Duration::from_secs(10);

static FAILED: LogRate = LogRate::with_burst(10);

/// Where a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It waits.
    Waiting,
    /// Some of its units are scored.
    Scoring(Scored),
    /// The answer is on the disk.
    Answered,
    /// The machine failed, or the server stops. The same request may be sent again.
    Failed,
}

/// How many units of a request are scored, or parts of a sample are proven, and how many there are.
/// When that was is not told: whoever asks sees what was there at the last whole tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scored {
    before: (u64, u64),
    now: (u64, u64),
    told_from: Instant,
}

impl Scored {
    /// What is told at a time.
    pub fn at(&self, time: Instant) -> (u64, u64) {
        if time < self.told_from { self.before } else { self.now }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    /// The name: the digest of the request, or of the request to prove.
    pub name: Digest,
    /// The request whose sample is proven; none to answer a request.
    pub proof_of: Option<Digest>,
}

struct Job {
    work: Work,
    client: String,
    queued: Instant,
}

impl Schedulable for Job {
    fn client(&self) -> &str {
        &self.client
    }

    fn not_before(&self) -> Instant {
        self.queued
    }
}

#[derive(Default)]
struct Queue {
    waiting: FairQueue<Job>,
    states: HashMap<Digest, watch::Sender<State>>,
    scoring: bool,
    stopping: bool,
}

/// The requests that wait for their answer.
pub(in crate::server) struct Jobs {
    pub answering: Answering,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// Stops the thread when it is dropped.
pub(in crate::server) struct StopEvaluations(pub Arc<Jobs>);

impl Drop for StopEvaluations {
    fn drop(&mut self) {
        self.0.lock().stopping = true;
        self.0.changed.notify_all();
    }
}

impl Jobs {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread.
    pub fn start(answering: Answering) -> Result<Arc<Jobs>, Error> {
        let (queue, changed) = (Mutex::default(), Condvar::new());
        let jobs = Arc::new(Jobs { answering, queue, changed });
        let worker = Arc::clone(&jobs);
        let thread = std::thread::Builder::new().name("evaluations".into());
        let failed =
            |error| Error::System(format!("cannot start the thread of evaluations: {error}"));
        thread.spawn(move || worker.work()).map_err(failed)?;
        Ok(jobs)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an accepted request, once.
    pub(super) fn enqueue(&self, work: Work, client: &str) -> watch::Receiver<State> {
        let mut queue = self.lock();
        if let Some(known) = queue.states.get(&work.name) {
            return known.subscribe();
        }
        let (sender, receiver) = watch::channel(State::Waiting);
        queue.states.insert(work.name, sender);
        queue.waiting.push(Job { work, client: client.into(), queued: Instant::now() });
        self.changed.notify_all();
        receiver
    }

    /// Requests before this one.
    pub(super) fn ahead(&self, request: &Digest, client: &str) -> u32 {
        let queue = self.lock();
        let waiting = queue.waiting.ahead(client, |job| job.work.name == *request);
        u32::try_from(waiting + usize::from(queue.scoring)).unwrap_or(u32::MAX)
    }

    /// Requests that wait, and whether one is being scored.
    pub fn length(&self) -> (usize, bool) {
        let queue = self.lock();
        (queue.waiting.len(), queue.scoring)
    }

    /// Whether a request waits for its answer.
    pub(super) fn is_pending(&self, request: &Digest) -> bool {
        self.lock().states.contains_key(request)
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if queue.stopping {
                return None;
            }
            if let Some(job) = queue.waiting.next(Instant::now()) {
                queue.scoring = true;
                return Some(job);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A request has got as far as this. A last state is told once, and then forgotten.
    fn set(&self, request: &Digest, state: State) {
        let mut queue = self.lock();
        let is_last = matches!(state, State::Answered | State::Failed);
        queue.scoring &= !is_last;
        if let Some(sender) = queue.states.get(request) {
            sender.send_replace(state);
        }
        if is_last {
            queue.states.remove(request);
        }
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            let Work { name: request, proof_of } = job.work;
            let name = request.to_string();
            let tick = if proof_of.is_some() { PROOF_TICK } else { TICK };
            let start = Instant::now();
            // From the beginning: a proof's first number comes after its sample was scored.
            let mut told = Scored { before: (0, 0), now: (0, 0), told_from: start };
            self.set(&request, State::Scoring(told));
            let mut is_begun = false;
            let mut progress = |scored, units| {
                let before = told.at(Instant::now());
                let told_from = next_tick(start, tick.max(TOLD_EVERY));
                told = Scored { before, now: (scored, units), told_from };
                self.set(&request, State::Scoring(told));
                // A turn does something, however long it took to begin: two clients would stop each
                // other for ever.
                let is_first = !std::mem::replace(&mut is_begun, true);
                let queue = self.lock();
                let others = queue.waiting.len() > queue.waiting.len_of(&job.client);
                let is_over = others && !is_first && start.elapsed() >= TURN;
                !queue.stopping && !is_over
            };
            let answer = catch_unwind(AssertUnwindSafe(|| match proof_of {
                None => self.answering.answer(&request, &mut progress),
                Some(of) => self.answering.prove(&of, &mut progress),
            }));
            match answer {
                Ok(Ok(Some(answer))) => {
                    let seconds = start.elapsed().as_secs_f64();
                    let (client, bytes) = (&job.client, answer.len());
                    let done = if proof_of.is_some() { "proven" } else { "evaluated" };
                    tracing::info!(request = name, client, bytes, seconds, "{done}");
                    wait_for_tick(start, tick);
                    self.set(&request, State::Answered);
                }
                Ok(Ok(None)) if self.lock().stopping => self.set(&request, State::Failed),
                // Another client's turn, which shows when this one ended.
                Ok(Ok(None)) => {
                    wait_for_tick(start, tick);
                    self.put_back(job);
                }
                failed => {
                    if FAILED.admit().is_some() {
                        let why = match failed {
                            Ok(Err(error)) => error.to_string(),
                            _ => "it panicked".into(),
                        };
                        let failed = if proof_of.is_some() { "proof" } else { "evaluation" };
                        tracing::error!(request = name, "{failed} failed: {why}");
                    }
                    wait_for_tick(start, TICK);
                    self.set(&request, State::Failed);
                }
            }
        }
    }

    /// A request that goes on later, behind those of other clients.
    fn put_back(&self, job: Job) {
        let mut queue = self.lock();
        queue.scoring = false;
        queue.waiting.push(job);
    }
}

/// The next whole number of ticks after a start.
fn next_tick(start: Instant, tick: Duration) -> Instant {
    let ticks = start.elapsed().as_nanos().div_ceil(tick.as_nanos());
    start + tick.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX))
}

fn wait_for_tick(start: Instant, tick: Duration) {
    std::thread::sleep(next_tick(start, tick).saturating_duration_since(Instant::now()));
}
