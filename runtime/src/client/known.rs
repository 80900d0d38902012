//! Rows that were answered already. A delta is a function of its row, so the same row is not sent twice: it would cost time, and
//! budget, and prove nothing new.

use std::{collections::HashMap, sync::Arc};

use rayon::prelude::*;
use zklora_circuit::manifest::Module;

use crate::trace_file::ModuleRows;

/// Digest of a row: integers of all inputs, constant and scale.
pub(super) type RowDigest = [u8; 32];

/// The digest of each row; `dims` are the features of the inputs.
pub(super) fn digests(rows: &ModuleRows, dims: &[usize]) -> Vec<RowDigest> {
    (0..rows.scales.len())
        .into_par_iter()
        .with_min_len(16)
        .map(|row| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&rows.scales[row].to_bits().to_le_bytes());
            if let Some(one) = rows.ones.get(row) {
                hasher.update(&one.to_le_bytes());
            }
            for (input, dim) in rows.inputs.iter().zip(dims) {
                hasher.update(bytemuck::cast_slice(&input[row * dim..(row + 1) * dim]));
            }
            *hasher.finalize().as_bytes()
        })
        .collect()
}

/// Some of the rows, in this order; all of them are not copied.
pub(super) fn select(rows: &Arc<ModuleRows>, dims: &[usize], which: &[usize]) -> Arc<ModuleRows> {
    if which.len() == rows.scales.len() {
        return Arc::clone(rows);
    }
    let of = |values: &Vec<i32>, dim: usize| {
        which.iter().flat_map(|row| &values[row * dim..(row + 1) * dim]).copied().collect::<Vec<i32>>()
    };
    Arc::new(ModuleRows {
        inputs: rows.inputs.iter().zip(dims).map(|(input, dim)| of(input, *dim)).collect(),
        ones: if rows.ones.is_empty() { Vec::new() } else { of(&rows.ones, 1) },
        scales: which.iter().map(|row| rows.scales[*row]).collect(),
        delta: Vec::new(),
    })
}

/// Where a row is: which of the batches, and which of its rows.
pub(super) type Place = (usize, usize);

/// The user's record of one module: its rows, batch by batch, and where each distinct one is.
#[derive(Debug, Default)]
pub(super) struct Record {
    batches: Vec<(Arc<ModuleRows>, Vec<i64>)>,
    places: HashMap<RowDigest, Place>,
    rows: usize,
}

impl Record {
    /// Rows of the module.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Where a row is, if it was answered.
    pub fn place(&self, digest: &RowDigest) -> Option<Place> {
        self.places.get(digest).copied()
    }

    /// The deltas of the row there; `width` is the module's d_out.
    pub fn delta(&self, (batch, row): Place, width: usize) -> &[i64] {
        &self.batches[batch].1[row * width..(row + 1) * width]
    }

    /// Adds answered rows, without copying them: modules that read the same rows share them.
    pub fn push(&mut self, rows: Arc<ModuleRows>, digests: &[RowDigest], delta: Vec<i64>) {
        let batch = self.batches.len();
        for (row, digest) in digests.iter().enumerate() {
            self.places.entry(*digest).or_insert((batch, row));
        }
        self.rows += rows.scales.len();
        self.batches.push((rows, delta));
    }

    /// All rows, one after the other.
    pub fn collect(&self, module: &Module) -> ModuleRows {
        let mut all = ModuleRows::none(module);
        self.batches.iter().for_each(|(rows, delta)| all.extend(rows, delta));
        all
    }
}
