//! Deltas for rows of the base model. Rows that were answered before are read from the log, and the
//! others are sent in batches.

use std::sync::Arc;

use zklora_artifacts::module_rows::ModuleRows;
use zklora_proof::rows::MAX_ROWS;

use super::{
    answered_rows::{Offsets, RowDigest, select},
    in_flight::Job,
    log_index::{OutgoingBatch, dims},
    stream::Waiter,
    user_session::UserSession,
};
use crate::{
    Error,
    batch::to_wire,
    wire::{Batch, Call},
};

/// A request for deltas, which other requests may follow before it has an answer.
pub struct DeltaRequest {
    /// The module of each call.
    modules: Vec<usize>,
    /// The rows of each call.
    digests: Vec<Arc<Vec<RowDigest>>>,
    /// Where the deltas are in the log of those rows that were answered before.
    found: Vec<Vec<Option<u64>>>,
    /// The batches that have its other rows.
    jobs: Vec<Arc<Job>>,
}

/// How far a request is.
pub enum DeltaStep {
    /// The deltas, `[N, d_out]` for each call.
    Deltas(Vec<Vec<i64>>),
    /// Not all answers have arrived: wait, and ask again.
    Waits(Waiter),
}

impl UserSession {
    /// The deltas of rows for some modules, `[N, d_out]` each. Rows that calls share (the same
    /// `Arc`) are sent once. Rows that were answered before are not sent.
    ///
    /// # Errors
    /// [`Error::Contributor`]: the contributor failed. Earlier answers are on disk.
    pub fn deltas(&mut self, calls: &[(usize, Arc<ModuleRows>)]) -> Result<Vec<Vec<i64>>, Error> {
        let request = self.request(calls)?;
        loop {
            match self.advance(&request)? {
                DeltaStep::Deltas(deltas) => return Ok(deltas),
                DeltaStep::Waits(waiter) => waiter.wait(),
            }
        }
    }

    /// Begins a request for the deltas of rows: what [`UserSession::deltas`] does, for several
    /// threads. Between two steps, other threads may use the session.
    ///
    /// # Errors
    /// The session takes no more rows.
    pub fn request(&mut self, calls: &[(usize, Arc<ModuleRows>)]) -> Result<DeltaRequest, Error> {
        if self.in_flight.is_empty() {
            self.remote.backoff.reset();
        }
        let mut known: Vec<(*const ModuleRows, Arc<Vec<RowDigest>>)> = Vec::new();
        let digests: Vec<Arc<Vec<RowDigest>>> = calls
            .iter()
            .map(|(module, rows)| {
                let same = known.iter().find(|(other, _)| std::ptr::eq(*other, Arc::as_ptr(rows)));
                let digests = same.map(|(_, digests)| Arc::clone(digests));
                digests.unwrap_or_else(|| {
                    let digests =
                        Arc::new(self.index.digests(rows, &dims(&self.remote.manifest, *module)));
                    known.push((Arc::as_ptr(rows), Arc::clone(&digests)));
                    digests
                })
            })
            .collect();
        // Found now, because the index may forget these rows for those that follow.
        let found = calls
            .iter()
            .zip(&digests)
            .map(|((module, _), digests)| {
                digests.iter().map(|digest| self.index.find(*module, digest)).collect()
            })
            .collect();
        let mut jobs = self.jobs_with(calls, &digests);
        for (outgoing, bytes) in self.batches(calls, &digests) {
            if self.ended {
                return Err(Error::input(format!(
                    "{}: the proof of this session was already requested, and the session does not \
                     have these rows: repeat the earlier run, or name another folder",
                    self.folder.display()
                )));
            }
            if !self.index.has_room_for(&outgoing, |module| self.in_flight.rows_of(module)) {
                return Err(Error::input(format!(
                    "{}: a session cannot have more than {MAX_ROWS} rows of a module: end it and \
                     begin another",
                    self.folder.display()
                )));
            }
            let job = Job::new(outgoing, bytes);
            self.in_flight.plan(&job);
            jobs.push(job);
        }
        let modules = calls.iter().map(|(module, _)| *module).collect();
        Ok(DeltaRequest { modules, digests, found, jobs })
    }

