//! Counting rows: how many an adapter has served, over all sessions and users.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use zklora_proof::checked_manifest::CheckedManifest;

use crate::{Error, ledger::LedgerIndex, session_log};

/// Rows per module, in the order of the manifest: in all, and for each client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowTotals {
    /// Over all sessions and users.
    pub total: Vec<u64>,
    /// For each client.
    pub clients: BTreeMap<String, Vec<u64>>,
}

impl RowTotals {
    /// Counts the rows of a ledger, and of the logs of its open sessions.
    ///
    /// # Errors
    /// [`Error::Artifact`]: a log is missing or damaged, so the rows are not known.
    pub fn count(index: &LedgerIndex, manifest: &CheckedManifest) -> Result<RowTotals, Error> {
        let logs: Vec<_> = index.open_logs().collect();
        let modules = manifest.modules().len();
        let rows = logs
            .par_iter()
            .map(|(client, log)| Ok((*client, session_log::contents(log, modules)?.rows)));
        let rows = rows.collect::<Result<Vec<_>, Error>>()?;
        let mut served = RowTotals::of_ended(index, manifest);
        for (client, rows) in rows {
            served.add_all(client, &rows);
        }
        Ok(served)
    }

    /// The rows of the sessions that have ended.
    pub fn of_ended(index: &LedgerIndex, manifest: &CheckedManifest) -> RowTotals {
        let modules = manifest.modules();
        let number: HashMap<&str, usize> =
            modules.iter().enumerate().map(|(m, module)| (module.name.as_str(), m)).collect();
        let mut served = RowTotals { total: vec![0; modules.len()], clients: BTreeMap::new() };
        for (client, rows) in index.rows() {
            let known =
                rows.iter().filter_map(|(name, rows)| Some((*number.get(name.as_str())?, *rows)));
            known.for_each(|(module, rows)| served.add(client, module, rows));
        }
        served
    }

    /// Adds rows of all modules.
    pub fn add_all(&mut self, client: &str, rows: &[u64]) {
        rows.iter().enumerate().for_each(|(module, rows)| self.add(client, module, *rows));
    }

    /// Adds rows of a module.
    pub fn add(&mut self, client: &str, module: usize, rows: u64) {
        let modules = self.total.len();
        let client_rows =
            self.clients.entry(client.to_string()).or_insert_with(|| vec![0; modules]);
        for count in [&mut self.total[module], &mut client_rows[module]] {
            *count = count.saturating_add(rows);
        }
    }

    /// Removes rows that were added and not served.
    pub fn subtract(&mut self, client: &str, module: usize, rows: u64) {
        self.total[module] = self.total[module].saturating_sub(rows);
        if let Some(client_rows) = self.clients.get_mut(client) {
            client_rows[module] = client_rows[module].saturating_sub(rows);
        }
    }

    /// Rows of the most served module.
    pub fn most(&self) -> u64 {
        self.total.iter().copied().max().unwrap_or(0)
    }

    /// Whether `more` rows per module stay within `limit`.
    ///
    /// # Errors
    /// [`Error::Budget`] names the module that would exceed it.
    pub fn check_limit(
        &self,
        manifest: &CheckedManifest,
        more: &[(usize, u64)],
        limit: Option<u64>,
    ) -> Result<(), Error> {
        let Some(limit) = limit else { return Ok(()) };
        for (module, rows) in more {
            let rows = self.total[*module].saturating_add(*rows);
            if rows > limit {
                return Err(Error::Budget(format!(
                    "module `{}` would have served {rows} rows in all, the limit is {limit}: rows \
                     leak more of the adapter over all sessions and users together \
                     (docs/security.md)",
                    manifest.modules()[*module].name
                )));
            }
        }
        Ok(())
    }
}
