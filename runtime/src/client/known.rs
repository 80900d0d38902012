//! Rows that were answered already. A delta is a function of its row, so the same row is not sent twice: it would cost time, and
//! budget, and prove nothing new.

use std::collections::HashMap;

use crate::trace_file::ModuleRows;

/// Digest of a row: integers of all inputs, constant and scale.
pub(super) type RowDigest = [u8; 32];

/// The digest of each row; `dims` are the features of the inputs.
pub(super) fn digests(rows: &ModuleRows, dims: &[usize]) -> Vec<RowDigest> {
    (0..rows.scales.len())
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

/// Some of the rows, in this order.
pub(super) fn select(rows: &ModuleRows, dims: &[usize], which: &[usize]) -> ModuleRows {
    let of = |values: &Vec<i32>, dim: usize| {
        which.iter().flat_map(|row| &values[row * dim..(row + 1) * dim]).copied().collect::<Vec<i32>>()
    };
    ModuleRows {
        inputs: rows.inputs.iter().zip(dims).map(|(input, dim)| of(input, *dim)).collect(),
        ones: if rows.ones.is_empty() { Vec::new() } else { of(&rows.ones, 1) },
        scales: which.iter().map(|row| rows.scales[*row]).collect(),
        delta: Vec::new(),
    }
}

/// The user's record of one module: its rows, and where each distinct one is.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub rows: ModuleRows,
    places: HashMap<RowDigest, usize>,
}

impl Record {
    pub fn new(rows: ModuleRows) -> Record {
        Record { rows, places: HashMap::new() }
    }

    /// Where a row is, if it was answered.
    pub fn place(&self, digest: &RowDigest) -> Option<usize> {
        self.places.get(digest).copied()
    }

    /// Adds answered rows.
    pub fn extend(&mut self, rows: &ModuleRows, digests: &[RowDigest], delta: &[i64]) {
        let first = self.rows.scales.len();
        for (offset, digest) in digests.iter().enumerate() {
            self.places.entry(*digest).or_insert(first + offset);
        }
        self.rows.extend(rows, delta);
    }
}
