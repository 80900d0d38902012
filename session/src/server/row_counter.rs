//! The rows that a server has served. They are reserved against the budget before deltas are
//! computed, and entered in the ledger when a session begins and ends.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tonic::Status;
use zklora_proof::{checked_manifest::CheckedManifest, trace::TraceDigest};

use super::{
    limits::Limits,
    metrics::{Metrics, RefusalCause},
    refusals::used_before,
};
use crate::{
    Error,
    ledger::{Entry, Ledger, LedgerIndex, Rows},
    row_totals::RowTotals,
};

/// The locked ledger, and the rows that were served.
pub(super) struct RowCounter {
    inner: Mutex<(Ledger, RowTotals)>,
    /// Counters for the operator, which change with the rows.
    pub metrics: Arc<Metrics>,
}

impl RowCounter {
    /// `served` is what the ledger and the logs that it names add up to.
    pub fn new(ledger: Ledger, served: RowTotals, metrics: Arc<Metrics>) -> RowCounter {
        RowCounter { inner: Mutex::new((ledger, served)), metrics }
    }

    fn lock(&self) -> MutexGuard<'_, (Ledger, RowTotals)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows served so far.
    pub fn served(&self) -> RowTotals {
        self.lock().1.clone()
    }

    /// Rows of each module, and rows of all modules of each client.
    pub fn totals(&self) -> (Vec<u64>, Vec<(String, u64)>) {
        let inner = self.lock();
        let sum = |rows: &Vec<u64>| rows.iter().fold(0, |all: u64, rows| all.saturating_add(*rows));
        let clients = inner.1.clients.iter().map(|(client, rows)| (client.clone(), sum(rows)));
        (inner.1.total.clone(), clients.collect())
    }

    /// Reads the ledger's index. No rows are counted meanwhile.
    pub fn with_index<T>(&self, read: impl FnOnce(&LedgerIndex) -> T) -> T {
        read(self.lock().0.index())
    }

    /// Counts rows that are about to be served, if the budget allows them.
    pub fn reserve<'a>(
        &'a self,
        client: &'a str,
        more: &'a [(usize, u64)],
        manifest: &CheckedManifest,
        limits: &Limits,
    ) -> Result<RowReservation<'a>, Status> {
        let mut inner = self.lock();
        inner
            .1
            .check_limit(manifest, more, limits.rows.limit())
            .map_err(|e| RefusalCause::Budget.mark(Status::resource_exhausted(e.to_string())))?;
        more.iter().for_each(|(module, rows)| inner.1.add(client, *module, *rows));
        Ok(RowReservation { counter: self, client, more, committed: false })
    }

    /// Enters a session in the ledger before its first row is served. Does nothing if the ledger
    /// has it already.
    ///
    /// # Errors
    /// [`Error::Reused`]: the ledger has the id with another log, or as ended.
    pub fn record_opened(&self, id: &[u8; 32], client: &str, log: &Path) -> Result<(), Error> {
        let mut inner = self.lock();
        // The server died, or the disk was full, between the ledger's line and the first batch.
        let is_known = matches!(
            inner.0.index().by_id(id),
            [one] if one.is_open() && one.log.as_deref() == Some(log)
        );
        if is_known {
            return Ok(());
        }
        inner.0.append(Entry::opened(id, client, log))?;
        self.metrics.open.inc();
        Ok(())
    }

    /// Enters the end of a session in the ledger. Does nothing if the ledger has it already.
    pub fn record_ended(
        &self,
        id: &[u8; 32],
        client: &str,
        log: &Path,
        trace: TraceDigest,
        rows: Rows,
    ) -> Result<(), Error> {
        let mut inner = self.lock();
        let is_known = inner.0.index().by_id(id).iter().any(|known| {
            !known.is_open() && known.log.as_deref() == Some(log) && known.trace == Some(trace)
        });
        if is_known {
            return Ok(());
        }
        inner.0.append(Entry::ended(id, client, log, trace, rows))
    }

    /// Whether a session of this id may begin, or resume with the log at `path`: the ledger has no
    /// session of this id, or only one with that log.
    pub fn check_id(&self, id: &[u8; 32], path: &Path) -> Result<(), Status> {
        self.with_index(|index| match index.by_id(id) {
            [] => Ok(()),
            [one] if one.log.as_deref() == Some(path) && !one.abandoned && path.is_file() => Ok(()),
            _ => Err(used_before()),
        })
    }
}

/// Rows that were counted and not yet served. Dropping it gives them back, unless it was committed.
pub(super) struct RowReservation<'a> {
    counter: &'a RowCounter,
    client: &'a str,
    more: &'a [(usize, u64)],
    committed: bool,
}

impl RowReservation<'_> {
    /// The rows are on disk and are about to be answered.
    pub fn commit(mut self) {
        self.committed = true;
    }
}

impl Drop for RowReservation<'_> {
    fn drop(&mut self) {
        if !self.committed {
            let mut inner = self.counter.lock();
            self.more
                .iter()
                .for_each(|(module, rows)| inner.1.subtract(self.client, *module, *rows));
        }
    }
}
