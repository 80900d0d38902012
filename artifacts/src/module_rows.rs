//! The rows of one module of a session, in memory.

use zklora_proof::manifest::Module;

/// The rows of one module. [`zklora_proof::rows::RowSlices`] borrows the same numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModuleRows {
    /// One per input of the module: `[N, dim]`.
    pub inputs: Vec<Vec<i32>>,
    /// The integer that stands for 1, one a row; empty without a bias.
    pub ones: Vec<i32>,
    /// N scales.
    pub scales: Vec<f32>,
    /// `[N, d_out]`.
    pub delta: Vec<i64>,
}

impl ModuleRows {
    /// The rows of a module that was not called.
    pub fn none(module: &Module) -> ModuleRows {
        ModuleRows { inputs: vec![Vec::new(); module.inputs.len()], ..ModuleRows::default() }
    }

    /// Appends rows of the same module, and their deltas.
    pub fn extend(&mut self, rows: &ModuleRows, delta: &[i64]) {
        self.inputs
            .iter_mut()
            .zip(&rows.inputs)
            .for_each(|(values, more)| values.extend_from_slice(more));
        self.ones.extend_from_slice(&rows.ones);
        self.scales.extend_from_slice(&rows.scales);
        self.delta.extend_from_slice(delta);
    }
}

/// Little-endian words, at any alignment. (The curve library compiles on little-endian machines
/// only.)
pub fn words<T: bytemuck::Pod>(data: &[u8]) -> Vec<T> {
    let mut words = vec![T::zeroed(); data.len() / size_of::<T>()];
    // Both have the same length, because callers pass whole words.
    bytemuck::cast_slice_mut(&mut words).copy_from_slice(data);
    words
}