    /// Sends what can be sent, takes what has arrived, and returns the deltas of a request if all
    /// of them have.
    ///
    /// # Errors
    /// [`Error::Contributor`]: the contributor failed, or refused rows of the request.
    pub fn advance(&mut self, request: &DeltaRequest) -> Result<DeltaStep, Error> {
        let exchanged = self.exchange();
        let mut answered: Vec<&Offsets> = Vec::with_capacity(request.jobs.len());
        for job in &request.jobs {
            match job.result() {
                Some(Ok(offsets)) => answered.push(offsets),
                Some(Err(failure)) => return Err(self.failure(failure)),
                None => {
                    exchanged?;
                    let lost = || Error::Internal("a batch of a session was lost".into());
                    return self.waiter().map(DeltaStep::Waits).ok_or_else(lost);
                }
            }
        }
        let DeltaRequest { modules, digests, found, .. } = request;
        let mut out = Vec::with_capacity(modules.len());
        for ((module, digests), found) in modules.iter().zip(digests).zip(found) {
            let offset = |(digest, found): (&RowDigest, &Option<u64>)| {
                let of_job = |offsets: &&Offsets| offsets.get(&(*module, *digest)).copied();
                found.or_else(|| answered.iter().find_map(of_job))
            };
            let offsets: Option<Vec<u64>> = digests.iter().zip(found).map(offset).collect();
            let width = self.remote.manifest.modules()[*module].d_out;
            let missing = || Error::Internal("a row of an answered batch is not in the log".into());
            out.push(self.index.deltas(&self.log, width, &offsets.ok_or_else(missing)?)?);
        }
        Ok(DeltaStep::Deltas(out))
    }

    /// The batches without an answer that have rows of these calls.
    fn jobs_with(
        &self,
        calls: &[(usize, Arc<ModuleRows>)],
        digests: &[Arc<Vec<RowDigest>>],
    ) -> Vec<Arc<Job>> {
        let mut jobs: Vec<Arc<Job>> = Vec::new();
        if self.in_flight.is_empty() {
            return jobs;
        }
        for ((module, _), digests) in calls.iter().zip(digests) {
            for job in digests.iter().filter_map(|row| self.in_flight.with_row(*module, row)) {
                if !jobs.iter().any(|known| Arc::ptr_eq(known, job)) {
                    jobs.push(Arc::clone(job));
                }
            }
        }
        jobs
    }

    /// Rows that were not answered or sent yet, in batches within the contributor's limits. Also
    /// returns the bytes of each batch or of its deltas.
    fn batches(
        &mut self,
        calls: &[(usize, Arc<ModuleRows>)],
        digests: &[Arc<Vec<RowDigest>>],
    ) -> Vec<(OutgoingBatch, usize)> {
        // The modules of calls that share their rows.
        let mut sets: Vec<(Vec<usize>, usize)> = Vec::new();
        for (at, (module, rows)) in calls.iter().enumerate() {
            match sets.iter_mut().find(|(_, first)| Arc::ptr_eq(&calls[*first].1, rows)) {
                Some((modules, _)) => modules.push(*module),
                None => sets.push((vec![*module], at)),
            }
        }
        let mut batches: Vec<(OutgoingBatch, usize)> = Vec::new();
        let mut room = 0usize;
        for (modules, first) in sets {
            let (rows, digests) = (&calls[first].1, &digests[first]);
            let mut seen = std::collections::HashSet::new();
            let unknown = |digest: &RowDigest| {
                modules.iter().any(|m| {
                    self.index.find(*m, digest).is_none()
                        && self.in_flight.with_row(*m, digest).is_none()
                })
            };
            let missing: Vec<usize> = (0..digests.len())
                .filter(|row| unknown(&digests[*row]) && seen.insert(digests[*row]))
                .collect();
            self.statistics.reused += (digests.len() - missing.len()) * modules.len();
            let dims = dims(&self.remote.manifest, modules[0]);
            let outputs: usize =
                modules.iter().map(|m| self.remote.manifest.modules()[*m].d_out * 8).sum();
            let row_bytes = outputs.max(dims.iter().sum::<usize>() * 4 + 16).max(1);
            let most = self.remote.batch_bytes();
            let per_batch = (most / row_bytes).clamp(1, self.remote.batch_rows());
            for chunk in missing.chunks(per_batch) {
                let bytes = chunk.len() * row_bytes;
                if batches.is_empty() || bytes > room {
                    let empty = OutgoingBatch { batch: Batch::default(), sets: Vec::new() };
                    batches.push((empty, 0));
                    room = most;
                }
                room = room.saturating_sub(bytes);
                let Some((OutgoingBatch { batch, sets }, all)) = batches.last_mut() else {
                    continue;
                };
                *all += bytes;
                let set = batch.rows.len() as u32;
                let chosen = select(rows, &dims, chunk);
                batch.rows.push(to_wire(&chosen));
                sets.push((chosen, chunk.iter().map(|row| digests[*row]).collect()));
                batch.calls.extend(
                    modules.iter().map(|module| Call { module: *module as u32, rows: set }),
                );
                if chunk.len() == per_batch {
                    // The next chunk of these modules needs a new batch, because a batch calls a
                    // module once.
                    room = 0;
                }
            }
        }
        batches
    }
}
