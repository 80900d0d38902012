//! The adapter that a process serves: its artifacts, and its weights in the layout of
//! [`crate::deltas`].

use std::{ops::Deref, sync::OnceLock};

use zklora_artifacts::{folder::Artifacts, module_rows::ModuleRows};

use crate::{batch, deltas::Deltas};

/// An adapter that computes deltas.
pub struct ServedAdapter {
    artifacts: Artifacts,
    deltas: OnceLock<Deltas>,
}

impl ServedAdapter {
    /// The weights are laid out when the first rows arrive.
    pub fn new(artifacts: Artifacts) -> ServedAdapter {
        ServedAdapter { artifacts, deltas: OnceLock::new() }
    }

    /// The deltas of rows of module `m`, which must fit it: `[N, d_out]`.
    pub fn compute(&self, m: usize, rows: &ModuleRows) -> Vec<i64> {
        let (modules, weights) = (self.artifacts.manifest.modules(), &self.artifacts.weights);
        let deltas = self.deltas.get_or_init(|| Deltas::new(modules, weights));
        deltas.compute(modules, weights, m, rows)
    }

    /// The deltas of each call of a batch.
    pub fn compute_calls(&self, calls: &[batch::Call]) -> Vec<Vec<i64>> {
        calls.iter().map(|call| self.compute(call.module, &call.rows)).collect()
    }
}

impl Deref for ServedAdapter {
    type Target = Artifacts;

    fn deref(&self) -> &Artifacts {
        &self.artifacts
    }
}
