//! The rows that were answered. A delta is a function of its row, so a row is not sent twice: that
//! would cost time and budget, and prove nothing new.
//!
//! The latest rows are remembered, up to a limit, so that memory does not grow with a session.
//! A row that was forgotten is sent and counted again if the base model needs it again.

use std::{collections::HashMap, sync::Arc};

use rayon::prelude::*;
use zklora_artifacts::module_rows::ModuleRows;

/// The digest of a row: of the integers of all inputs, the constant and the scale.
///
/// Half of a keyed BLAKE3 is enough. Two rows with one digest would get one delta, and the second
/// would not be in the log. By chance that does not happen: 2^28 rows are far from 2^64. An
/// attacker who chooses the text, and so the rows, cannot find such rows without the key. Each
/// process draws its own key, keeps it in memory, and uses it for nothing else.
pub(super) type RowDigest = [u8; 16];

/// Where the deltas of rows are in the log, by module and row. [`AnsweredRows`] may forget them.
pub(super) type Offsets = HashMap<(usize, RowDigest), u64>;

/// The digest of each row. `dims` are the features of the inputs.
pub(super) fn digests(key: &[u8; 32], rows: &ModuleRows, dims: &[usize]) -> Vec<RowDigest> {
    (0..rows.scales.len())
        .into_par_iter()
        .with_min_len(16)
        .map(|row| {
            let mut hasher = blake3::Hasher::new_keyed(key);
            hasher.update(&rows.scales[row].to_bits().to_le_bytes());
            if let Some(one) = rows.ones.get(row) {
                hasher.update(&one.to_le_bytes());
            }
            for (input, dim) in rows.inputs.iter().zip(dims) {
                hasher.update(bytemuck::cast_slice(&input[row * dim..(row + 1) * dim]));
            }
            let mut digest = RowDigest::default();
            hasher.finalize_xof().fill(&mut digest);
            digest
        })
        .collect()
}

/// Some of the rows, in this order. If these are all rows, they are not copied.
pub(super) fn select(rows: &Arc<ModuleRows>, dims: &[usize], which: &[usize]) -> Arc<ModuleRows> {
    if which.len() == rows.scales.len() {
        return Arc::clone(rows);
    }
    let of = |values: &Vec<i32>, dim: usize| {
        which
            .iter()
            .flat_map(|row| &values[row * dim..(row + 1) * dim])
            .copied()
            .collect::<Vec<i32>>()
    };
    Arc::new(ModuleRows {
        inputs: rows.inputs.iter().zip(dims).map(|(input, dim)| of(input, *dim)).collect(),
        ones: if rows.ones.is_empty() { Vec::new() } else { of(&rows.ones, 1) },
        scales: which.iter().map(|row| rows.scales[*row]).collect(),
        delta: Vec::new(),
    })
}

/// Distinct rows of all modules that are surely remembered. They fill a table of 2^20 places, which
/// takes 30 MB; there are two. A pass of 60 modules over 15,000 tokens has as many rows.
pub(super) const REMEMBERED: usize = 7 << 17;

/// The offset of a row's deltas in the log, as bytes, which need no alignment.
type Offset = [u8; 8];

/// Where the deltas of the latest rows are.
///
/// Rows are added to `new`. When it is full, it becomes `old`, and the `old` before is forgotten.
#[derive(Debug, Default)]
pub(super) struct AnsweredRows {
    new: HashMap<(u32, RowDigest), Offset>,
    old: HashMap<(u32, RowDigest), Offset>,
}

impl AnsweredRows {
    /// The offset of the deltas of a row of a module, if it is remembered.
    pub fn find(&self, module: usize, digest: &RowDigest) -> Option<u64> {
        let key = (module as u32, *digest);
        self.new.get(&key).or_else(|| self.old.get(&key)).copied().map(u64::from_le_bytes)
    }

    /// Forgets rows if there is no room. Rows that are added after this are remembered at least
    /// until it is called again.
    pub fn make_room(&mut self) {
        if self.new.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.new);
        }
    }

    /// Adds rows of an answer, whose deltas begin at `offset` and take `bytes` a row.
    pub fn push(&mut self, module: usize, digests: &[RowDigest], offset: u64, bytes: usize) {
        for (row, digest) in digests.iter().enumerate() {
            let offset = offset + (row * bytes) as u64;
            self.new.entry((module as u32, *digest)).or_insert(offset.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_are_found_by_module_where_they_were_answered_first() {
        let mut rows = AnsweredRows::default();
        let digest = |n: u8| [n; 16];
        rows.push(0, &[digest(1), digest(2)], 100, 8);
        rows.push(1, &[digest(1)], 200, 16);
        rows.push(0, &[digest(2), digest(4), digest(5)], 300, 8);
        let at = |module: usize, n: u8| rows.find(module, &digest(n));
        assert_eq!(
            (at(0, 1), at(0, 2), at(0, 4), at(0, 5)),
            (Some(100), Some(108), Some(308), Some(316))
        );
        assert_eq!((at(1, 1), at(1, 2), at(2, 1)), (Some(200), None, None));
    }

    #[test]
    fn the_latest_rows_are_remembered_and_no_more_than_twice_the_limit() {
        let digest = |n: usize| {
            let mut digest = [0; 16];
            digest[..8].copy_from_slice(&(n as u64).to_le_bytes());
            digest
        };
        let mut rows = AnsweredRows::default();
        let (batch, total) = (1 << 14, 3 * REMEMBERED);
        for first in (0..total).step_by(batch) {
            rows.make_room();
            let digests: Vec<_> = (first..first + batch).map(digest).collect();
            rows.push(0, &digests, first as u64 * 8, 8);
            assert_eq!(rows.find(0, &digests[0]), Some(first as u64 * 8));
            let oldest = (first + batch).saturating_sub(REMEMBERED);
            assert_eq!(rows.find(0, &digest(oldest)), Some(oldest as u64 * 8));
            assert!(rows.new.len() + rows.old.len() <= 2 * (REMEMBERED + batch));
        }
        assert_eq!(rows.find(0, &digest(0)), None);
    }

    #[test]
    fn digests_depend_on_the_key_and_on_every_part_of_a_row() {
        let rows = ModuleRows {
            inputs: vec![vec![1, 2, 1, 2], vec![3, 3]],
            ones: vec![5, 5],
            scales: vec![0.5, 0.5],
            delta: Vec::new(),
        };
        let of = |rows: &ModuleRows| digests(&[1; 32], rows, &[2, 1]);
        let one = of(&rows)[0];
        assert_eq!(of(&rows)[1], one);
        assert_ne!(digests(&[2; 32], &rows, &[2, 1])[0], one);
        let changes: [fn(&mut ModuleRows); 4] = [
            |rows| rows.inputs[0][1] += 1,
            |rows| rows.inputs[1][0] += 1,
            |rows| rows.ones[0] += 1,
            |rows| rows.scales[0] = -0.5,
        ];
        for change in changes {
            let mut other = rows.clone();
            change(&mut other);
            assert_ne!(of(&other)[0], one);
        }
    }
}
