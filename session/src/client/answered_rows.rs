//! The rows of a module that were answered. A delta is a function of its row, so a row is not sent
//! twice: that would cost time and budget, and prove nothing new.

use std::{collections::HashMap, sync::Arc};

use rayon::prelude::*;
use zklora_artifacts::module_rows::ModuleRows;
use zklora_proof::rows::MAX_ROWS;

/// The digest of a row: of the integers of all inputs, the constant and the scale.
///
/// Half of a keyed BLAKE3 is enough. Two rows with one digest would get one delta, and the second
/// would not be in the log. By chance that does not happen: 2^28 rows are far from 2^64. An
/// attacker who chooses the text, and so the rows, cannot find such rows without the key. Each
/// process draws its own key, keeps it in memory, and uses it for nothing else.
pub(super) type RowDigest = [u8; 16];

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

/// The answered rows of one module. A row takes twenty bytes, however wide it is, and an answer
/// sixteen.
#[derive(Debug, Default)]
pub(super) struct AnsweredRows {
    /// The number of each distinct row.
    rows: HashMap<RowDigest, u32>,
    /// The first row of each answer, and the offset of its deltas in the log.
    answers: Vec<(u32, u64)>,
    count: u32,
}

impl AnsweredRows {
    /// Rows of the module.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Answers of the module.
    pub fn answers(&self) -> usize {
        self.answers.len()
    }

    /// Whether a session may have this many more rows.
    pub fn has_room(&self, more: usize) -> bool {
        self.count().checked_add(more).is_some_and(|all| all <= MAX_ROWS)
    }

    /// The number of a row, if it was answered.
    pub fn row(&self, digest: &RowDigest) -> Option<u32> {
        self.rows.get(digest).copied()
    }

    /// The answer that has a row, and the index of the row in it.
    pub fn answer_of(&self, row: u32) -> (usize, usize) {
        let answer = self.answers.partition_point(|(first, _)| *first <= row).saturating_sub(1);
        (answer, (row - self.answers[answer].0) as usize)
    }

    /// The offset of the deltas of an answer in the log.
    pub fn offset(&self, answer: usize) -> u64 {
        self.answers[answer].1
    }

    /// Adds the rows of an answer whose deltas are at `offset`. The caller checks that there is
    /// room.
    pub fn push(&mut self, digests: &[RowDigest], offset: u64) {
        self.answers.push((self.count, offset));
        for (row, digest) in (self.count..).zip(digests) {
            self.rows.entry(*digest).or_insert(row);
        }
        self.count += digests.len() as u32;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_are_found_in_their_answers() {
        let mut rows = AnsweredRows::default();
        let digest = |n: u8| [n; 16];
        rows.push(&[digest(1), digest(2)], 100);
        rows.push(&[digest(3)], 200);
        rows.push(&[digest(2), digest(4), digest(5)], 300);
        let at = |n: u8| rows.row(&digest(n)).map(|row| rows.answer_of(row));
        assert_eq!((at(1), at(2), at(3)), (Some((0, 0)), Some((0, 1)), Some((1, 0))));
        assert_eq!((at(4), at(5), at(6)), (Some((2, 1)), Some((2, 2)), None));
        assert_eq!(
            (rows.offset(0), rows.offset(2), rows.count(), rows.answers()),
            (100, 300, 6, 3)
        );
    }

    #[test]
    fn a_module_has_room_for_as_many_rows_as_can_be_proven() {
        let rows = AnsweredRows { count: MAX_ROWS as u32 - 2, ..AnsweredRows::default() };
        assert!(rows.has_room(2) && !rows.has_room(3) && !rows.has_room(usize::MAX));
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
