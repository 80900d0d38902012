//! The adapter that a process serves: its artifacts, and its weights laid out for many rows.

use std::{ops::Deref, sync::OnceLock};

use zklora_artifacts::{folder::Artifacts, module_rows::ModuleRows};

use crate::deltas::Deltas;

/// An adapter that is served.
pub struct ServedAdapter {
    artifacts: Artifacts,
    deltas: OnceLock<Deltas>,
}

impl ServedAdapter {
    /// The weights are laid out when the first rows come.
    pub fn new(artifacts: Artifacts) -> ServedAdapter {
        ServedAdapter { artifacts, deltas: OnceLock::new() }
    }

    /// The deltas of rows of module `m` that fit it: `[N, d_out]`.
    pub fn compute(&self, m: usize, rows: &ModuleRows) -> Vec<i64> {
        let (modules, weights) = (self.artifacts.manifest.modules(), &self.artifacts.weights);
        let deltas = self.deltas.get_or_init(|| Deltas::new(modules, weights));
        deltas.compute(modules, weights, m, rows)
    }
}

impl Deref for ServedAdapter {
    type Target = Artifacts;

    fn deref(&self) -> &Artifacts {
        &self.artifacts
    }
}
