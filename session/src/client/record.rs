//! The user's record of a session: its log, which is read again piece by piece, and an index of it.
//!
//! The log holds the rows and the deltas; in memory are a digest and a number of each row, and the
//! deltas that came last. What is read for the base model is not checked against the log's
//! checksums then; the trace is made of a reading that is, and the verdict is about the trace: a
//! disk that changed a byte ends in a refusal.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use zklora_artifacts::{
    module_rows::ModuleRows, session_rows::SessionRows, trace_writer::TraceWriter,
};
use zklora_proof::{checked_manifest::CheckedManifest, masks::os_bytes};

use super::{
    known::{self, Known, RowDigest},
    log_writer::LogWriter,
    recent::Recent,
};
use crate::{
    Error,
    batch::{parse, parse_answer},
    session_log::{self, Event},
    wire::{Batch, InferResponse},
};

/// Takes rows of a module (index in the manifest), and their deltas.
type Visit<'a> = dyn FnMut(usize, &ModuleRows, &[i64]) -> Result<(), Error> + 'a;

/// A batch with the rows that it was made of.
pub(super) struct Outgoing {
    pub batch: Batch,
    /// The batch's sets of rows, and the digest of each row.
    pub sets: Vec<(Arc<ModuleRows>, Vec<RowDigest>)>,
}

/// The events of a user's log, in pairs of a batch and its answer.
#[derive(Default)]
pub(super) struct Pairs {
    /// The batch that was sent and is not answered.
    pub sent: Option<Batch>,
    /// Whether the proof was asked for.
    pub ended: bool,
}

impl Pairs {
    /// Takes the next event; gives a batch when it is answered.
    pub fn next(
        &mut self,
        path: &Path,
        event: Event,
    ) -> Result<Option<(Batch, InferResponse)>, Error> {
        match (event, self.sent.take()) {
            (Event::Sent(batch), None) => self.sent = Some(batch),
            (Event::Answered(answer), Some(batch)) => return Ok(Some((batch, answer))),
            (Event::Withdrawn, Some(_)) => {}
            (Event::Ended, None) => self.ended = true,
            _ => return Err(Error::file(path, "its events are not those of a user's session")),
        }
        Ok(None)
    }
}

/// Gives every answered batch of a log to `visit`, one after the other: memory is needed for one.
pub(super) fn answered(
    path: &Path,
    visit: &mut dyn FnMut(Batch, InferResponse) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut pairs = Pairs::default();
    session_log::read(path, &mut |event| match pairs.next(path, event)? {
        Some((batch, answer)) => visit(batch, answer),
        None => Ok(()),
    })?;
    Ok(())
}

/// What is in a session's log.
pub(super) struct Record {
    path: PathBuf,
    file: fs::File,
    /// Of the digests of rows.
    key: zeroize::Zeroizing<[u8; 32]>,
    modules: Vec<Known>,
    recent: Recent,
    /// Number of the next batch.
    pub next: u64,
}

impl Record {
    /// The record of a log that is there, before its events are known.
    pub fn of(path: &Path, modules: usize) -> Result<Record, Error> {
        Ok(Record {
            path: path.to_path_buf(),
            file: fs::File::open(path).map_err(|e| Error::file(path, e))?,
            key: os_bytes()?,
            modules: (0..modules).map(|_| Known::default()).collect(),
            recent: Recent::default(),
            next: 0,
        })
    }

    /// Rows of every module that were answered.
    pub fn rows_per_module(&self) -> Vec<usize> {
        self.modules.iter().map(Known::count).collect()
    }

    /// Rows of all modules that were answered.
    pub fn rows(&self) -> usize {
        self.modules.iter().map(Known::count).sum()
    }

    /// What is known of a module.
    pub fn of_module(&self, module: usize) -> &Known {
        &self.modules[module]
    }

    /// The digest of each row.
    pub fn digests(&self, rows: &ModuleRows, dims: &[usize]) -> Vec<RowDigest> {
        known::digests(&self.key, rows, dims)
    }

    /// A batch of the log, with its rows.
    pub fn outgoing(&self, batch: Batch, manifest: &CheckedManifest) -> Result<Outgoing, String> {
        let calls = parse(&batch, manifest)?;
        let mut sets: Vec<Option<(Arc<ModuleRows>, Vec<RowDigest>)>> = vec![None; batch.rows.len()];
        for (call, on_wire) in calls.iter().zip(&batch.calls) {
            // Every set is read by a call: `parse` sees to it.
            sets[on_wire.rows as usize].get_or_insert_with(|| {
                (Arc::clone(&call.rows), self.digests(&call.rows, &dims(manifest, call.module)))
            });
        }
        Ok(Outgoing { batch, sets: sets.into_iter().flatten().collect() })
    }

