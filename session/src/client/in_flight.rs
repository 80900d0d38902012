//! Batches that are planned, and those that were sent and not answered.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, OnceLock},
    time::Instant,
};

use tonic::Status;

use super::{
    answered_rows::{Offsets, RowDigest},
    log_index::OutgoingBatch,
};
use crate::wire::Batch;

/// Most batches that are sent and not answered.
pub(super) const MAX_IN_FLIGHT: usize = 16;

/// Most bytes of their rows and deltas. One batch is sent however long it is.
const MAX_BYTES: usize = 64 << 20;

/// A batch, and what became of it.
pub(super) struct Job {
    pub outgoing: OutgoingBatch,
    /// Bytes of its rows or of its deltas, whichever are more.
    pub bytes: usize,
    result: OnceLock<Result<Offsets, Failure>>,
}

/// Why a batch got no answer.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The contributor refused it.
    Refused(Status),
    /// It was not sent, because this happened before.
    NotSent(String),
}

impl Job {
    pub fn new(outgoing: OutgoingBatch, bytes: usize) -> Arc<Job> {
        Arc::new(Job { outgoing, bytes, result: OnceLock::new() })
    }

    /// Where its deltas are, or why there are none. None: not known yet.
    pub fn result(&self) -> Option<&Result<Offsets, Failure>> {
        self.result.get()
    }

    /// The module and digest of each row.
    fn rows(&self) -> impl Iterator<Item = (usize, RowDigest)> {
        let OutgoingBatch { batch, sets } = &self.outgoing;
        batch.calls.iter().flat_map(|call| {
            let digests = sets.get(call.rows as usize).into_iter().flat_map(|(_, digests)| digests);
            digests.map(|digest| (call.module as usize, *digest))
        })
    }
}

/// A batch that is in the log and has no answer there.
pub(super) struct SentBatch {
    /// With its sequence number.
    pub batch: Batch,
    pub job: Arc<Job>,
    pub since: Instant,
    /// Bytes on the wire.
    pub wire_bytes: usize,
}

/// The batches of a session that have no answer, oldest first.
pub(super) struct InFlight {
    sent: VecDeque<SentBatch>,
    planned: VecDeque<Arc<Job>>,
    /// The batch of each of their rows: a row is not sent twice.
    rows: HashMap<(usize, RowDigest), Arc<Job>>,
    bytes: usize,
    /// When the last batch was answered, or the first one sent.
    pub since: Instant,
}

impl InFlight {
    pub fn new() -> InFlight {
        InFlight {
            sent: VecDeque::new(),
            planned: VecDeque::new(),
            rows: HashMap::new(),
            bytes: 0,
            since: Instant::now(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.planned.is_empty()
    }

    /// The batches that were sent.
    pub fn sent(&self) -> &VecDeque<SentBatch> {
        &self.sent
    }

    /// The batch that has a row.
    pub fn with_row(&self, module: usize, digest: &RowDigest) -> Option<&Arc<Job>> {
        self.rows.get(&(module, *digest))
    }

    /// Rows of a module that have no answer.
    pub fn rows_of(&self, module: usize) -> usize {
        let jobs = self.sent.iter().map(|sent| &sent.job).chain(&self.planned);
        jobs.flat_map(|job| job.outgoing.batch.counts())
            .filter(|(other, _)| *other == module)
            .map(|(_, rows)| rows as usize)
            .sum()
    }

    /// Plans a batch.
    pub fn plan(&mut self, job: &Arc<Job>) {
        self.rows.extend(job.rows().map(|row| (row, Arc::clone(job))));
        self.planned.push_back(Arc::clone(job));
    }

    /// The next planned batch, if it may be sent now.
    pub fn next(&self) -> Option<Arc<Job>> {
        let next = self.planned.front()?;
        let has_room = self.sent.len() < MAX_IN_FLIGHT && self.bytes + next.bytes <= MAX_BYTES;
        (self.sent.is_empty() || has_room).then(|| Arc::clone(next))
    }

    /// The next planned batch was written to the log, with this number.
    pub fn add_sent(&mut self, batch: Batch) {
        let Some(job) = self.planned.pop_front() else { return };
        let now = Instant::now();
        if self.sent.is_empty() {
            self.since = now;
        }
        self.bytes += job.bytes;
        self.sent.push_back(SentBatch { batch, job, since: now, wire_bytes: 0 });
    }

    /// A batch that an earlier process wrote to the log.
    pub fn restore(&mut self, outgoing: OutgoingBatch) {
        let (batch, job) = (outgoing.batch.clone(), Job::new(outgoing, 0));
        self.plan(&job);
        self.add_sent(batch);
    }

    /// Notes how many bytes a batch that was sent has on the wire.
    pub fn set_wire_bytes(&mut self, at: usize, bytes: usize) {
        if let Some(sent) = self.sent.get_mut(at) {
            sent.wire_bytes = bytes;
        }
    }

    /// The oldest batch was answered.
    pub fn answered(&mut self, offsets: Offsets) {
        self.since = Instant::now();
        if let Some(sent) = self.sent.pop_front() {
            self.bytes -= sent.job.bytes;
            self.end(&sent.job, Ok(offsets));
        }
    }

    /// The oldest batch was refused. Those after it were not looked at, and are planned again.
    pub fn refused(&mut self, status: &Status) {
        let refused = self.sent.pop_front();
        while let Some(later) = self.sent.pop_back() {
            self.planned.push_front(later.job);
        }
        self.bytes = 0;
        if let Some(refused) = refused {
            self.end(&refused.job, Err(Failure::Refused(status.clone())));
        }
    }

    /// Gives up what was not sent.
    pub fn drop_planned(&mut self, why: &str) {
        while let Some(job) = self.planned.pop_front() {
            self.end(&job, Err(Failure::NotSent(why.to_string())));
        }
    }

    fn end(&mut self, job: &Job, result: Result<Offsets, Failure>) {
        for row in job.rows() {
            self.rows.remove(&row);
        }
        let _ = job.result.set(result);
    }
}
