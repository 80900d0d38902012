//! Batches of a session: each is checked, counted, computed and logged, and only then answered.
//! Also the end of a session, after which it takes no batch.

use std::sync::atomic::Ordering;

use tonic::Status;
use zklora_artifacts::folder::Artifacts;

use super::{
    batch_limits::{check_batch_size, check_session_size},
    limits::Limits,
    metrics::RefusalCause,
    refusals::{cannot_write, no_further_rows, superseded},
    row_counter::RowCounter,
    row_service::RowService,
    session::{Logged, Session, Stage},
};
use crate::{
    Error,
    adapter::ServedAdapter,
    batch::{self, answer_digest},
    session_log::{Event, Header, SessionLog},
    wire::Batch,
};

impl Session {
    /// Answers a batch: checks it, counts its rows, computes the deltas, logs both, and only then
    /// returns the deltas of each call.
    pub fn serve_batch(
        &self,
        stream: u64,
        batch: Batch,
        adapter: &ServedAdapter,
        row_counter: &RowCounter,
        limits: &Limits,
    ) -> Result<Vec<Vec<i64>>, Status> {
        let calls = batch::parse(&batch, &adapter.manifest)
            .map_err(|why| Status::invalid_argument(format!("batch {}: {why}", batch.sequence)))?;
        let digest = batch::digest(&batch);
        let mut logged = self.lock();
        if !self.is_attached(stream) {
            return Err(superseded());
        }
        let next = logged.batches;
        match logged.digest_of(batch.sequence) {
            Some(known) if *known == digest => {
                return Ok(adapter.compute_calls(&calls));
            }
            Some(_) => {
                return Err(Status::failed_precondition(format!(
                    "batch {} was sent before with other content: repeat a batch byte for byte",
                    batch.sequence
                )));
            }
            None if batch.sequence < next => {
                return Err(Status::failed_precondition(format!(
                    "batch {} was answered long ago, this server has {next}: repeat only the last \
                     batch",
                    batch.sequence
                )));
            }
            None if self.stage() != Stage::Open => {
                return Err(Status::failed_precondition(
                    "this session has ended: open another one",
                ));
            }
            None if batch.sequence != next => {
                let why = format!("batch {} came, expected batch {next}", batch.sequence);
                return Err(RefusalCause::State.mark(Status::out_of_range(why)));
            }
            None if limits.rows == RowService::Off => return Err(no_further_rows()),
            None => {}
        }
        // After the comparison with earlier batches: those that were counted under other limits
        // are answered again.
        check_batch_size(&batch, adapter, limits)?;
        let more: Vec<(usize, u64)> = batch.counts().collect();
        check_session_size(&logged.rows, &more, adapter, limits)?;
        let reservation = row_counter.reserve(&self.client, &more, &adapter.manifest, limits)?;
        let (sequence, deltas) = (batch.sequence, adapter.compute_calls(&calls));
        let answer = answer_digest(sequence, &deltas);
        self.write(&mut logged, Event::Served { answer, batch }, adapter, row_counter)?;
        reservation.commit();
        if sequence == 0 {
            let rows: u64 = more.iter().map(|(_, rows)| rows).sum();
            tracing::info!(session = self.name(), client = self.client, rows, "began");
        }
        logged.add(digest, more);
        self.next.store(logged.batches, Ordering::Release);
        Ok(deltas)
    }

    /// Ends the session, if `reserve` finds a place in the queue for its proof. None: it had ended
    /// before.
    pub fn end<P>(
        &self,
        sequence: u64,
        artifacts: &Artifacts,
        row_counter: &RowCounter,
        reserve: impl FnOnce() -> Result<P, Status>,
    ) -> Result<Option<P>, Status> {
        let mut logged = self.lock();
        let next = logged.batches;
        if self.stage() != Stage::Open {
            return Ok(None);
        }
        if sequence != next {
            return Err(Status::failed_precondition(format!(
                "you count {sequence} batches, this server counts {next}: send the missing ones, \
                 or open the session again"
            )));
        }
        if next == 0 {
            return Err(Status::failed_precondition(
                "the session has no rows: there is nothing to prove",
            ));
        }
        let slot = reserve()?;
        self.write(&mut logged, Event::Ended, artifacts, row_counter)?;
        logged.log = None;
        // While the lock is held, so that no second caller ends the session again.
        self.set_stage(Stage::Queued);
        row_counter.metrics.open.dec();
        Ok(Some(slot))
    }

    fn write(
        &self,
        logged: &mut Logged,
        event: Event,
        artifacts: &Artifacts,
        row_counter: &RowCounter,
    ) -> Result<(), Status> {
        let batches = logged.batches;
        let written = match &mut logged.log {
            Some(log) => append(log, &event),
            none => self
                .open_log(batches, artifacts, row_counter)
                .and_then(|log| append(none.insert(log), &event)),
        };
        written.map_err(|e| {
            // The next write reads the file again before it appends.
            logged.log = None;
            if let Error::Reused(_) = e {
                return RefusalCause::ReusedId.mark(Status::failed_precondition(e.to_string()));
            }
            cannot_write(&self.name(), &e)
        })
    }

    /// Opens the log, which must hold this many batches.
    fn open_log(
        &self,
        batches: u64,
        artifacts: &Artifacts,
        row_counter: &RowCounter,
    ) -> Result<SessionLog, Error> {
        let path = self.log_path();
        // Only a session without rows may lack a log. A second log would count and prove less
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
                    "the log says that the session has ended, but it is open in this server: \
                     restart the server",
                )),
            })?;
            if found != batches {
                return Err(Error::file(
                    &path,
                    format!(
                        "the log holds {found} batches, but {batches} were served: restore the \
                         file, then restart the server"
                    ),
                ));
            }
            log
        };
        if batches == 0 {
            // After the log exists: the ledger must not name a missing log. Before any row is
            // logged: the ledger names every log that has rows.
            row_counter.record_opened(&self.id, &self.client, &path)?;
        }
        Ok(log)
    }
}

/// The end of a session is synced to the disk, with all records before it: the ledger's line about
/// the rows must not outlive them.
fn append(log: &mut SessionLog, event: &Event) -> Result<(), Error> {
    if *event == Event::Ended { log.append_to_disk(event) } else { log.append(event) }
}
