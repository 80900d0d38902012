//! A stream of batches and answers, and calls with a deadline.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    connection::{Client, Network},
    in_flight::MAX_IN_FLIGHT,
};
use crate::wire::{InferRequest, InferResponse, SessionRef, infer_request::Kind};

/// An open stream of batches. A task receives the answers, so that the contributor is never blocked
/// by a user that sends.
pub(super) struct Stream {
    batches: mpsc::Sender<InferRequest>,
    inbox: Arc<Inbox>,
    task: tokio::task::AbortHandle,
}

/// Answers that arrived and were not taken.
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
    /// Room for answers: a contributor that sends more than were asked for is not read.
    room: Semaphore,
}

#[derive(Default)]
struct State {
    arrived: VecDeque<Result<InferResponse, Status>>,
    /// Answers that were taken so far.
    taken: u64,
    /// Whether the stream is no longer used.
    is_closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes all that wait.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.notify_all();
        changed
    }

    /// Receives answers until the stream ends. The last entry says why it ended.
    async fn fill(&self, mut answers: Streaming<InferResponse>) {
        loop {
            // The semaphore is never closed.
            let Ok(room) = self.room.acquire().await else { return };
            room.forget();
            let answer = match answers.message().await {
                Ok(Some(answer)) => Ok(answer),
                Ok(None) => Err(Status::unavailable("it ended the stream")),
                Err(status) => Err(status),
            };
            let is_last = answer.is_err();
            self.change(|state| state.arrived.push_back(answer));
            if is_last {
                return;
            }
        }
    }
}

/// Waits for the next answer of a stream, without holding the session.
pub struct Waiter {
    inbox: Arc<Inbox>,
    /// Answers that were taken before.
    taken: u64,
    deadline: Instant,
}

impl Waiter {
    /// Returns when there is an answer to take, when another thread took one or closed the stream,
    /// or when the answer is overdue.
    pub fn wait(&self) {
        let mut state = self.inbox.lock();
        while state.arrived.is_empty() && state.taken == self.taken && !state.is_closed {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.inbox.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Stream {
    /// Starts a stream of this session.
    pub fn start(
        network: &Network,
        mut client: Client,
        session: SessionRef,
        timeout: Duration,
    ) -> Result<Stream, Status> {
        // The start, the batches in flight, and one that is sent again.
        let (batches, outgoing) = mpsc::channel(MAX_IN_FLIGHT + 2);
        let _ = batches.try_send(InferRequest { kind: Some(Kind::Start(session)) });
        let answers =
            network.wait(with_timeout(timeout, client.infer(ReceiverStream::new(outgoing))))?;
        let inbox = Arc::new(Inbox {
            state: Mutex::default(),
            changed: Condvar::new(),
            room: Semaphore::new(MAX_IN_FLIGHT + 1),
        });
        let filled = Arc::clone(&inbox);
        let task = network.spawn(async move { filled.fill(answers.into_inner()).await });
        Ok(Stream { batches, inbox, task })
    }

    /// Sends a batch without waiting. The caller has at most [`MAX_IN_FLIGHT`] batches without an
    /// answer, so there is room. If the stream has ended, its last answer says why.
    pub fn send(&self, request: InferRequest) {
        let _ = self.batches.try_send(request);
    }

    /// Takes the next answer, if there is one.
    pub fn take(&self) -> Option<Result<InferResponse, Status>> {
        let answer = self.inbox.change(|state| {
            let answer = state.arrived.pop_front();
            state.taken += u64::from(answer.is_some());
            answer
        })?;
        self.inbox.room.add_permits(1);
        Some(answer)
    }

    /// Waits for the next answer.
    pub fn waiter(&self, deadline: Instant) -> Waiter {
        let taken = self.inbox.lock().taken;
        Waiter { inbox: Arc::clone(&self.inbox), taken, deadline }
    }

    /// Sends a batch, of which no other is in flight, and receives its answer.
    pub fn call(&self, request: InferRequest, timeout: Duration) -> Result<InferResponse, Status> {
        self.send(request);
        self.waiter(Instant::now() + timeout).wait();
        self.take().unwrap_or_else(|| Err(no_answer(timeout)))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
        self.inbox.change(|state| state.is_closed = true);
    }
}

/// The result of a request, or `DEADLINE_EXCEEDED`.
pub(super) async fn with_timeout<T>(
    timeout: Duration,
    request: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::time::timeout(timeout, request).await.unwrap_or_else(|_| Err(no_answer(timeout)))
}

/// No answer came in time.
pub(super) fn no_answer(timeout: Duration) -> Status {
    Status::deadline_exceeded(format!("no answer within {} s", timeout.as_secs_f64()))
}
