//! Deltas for rows of the base model. Rows that were answered before are read from the log, and the
//! others are sent in batches.

use std::sync::Arc;

use zklora_artifacts::module_rows::ModuleRows;
use zklora_proof::rows::MAX_ROWS;

use super::{
    answered_rows::{RowDigest, select},
    log_index::{OutgoingBatch, dims},
    user_session::UserSession,
};
use crate::{
    Error,
    batch::to_wire,
    session_log::Event,
    wire::{Batch, Call},
};

impl UserSession {
    /// The deltas of rows for some modules, `[N, d_out]` each. Rows that calls share (the same
    /// `Arc`) are sent once. Rows that were answered before are not sent.
    ///
    /// # Errors
    /// [`Error::Contributor`]: the contributor failed. Earlier answers are on disk.
    pub fn deltas(&mut self, calls: &[(usize, Arc<ModuleRows>)]) -> Result<Vec<Vec<i64>>, Error> {
        self.resolve_pending()?;
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
        let mut found: Vec<Vec<Option<u64>>> = calls
            .iter()
            .zip(&digests)
            .map(|((module, _), digests)| self.find_all(*module, digests))
            .collect();
        for mut outgoing in self.batches(calls, &digests) {
            if self.ended {
                return Err(Error::input(format!(
                    "{}: the proof of this session was already requested, and the session does not \
                     have these rows: repeat the earlier run, or name another folder",
                    self.folder.display()
                )));
            }
            if !self.index.has_room_for(&outgoing) {
                return Err(Error::input(format!(
                    "{}: a session cannot have more than {MAX_ROWS} rows of a module: end it and \
                     begin another",
                    self.folder.display()
                )));
            }
            outgoing.batch.sequence = self.index.next;
            self.log.append(Event::Sent(outgoing.batch.clone()))?;
            let outgoing = Arc::new(outgoing);
            self.pending = Some(Arc::clone(&outgoing));
            self.exchange(&outgoing)?;
            for (((module, _), digests), found) in calls.iter().zip(&digests).zip(&mut found) {
                if outgoing.batch.calls.iter().any(|call| call.module as usize == *module) {
                    let missing = digests.iter().zip(found).filter(|(_, found)| found.is_none());
                    missing.for_each(|(digest, found)| *found = self.index.find(*module, digest));
                }
            }
        }
        let mut out = Vec::with_capacity(calls.len());
        for ((module, _), found) in calls.iter().zip(found) {
            let width = self.remote.manifest.modules()[*module].d_out;
            let missing = || Error::Internal("a row of an answered batch is not in the log".into());
            let offsets = found.into_iter().collect::<Option<Vec<u64>>>().ok_or_else(missing)?;
            out.push(self.index.deltas(&self.log, width, &offsets)?);
        }
        Ok(out)
    }

    fn find_all(&self, module: usize, digests: &[RowDigest]) -> Vec<Option<u64>> {
        digests.iter().map(|digest| self.index.find(module, digest)).collect()
    }

    /// Rows that were not answered yet, in batches within the contributor's limits.
    fn batches(
        &mut self,
        calls: &[(usize, Arc<ModuleRows>)],
        digests: &[Arc<Vec<RowDigest>>],
    ) -> Vec<OutgoingBatch> {
        // The modules of calls that share their rows.
        let mut sets: Vec<(Vec<usize>, usize)> = Vec::new();
        for (at, (module, rows)) in calls.iter().enumerate() {
            match sets.iter_mut().find(|(_, first)| Arc::ptr_eq(&calls[*first].1, rows)) {
                Some((modules, _)) => modules.push(*module),
                None => sets.push((vec![*module], at)),
            }
        }
        let mut batches: Vec<OutgoingBatch> = Vec::new();
        let mut room = 0usize;
        for (modules, first) in sets {
            let (rows, digests) = (&calls[first].1, &digests[first]);
            let mut seen = std::collections::HashSet::new();
            let unknown =
                |digest: &RowDigest| modules.iter().any(|m| self.index.find(*m, digest).is_none());
            let missing: Vec<usize> = (0..digests.len())
                .filter(|row| unknown(&digests[*row]) && seen.insert(digests[*row]))
                .collect();
            self.statistics.reused += (digests.len() - missing.len()) * modules.len();
            let dims = dims(&self.remote.manifest, modules[0]);
            let outputs: usize =
                modules.iter().map(|m| self.remote.manifest.modules()[*m].d_out * 8).sum();
            let row_bytes = outputs.max(dims.iter().sum::<usize>() * 4 + 16).max(1);
            // A tenth is left for the encoding.
            let most = self.remote.message_bytes() / 10 * 9;
            let per_batch = (most / row_bytes).clamp(1, self.remote.batch_rows());
            for chunk in missing.chunks(per_batch) {
                let bytes = chunk.len() * row_bytes;
                if batches.is_empty() || bytes > room {
                    batches.push(OutgoingBatch { batch: Batch::default(), sets: Vec::new() });
                    room = most;
                }
                room = room.saturating_sub(bytes);
                let Some(OutgoingBatch { batch, sets }) = batches.last_mut() else { continue };
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
