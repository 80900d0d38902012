//! The queue of sessions that wait for their proof: one of each client in turn.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tonic::Status;

use super::{
    fair_queue::{FairQueue, Schedulable},
    session::{Session, Stage},
};
use crate::{Error, proof_attempts};

/// The delay after a proof that failed because of the disk. It doubles each time, up to the limit.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(10);

/// A session that waits.
pub(super) struct Job {
    pub session: Arc<Session>,
    not_before: Instant,
    /// The delay after the next failure of the disk.
    retry_delay: Duration,
}

impl Schedulable for Job {
    fn client(&self) -> &str {
        &self.session.client
    }

    fn not_before(&self) -> Instant {
        self.not_before
    }
}

#[derive(Default)]
struct Queue {
    waiting: FairQueue<Job>,
    /// The session that is being proven, and its number of attempts before this one.
    current: Option<(Arc<Session>, u32)>,
    stopping: bool,
    /// Whether the thread has ended and dropped its state.
    ended: bool,
}

/// A slot in the queue for a session that is about to end. Drop it when the session is queued, or
/// will not be.
pub(super) struct QueueSlot {
    queue: Arc<ProofQueue>,
    client: String,
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        self.queue.lock().waiting.release(&self.client);
    }
}

/// The queue of sessions that wait for their proof.
#[derive(Default)]
pub(super) struct ProofQueue {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl ProofQueue {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a slot.
    ///
    /// # Errors
    /// `UNAVAILABLE`: `most` sessions of this client wait already.
    pub fn reserve(self: &Arc<ProofQueue>, client: &str, most: usize) -> Result<QueueSlot, Status> {
        let mut queue = self.lock();
        let current = queue.current.as_ref().is_some_and(|(session, _)| session.client == client);
        if queue.waiting.len_of(client) + usize::from(current) >= most {
            return Err(Status::unavailable(format!(
                "{most} sessions of yours wait for their proof, which is the limit: this one \
                 stays open, try again later"
            )));
        }
        queue.waiting.reserve(client);
        Ok(QueueSlot { queue: Arc::clone(self), client: client.to_string() })
    }

    /// Queues a session that has ended behind the others of its client.
    pub fn enqueue(&self, session: Arc<Session>) {
        let attempts = proof_attempts::read(session.folder(), &session.id);
        let not_before = Instant::now() + proof_attempts::delay(attempts);
        self.push(Job { session, not_before, retry_delay: FIRST_RETRY_DELAY });
    }

    /// Queues a job again after a failure of the disk, and returns the delay until its next
    /// attempt.
    pub fn retry(&self, job: Job) -> Duration {
        let delay = job.retry_delay;
        let not_before = Instant::now() + delay;
        let retry_delay = (delay * 2).min(MAX_RETRY_DELAY);
        self.push(Job { session: job.session, not_before, retry_delay });
        delay
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

    /// The number of waiting sessions, and whether one is being proven.
    pub fn length(&self) -> (usize, bool) {
        let queue = self.lock();
        (queue.waiting.len(), queue.current.is_some())
    }

    /// Takes the next job that may start, and waits for one. None: the server stops.
    pub fn next(&self) -> Option<Job> {
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
                .earliest_start()
                .map_or(MAX_RETRY_DELAY, |at| at.saturating_duration_since(now));
            queue =
                self.changed.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Begins an attempt, which is on disk while it lasts. False: the server stops.
    pub fn begin_attempt(&self, session: &Arc<Session>) -> Result<bool, Error> {
        let before = proof_attempts::read(session.folder(), &session.id);
        // Both under one lock: `stop` takes the attempt back.
        let mut queue = self.lock();
        if queue.stopping {
            return Ok(false);
        }
        proof_attempts::write(session.folder(), &session.id, before + 1)?;
        queue.current = Some((Arc::clone(session), before));
        Ok(true)
    }

    /// Ends an attempt that the server survived, whatever came of it.
    pub fn end_attempt(&self, session: &Session) {
        self.lock().current = None;
        // If the disk does not take this, one attempt too many is counted.
        let _ = proof_attempts::write(session.folder(), &session.id, 0);
    }

    /// Begins no further session. The attempt under way does not count, because it did not kill
    /// the server.
    pub fn stop(&self) {
        let mut queue = self.lock();
        queue.stopping = true;
        if let Some((session, before)) = &queue.current {
            let _ = proof_attempts::write(session.folder(), &session.id, *before);
        }
        self.changed.notify_all();
    }

    /// The thread has ended.
    pub fn set_ended(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// After [`ProofQueue::stop`]: waits until the thread has ended, at most this long.
    pub fn wait_for_end(&self, most: Duration) {
        let queue = self.lock();
        let waited = self.changed.wait_timeout_while(queue, most, |queue| !queue.ended);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}
