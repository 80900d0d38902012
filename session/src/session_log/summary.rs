//! The totals of a log: rows, batches, and whether the session has ended.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
};

use super::{event::Event, file::read, header::Header};
use crate::{Error, frame_log};

/// The totals of a contributor's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The header of the log.
    pub header: Header,
    /// Rows that were served, per module.
    pub rows: Vec<u64>,
    /// Number of batches.
    pub batches: u64,
    /// Whether the session has ended.
    pub ended: bool,
}

/// Reads a contributor's log, of an adapter with this many modules, record by record.
///
/// # Errors
/// [`Error::Artifact`]: it is damaged, or no contributor's log.
pub fn contents(path: &Path, modules: usize) -> Result<Contents, Error> {
    let (mut rows, mut batches, mut ended) = (vec![0u64; modules], 0, false);
    let header = read(path, &mut |event| {
        let Some(batch) = event.into_served_batch(path, &mut ended)? else { return Ok(()) };
        for (module, count) in batch.counts() {
            let all = rows.get_mut(module).ok_or_else(|| {
                Error::file(path, "it has rows of a module that the adapter does not have")
            })?;
            *all = all.saturating_add(count);
        }
        batches += 1;
        Ok(())
    })?;
    Ok(Contents { header, rows, batches, ended })
}

/// What a user's log says was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Adapter id, hex.
    pub adapter_id: String,
    /// Session id, hex.
    pub session_id: String,
    /// Rows of all modules that were sent, or were about to be, without those that the contributor
    /// refused.
    pub rows: u64,
    /// The same per module, by index in the manifest, without modules that have no rows.
    pub per_module: BTreeMap<usize, u64>,
}

/// What a user's log says was sent; none if its writer died before the session began. Writes
/// nothing.
///
/// # Errors
/// [`Error::Artifact`]: it is damaged, or no user's log.
pub fn sent(path: &Path) -> Result<Option<Sent>, Error> {
    if frame_log::lacks_first_record(path)? {
        return Ok(None);
    }
    let mut per_module = BTreeMap::new();
    // Batches without an answer may still be refused.
    let mut unanswered = VecDeque::new();
    let mut count = |batch: Vec<(usize, u64)>| {
        for (module, rows) in batch.into_iter().filter(|(_, rows)| *rows > 0) {
            let all = per_module.entry(module).or_insert(0u64);
            *all = all.saturating_add(rows);
        }
    };
    let header = read(path, &mut |event| {
        match event {
            Event::Sent(batch) => unanswered.push_back(batch.counts().collect()),
            Event::Withdrawn => unanswered.clear(),
            Event::Answered(_) => count(unanswered.pop_front().unwrap_or_default()),
            Event::Ended => {}
            Event::Served { .. } => {
                return Err(Error::file(path, "the log of a contributor, not of a user"));
            }
        }
        Ok(())
    })?;
    unanswered.into_iter().for_each(count);
    let rows = per_module.values().fold(0, |all: u64, rows| all.saturating_add(*rows));
    Ok(Some(Sent {
        adapter_id: header.adapter_id.clone(),
        session_id: hex::encode(header.session),
        rows,
        per_module,
    }))
}