    /// Adds a batch and the deltas of its calls; `payload` is the place of the answer's record in
    /// the log.
    ///
    /// # Errors
    /// What is wrong with the batch.
    pub fn remember(
        &mut self,
        Outgoing { batch, sets }: &Outgoing,
        answer: &InferResponse,
        deltas: Vec<Vec<i64>>,
        payload: u64,
    ) -> Result<(), String> {
        if batch.sequence != self.next {
            return Err(format!(
                "batch {} is recorded where {} is next",
                batch.sequence, self.next
            ));
        }
        if let Some(call) =
            batch.calls.iter().find(|call| !self.has_room(call.module as usize, sets, call.rows))
        {
            return Err(format!(
                "batch {}: more rows of module {} than can be proven",
                batch.sequence, call.module
            ));
        }
        for ((call, delta), place) in
            batch.calls.iter().zip(deltas).zip(Event::delta_places(answer, payload))
        {
            let module = call.module as usize;
            self.recent.push((module, self.modules[module].answers()), delta);
            self.modules[module].push(&sets[call.rows as usize].1, place);
        }
        self.next += 1;
        Ok(())
    }

    fn has_room(
        &self,
        module: usize,
        sets: &[(Arc<ModuleRows>, Vec<RowDigest>)],
        set: u32,
    ) -> bool {
        self.modules[module].has_room(sets[set as usize].1.len())
    }

    /// Whether all rows of a batch can be proven with those that there are.
    pub fn has_room_for(&self, Outgoing { batch, sets }: &Outgoing) -> bool {
        batch.calls.iter().all(|call| self.has_room(call.module as usize, sets, call.rows))
    }

    /// The deltas of rows of a module, each `width` wide; nothing if a row was not answered.
    pub fn deltas(
        &self,
        log: &LogWriter,
        module: usize,
        width: usize,
        digests: &[RowDigest],
    ) -> Result<Option<Vec<i64>>, Error> {
        let known = &self.modules[module];
        let mut deltas = vec![0i64; digests.len() * width];
        let Some(rows) =
            digests.iter().map(|digest| known.row(digest)).collect::<Option<Vec<u32>>>()
        else {
            return Ok(None);
        };
        let (mut done, mut is_flushed) = (0, false);
        while done < rows.len() {
            let (answer, first) = known.answer_of(rows[done]);
            // Rows that follow each other in one answer are read at once.
            let follows = |at: usize| {
                rows.get(at).is_some_and(|row| known.answer_of(*row) == (answer, first + at - done))
            };
            let run = 1 + (done + 1..).take_while(|at| follows(*at)).count();
            let out = &mut deltas[done * width..(done + run) * width];
            match self.recent.get((module, answer)) {
                Some(all) => out.copy_from_slice(&all[first * width..(first + run) * width]),
                None => {
                    // It may not have been written yet.
                    if !std::mem::replace(&mut is_flushed, true) {
                        log.flush()?;
                    }
                    self.read(known.place(answer) + (first * width * 8) as u64, out)?;
                }
            }
            done += run;
        }
        Ok(Some(deltas))
    }

    /// Little-endian words of the log. (The curve library compiles on little-endian machines only.)
    fn read(&self, place: u64, out: &mut [i64]) -> Result<(), Error> {
        let mut file = &self.file;
        let read = file
            .seek(SeekFrom::Start(place))
            .and_then(|_| file.read_exact(bytemuck::cast_slice_mut(out)));
        read.map_err(|e| Error::file(&self.path, format!("deltas cannot be read again: {e}")))
    }

    /// Writes everything into a trace file. What is in the log has to be in the file.
    pub fn write_trace(
        &self,
        path: &Path,
        session: [u8; 32],
        manifest: &CheckedManifest,
    ) -> Result<(), Error> {
        let counts = self.rows_per_module();
        let mut writer =
            TraceWriter::create(path, manifest.id(), session, manifest.modules(), &counts)?;
        self.each(manifest, &mut |module, rows, delta| Ok(writer.push(module, rows, delta)?))?;
        Ok(writer.finish()?)
    }

    /// Everything, in memory. What is in the log has to be in the file.
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
        answered(&self.path, &mut |batch, answer| {
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
