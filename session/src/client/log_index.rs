//! The index of a user's log: which rows it has, and where their deltas are.
//!
//! The log holds the rows and the deltas. Memory holds a digest and an offset of the latest rows,
//! and the latest deltas. Deltas that are read for the base model are not checked against the
//! checksums of the log. The trace is written from a reading that is checked, and the verdict is
//! about the trace, so a byte that the disk changed ends in a refusal.

use std::{
    collections::VecDeque,
    fs,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use zklora_artifacts::{
    module_rows::ModuleRows,
    session_rows::SessionRows,
    trace_writer::{CompleteTrace, TraceWriter},
};
use zklora_proof::{checked_manifest::CheckedManifest, masks::os_bytes, rows::MAX_ROWS};

use super::{
    answered_rows::{self, AnsweredRows, Offsets, RowDigest},
    delta_cache::DeltaCache,
    log_writer::LogWriter,
};
use crate::{
    Error,
    batch::{parse, parse_answer},
    session_log::{self, Event},
    wire::{Batch, InferResponse},
};

/// Takes the index of a module in the manifest, rows of it, and their deltas.
type Visit<'a> = dyn FnMut(usize, &ModuleRows, &[i64]) -> Result<(), Error> + 'a;

/// A batch with its rows.
pub(super) struct OutgoingBatch {
    pub batch: Batch,
    /// The batch's sets of rows, and the digest of each row.
    pub sets: Vec<(Arc<ModuleRows>, Vec<RowDigest>)>,
}

/// Pairs the events of a user's log: each batch with its answer.
#[derive(Default)]
pub(super) struct AnsweredBatches {
    /// The batches that were sent and not answered, oldest first.
    pub sent: VecDeque<Batch>,
    /// Whether the proof was requested.
    pub ended: bool,
}

impl AnsweredBatches {
    /// Takes the next event. Returns a batch with its answer.
    pub fn next(
        &mut self,
        path: &Path,
        event: Event,
    ) -> Result<Option<(Batch, InferResponse)>, Error> {
        match (event, self.sent.is_empty()) {
            (Event::Sent(batch), _) if !self.ended => self.sent.push_back(batch),
            (Event::Answered(answer), false) => {
                return Ok(self.sent.pop_front().map(|batch| (batch, answer)));
            }
            // The oldest was refused, and those after it were not looked at.
            (Event::Withdrawn, false) => self.sent.clear(),
            (Event::Ended, true) => self.ended = true,
            _ => return Err(Error::file(path, "its events are not those of a user's session")),
        }
        Ok(None)
    }
}

/// Passes every answered batch of a log to `visit`, one after the other, so that memory is needed
/// for one.
pub(super) fn read_answered(
    path: &Path,
    visit: &mut dyn FnMut(Batch, InferResponse) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut batches = AnsweredBatches::default();
    session_log::read(path, &mut |event| match batches.next(path, event)? {
        Some((batch, answer)) => visit(batch, answer),
        None => Ok(()),
    })?;
    Ok(())
}

/// The index of a log.
pub(super) struct LogIndex {
    path: PathBuf,
    file: fs::File,
    /// The key of the row digests.
    key: zeroize::Zeroizing<[u8; 32]>,
    /// Rows of every module.
    counts: Vec<usize>,
    answered: AnsweredRows,
    cache: DeltaCache,
    /// Sequence number of the next batch.
    pub next: u64,
}

impl LogIndex {
    /// The index of an existing log, before its events are added.
    pub fn of(path: &Path, modules: usize) -> Result<LogIndex, Error> {
        Ok(LogIndex {
            path: path.to_path_buf(),
            file: fs::File::open(path).map_err(|e| Error::file(path, e))?,
            key: os_bytes()?,
            counts: vec![0; modules],
            answered: AnsweredRows::default(),
            cache: DeltaCache::default(),
            next: 0,
        })
    }

    /// Rows of every module that were answered.
    pub fn rows_per_module(&self) -> Vec<usize> {
        self.counts.clone()
    }

    /// Rows of all modules that were answered.
    pub fn rows(&self) -> usize {
        self.counts.iter().sum()
    }

    /// Where the deltas of a row of a module are in the log. None: it was not answered, or long
    /// ago.
    pub fn find(&self, module: usize, digest: &RowDigest) -> Option<u64> {
        self.answered.find(module, digest)
    }

    /// The digest of each row.
    pub fn digests(&self, rows: &ModuleRows, dims: &[usize]) -> Vec<RowDigest> {
        answered_rows::digests(&self.key, rows, dims)
    }

    /// Decodes the rows of a batch.
    pub fn outgoing(
        &self,
        batch: Batch,
        manifest: &CheckedManifest,
    ) -> Result<OutgoingBatch, String> {
        let calls = parse(&batch, manifest)?;
        let mut sets: Vec<Option<(Arc<ModuleRows>, Vec<RowDigest>)>> = vec![None; batch.rows.len()];
        for (call, on_wire) in calls.iter().zip(&batch.calls) {
            // `parse` checks that a call reads every set.
            sets[on_wire.rows as usize].get_or_insert_with(|| {
                (Arc::clone(&call.rows), self.digests(&call.rows, &dims(manifest, call.module)))
            });
        }
        Ok(OutgoingBatch { batch, sets: sets.into_iter().flatten().collect() })
    }

    /// Adds a batch, with the rows of its sets, and the deltas of its calls. `payload` is the
    /// offset of the answer's payload in the log. Returns where its deltas are.
    ///
    /// # Errors
    /// What is wrong with the batch.
    pub fn add(
        &mut self,
        batch: &Batch,
        sets: &[(Arc<ModuleRows>, Vec<RowDigest>)],
        answer: &InferResponse,
        deltas: Vec<Vec<i64>>,
        payload: u64,
    ) -> Result<Offsets, String> {
        if batch.sequence != self.next {
            return Err(format!(
                "batch {} follows where batch {} is expected",
                batch.sequence, self.next
            ));
        }
        if let Some(call) =
            batch.calls.iter().find(|call| !self.has_room(call.module as usize, sets, call.rows, 0))
        {
            return Err(format!(
                "batch {}: more rows of module {} than a session can have",
                batch.sequence, call.module
            ));
        }
        let mut offsets = Offsets::new();
        self.answered.make_room();
        for ((call, delta), offset) in
            batch.calls.iter().zip(deltas).zip(Event::delta_positions(answer, payload))
        {
            let (module, digests) = (call.module as usize, &sets[call.rows as usize].1);
            let bytes = delta.len() * 8 / digests.len().max(1);
            self.answered.push(module, digests, offset, bytes);
            let each = (offset..).step_by(bytes.max(1));
            offsets.extend(digests.iter().zip(each).map(|(row, at)| ((module, *row), at)));
            self.counts[module] += digests.len();
            self.cache.push(offset, delta);
        }
        self.next += 1;
        Ok(offsets)
    }

    fn has_room(
        &self,
        module: usize,
        sets: &[(Arc<ModuleRows>, Vec<RowDigest>)],
        set: u32,
        before: usize,
    ) -> bool {
        let more = sets[set as usize].1.len().saturating_add(before);
        self.counts[module].checked_add(more).is_some_and(|all| all <= MAX_ROWS)
    }

    /// Whether the session can have all rows of a batch, after so many rows of a module that have
    /// no answer yet.
    pub fn has_room_for(
        &self,
        OutgoingBatch { batch, sets }: &OutgoingBatch,
        before: impl Fn(usize) -> usize,
    ) -> bool {
        batch.calls.iter().all(|call| {
            let module = call.module as usize;
            self.has_room(module, sets, call.rows, before(module))
        })
    }

    /// The deltas at these offsets, each `width` wide.
    pub fn deltas(
        &self,
        log: &LogWriter,
        width: usize,
        offsets: &[u64],
    ) -> Result<Vec<i64>, Error> {
        let mut deltas = vec![0i64; offsets.len() * width];
        let (mut done, mut is_flushed) = (0, false);
        while done < offsets.len() {
            // Consecutive rows of one answer are read at once.
            let follows = |at: usize| {
                offsets.get(at) == Some(&(offsets[done] + ((at - done) * width * 8) as u64))
            };
            let run = 1 + (done + 1..).take_while(|at| follows(*at)).count();
            let out = &mut deltas[done * width..(done + run) * width];
            match self.cache.get(offsets[done], out.len()) {
                Some(known) => out.copy_from_slice(known),
                None => {
                    // The log writer may not have written it yet.
                    if !std::mem::replace(&mut is_flushed, true) {
                        log.flush()?;
                    }
                    self.read(offsets[done], out)?;
                }
            }
            done += run;
        }
        Ok(deltas)
    }

    /// Reads little-endian words of the log. (The curve library supports only little-endian
    /// machines.)
    fn read(&self, offset: u64, out: &mut [i64]) -> Result<(), Error> {
        let mut file = &self.file;
        let read = file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(bytemuck::cast_slice_mut(out)));
        read.map_err(|e| Error::file(&self.path, format!("cannot read deltas: {e}")))
    }

    /// Writes all rows and deltas as a trace beside `path`. The log must be flushed.
    pub fn write_trace(
        &self,
        path: &Path,
        session: [u8; 32],
        manifest: &CheckedManifest,
    ) -> Result<CompleteTrace, Error> {
        let counts = self.rows_per_module();
        let mut writer =
            TraceWriter::create(path, manifest.id(), session, manifest.modules(), &counts)?;
        self.each(manifest, &mut |module, rows, delta| Ok(writer.push(module, rows, delta)?))?;
        Ok(writer.complete()?)
    }

    /// All rows and deltas as a trace in memory. The log must be flushed.
    pub fn trace(
        &self,
        session: [u8; 32],
        manifest: &CheckedManifest,
    ) -> Result<SessionRows, Error> {
        let mut modules: Vec<ModuleRows> =
            manifest.modules().iter().map(ModuleRows::none).collect();
        self.each(manifest, &mut |module, rows, delta| {
            modules[module].extend(rows, delta);
            Ok(())
        })?;
        Ok(SessionRows { adapter: manifest.id(), session, modules })
    }

    fn each(&self, manifest: &CheckedManifest, visit: &mut Visit<'_>) -> Result<(), Error> {
        let refuse = |why: String| Error::file(&self.path, why);
        read_answered(&self.path, &mut |batch, answer| {
            let calls = parse(&batch, manifest).map_err(refuse)?;
            let deltas = parse_answer(&batch, &answer, manifest).map_err(refuse)?;
            calls
                .iter()
                .zip(&deltas)
                .try_for_each(|(call, delta)| visit(call.module, &call.rows, delta))
        })
    }
}

/// Features of each input of a module.
pub(super) fn dims(manifest: &CheckedManifest, module: usize) -> Vec<usize> {
    manifest.modules()[module].inputs.iter().map(|input| input.dim).collect()
}
