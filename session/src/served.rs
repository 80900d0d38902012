//! How many rows an adapter has served, over all sessions and users, and after how many rows what
//! is known exactly.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use zklora_proof::{
    checked_manifest::CheckedManifest,
    manifest::{Module, TermKind},
};

use crate::{Error, ledger::Book, session_log};

/// Rows per module, in the order of the manifest: of everybody, and of each client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// Over all sessions and users.
    pub total: Vec<u64>,
    /// Of each client identity.
    pub clients: BTreeMap<String, Vec<u64>>,
}

impl Served {
    /// Counts the rows of a ledger, and of the logs of the sessions that it says are open.
    ///
    /// # Errors
    /// [`Error::File`] if such a log is gone or damaged: then what was served is not known.
    pub fn count(book: &Book, manifest: &CheckedManifest) -> Result<Served, Error> {
        let logs: Vec<_> = book.open_logs().collect();
        let modules = manifest.modules().len();
        let rows = logs
            .par_iter()
            .map(|(client, log)| Ok((*client, session_log::contents(log, modules)?.rows)));
        let rows = rows.collect::<Result<Vec<_>, Error>>()?;
        let mut served = Served::of_ended(book, manifest);
        for (client, rows) in rows {
            rows.iter().enumerate().for_each(|(module, rows)| served.add(client, module, *rows));
        }
        Ok(served)
    }

    /// The rows of the sessions that have ended.
    pub fn of_ended(book: &Book, manifest: &CheckedManifest) -> Served {
        let modules = manifest.modules();
        let index: HashMap<&str, usize> =
            modules.iter().enumerate().map(|(m, module)| (module.name.as_str(), m)).collect();
        let mut served = Served { total: vec![0; modules.len()], clients: BTreeMap::new() };
        for (client, rows) in book.rows() {
            let known =
                rows.iter().filter_map(|(name, rows)| Some((*index.get(name.as_str())?, *rows)));
            known.for_each(|(module, rows)| served.add(client, module, rows));
        }
        served
    }

    /// Adds rows of a module.
    pub fn add(&mut self, client: &str, module: usize, rows: u64) {
        let modules = self.total.len();
        let own = self.clients.entry(client.to_string()).or_insert_with(|| vec![0; modules]);
        for count in [&mut self.total[module], &mut own[module]] {
            *count = count.saturating_add(rows);
        }
    }

    /// Takes back rows that were added and did not leave.
    pub fn take_back(&mut self, client: &str, module: usize, rows: u64) {
        self.total[module] = self.total[module].saturating_sub(rows);
        if let Some(own) = self.clients.get_mut(client) {
            own[module] = own[module].saturating_sub(rows);
        }
    }

    /// Rows of the module that was served most.
    pub fn most(&self) -> u64 {
        self.total.iter().copied().max().unwrap_or(0)
    }

    /// Whether `more` rows per module stay within `limit`.
    ///
    /// # Errors
    /// [`Error::Budget`] names the module that would not.
    pub fn check(
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
                    "module `{}` would have served {rows} rows in all, the limit is {limit}: what rows give away adds up over all \
                     sessions and users (docs/security.md)",
                    manifest.modules()[*module].name
                )));
            }
        }
        Ok(())
    }
}

/// After how many rows a user can know a module's integers **exactly** (docs/security.md, "Exact
/// recovery").
///
/// Not what a thief needs who wants what the adapter does: that is known after 1 to 8 ordinary rows
/// a module, and `zklora leak` ([`zklora_runtime::leak`]) measures it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leakage {
    /// `B` up to a small unimodular change, by lattice reduction: slightly more than the rank. 1
    /// for a bias or an elementwise scale.
    pub some: u64,
    /// All of `A·B`, with packed inputs: d_in · a_bits / (x_bits + a_bits + log₂ d_in).
    pub packed: u64,
    /// All of `A·B`, with ordinary inputs, by lattice reduction: about 0.4 · d_in.
    pub lattice: u64,
    /// All of `A·B`, with ordinary inputs, by linear algebra: d_in.
    pub ordinary: u64,
}

impl Leakage {
    /// The figures of a module.
    pub fn of(module: &Module) -> Leakage {
        let low_rank = module.terms.iter().filter(|term| term.kind == TermKind::LowRank);
        let rank = low_rank.clone().map(|term| term.rank as u64).sum::<u64>();
        let d_in = low_rank
            .filter_map(|term| Some(module.inputs.get(term.input?)?.dim))
            .max()
            .unwrap_or(1) as u64;
        let one_sided = module.terms.iter().any(|term| term.kind != TermKind::LowRank);
        let bits = f64::from(module.x_bits + module.a_bits) + (d_in as f64).log2();
        let packed = (d_in as f64 * f64::from(module.a_bits) / bits).ceil() as u64;
        Leakage {
            some: if one_sided { 1 } else { rank + 1 },
            packed: packed.max(1),
            lattice: (d_in * 2).div_ceil(5),
            ordinary: d_in,
        }
    }
}

#[cfg(test)]
mod tests {
    use zklora_proof::manifest::{Input, Term};

    use super::*;

    #[test]
    fn the_figures_are_those_of_the_security_page() {
        let module = Module {
            a_bits: 14,
            b_bits: 14,
            d_out: 2304,
            delta_bits: 60,
            inputs: vec![Input { dim: 768, name: "x".into() }],
            name: "m".into(),
            scale_log2: 0,
            scaling: 1.0,
            terms: vec![Term {
                a: vec![],
                b: vec![],
                input: Some(0),
                kind: TermKind::LowRank,
                rank: 4,
                shift: 0,
            }],
            x_bits: 24,
        };
        assert_eq!(
            Leakage::of(&module),
            Leakage { some: 5, packed: 226, lattice: 308, ordinary: 768 }
        );
    }
}
