//! Integers of up to 256 bits, as field elements and as matrices.

use std::ops::Range;

use ethnum::I256;
use ff::Field;
use ndarray::Array2;
use rayon::prelude::*;
use zeroize::Zeroize;
use zklora_integer::matrix::{Integers, Matrix};
use zklora_proof::field::F;

use crate::{
    exact::times_vectors,
    fe::{Fe, IntegerSum, Signed, Wiped, elements, inner_product},
};

/// The words of a magnitude, lowest first.
fn words(value: I256) -> [u64; 4] {
    let (high, low) = value.unsigned_abs().into_words();
    [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64]
}

/// The field element of an integer below 2^254 in magnitude.
pub fn element(value: I256) -> Fe {
    let magnitude = Fe::of_words(words(value));
    if value < I256::ZERO { -magnitude } else { magnitude }
}

/// The same of the library.
pub fn field(value: I256) -> F {
    element(value).into()
}

/// `2^exponent`
pub fn power(exponent: u32) -> I256 {
    I256::ONE << exponent
}

/// A secret matrix: a row for each element of an axis. Overwritten when dropped.
pub struct Grid {
    /// Features.
    pub columns: usize,
    integers: Integers,
}

impl Grid {
    /// From the integers of an evaluation.
    pub fn new(matrix: Matrix) -> Grid {
        Grid { columns: matrix.columns, integers: matrix.integers }
    }

    /// From rows of 64-bit integers.
    pub fn small(columns: usize, values: Vec<i64>) -> Grid {
        Grid { columns, integers: Integers::Small(values) }
    }

    /// From rows of 256-bit integers.
    pub fn wide(columns: usize, values: Vec<I256>) -> Grid {
        Grid { columns, integers: Integers::Wide(values) }
    }

    /// From rows of 128-bit integers, in the least type that holds them.
    pub fn of(columns: usize, mut values: Vec<i128>) -> Grid {
        if values.iter().any(|x| i64::try_from(*x).is_err()) {
            return Grid { columns, integers: Integers::Narrow(values) };
        }
        let small = values.iter().map(|x| *x as i64).collect();
        values.zeroize();
        Grid::small(columns, small)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        let length = match &self.integers {
            Integers::Small(values) => values.len(),
            Integers::Narrow(values) => values.len(),
            Integers::Wide(values) => values.len(),
        };
        length / self.columns.max(1)
    }

    /// One integer.
    pub fn get(&self, row: usize, column: usize) -> I256 {
        let at = row * self.columns + column;
        match &self.integers {
            Integers::Small(values) => I256::from(values[at]),
            Integers::Narrow(values) => I256::from(values[at]),
            Integers::Wide(values) => values[at],
        }
    }

    /// The same as a field element.
    pub fn element(&self, row: usize, column: usize) -> Fe {
        let at = row * self.columns + column;
        match &self.integers {
            Integers::Small(values) => Fe::of(values[at]),
            Integers::Narrow(values) => Fe::of_i128(values[at]),
            Integers::Wide(values) => element(values[at]),
        }
    }

    /// The same modulo 2^128.
    pub fn low(&self, row: usize, column: usize) -> i128 {
        let at = row * self.columns + column;
        match &self.integers {
            Integers::Small(values) => i128::from(values[at]),
            Integers::Narrow(values) => values[at],
            Integers::Wide(values) => values[at].as_i128(),
        }
    }

    /// Adds to one integer.
    #[cfg(test)]
    pub fn add(&mut self, row: usize, column: usize, by: I256) {
        let at = row * self.columns + column;
        let sum = self.get(row, column).wrapping_add(by);
        if let (Integers::Small(values), Ok(sum)) = (&mut self.integers, i64::try_from(sum)) {
            values[at] = sum;
            return;
        }
        let (rows, columns) = (self.rows(), self.columns);
        let cells = (0..rows).flat_map(|row| (0..columns).map(move |c| (row, c)));
        let mut wide: Vec<I256> = cells.map(|(row, c)| self.get(row, c)).collect();
        wide[at] = sum;
        *self = Grid::wide(columns, wide);
    }

    /// Some cells of a row, if all integers have 64 bits.
    pub fn small_row(&self, row: usize, columns: Range<usize>) -> Option<&[i64]> {
        match &self.integers {
            Integers::Small(values) => Some(&values[row * self.columns..][columns]),
            _ => None,
        }
    }

    /// All rows, if all integers have 64 bits; none otherwise.
    pub fn small_rows(&self) -> std::slice::Chunks<'_, i64> {
        match &self.integers {
            Integers::Small(values) => values.chunks(self.columns.max(1)),
            _ => [].chunks(1),
        }
    }

    /// Adds `factor·row` to numbers modulo 2^128.
    pub fn add_row(&self, row: usize, factor: i128, to: &mut [i128]) {
        let first = row * self.columns;
        let add = |to: &mut i128, x: i128| *to = to.wrapping_add(x.wrapping_mul(factor));
        match &self.integers {
            Integers::Small(values) => {
                to.iter_mut().zip(&values[first..]).for_each(|(to, x)| add(to, i128::from(*x)));
            }
            Integers::Narrow(values) => {
                to.iter_mut().zip(&values[first..]).for_each(|(to, x)| add(to, *x));
            }
            Integers::Wide(values) => {
                to.iter_mut().zip(&values[first..]).for_each(|(to, x)| add(to, x.as_i128()));
            }
        }
    }

    /// `Σ_t weights[t]·x(t, ·)` for some columns.
    pub fn fold(&self, weights: &[F], columns: Range<usize>) -> Wiped {
        let weights = weights.iter().enumerate().filter(|(_, weight)| **weight != F::ZERO);
        let weights: Vec<(usize, Signed)> =
            weights.map(|(row, weight)| (row, Signed::from(Fe::from(*weight)))).collect();
        Wiped(match &self.integers {
            Integers::Small(values) => sums::<_, 1>(values, self.columns, &weights, columns, |x| {
                (*x < 0, [x.unsigned_abs()])
            }),
            Integers::Narrow(values) => {
                sums::<_, 2>(values, self.columns, &weights, columns, |x| {
                    let magnitude = x.unsigned_abs();
                    (*x < 0, [magnitude as u64, (magnitude >> 64) as u64])
                })
            }
            Integers::Wide(values) => sums::<_, 4>(values, self.columns, &weights, columns, |x| {
                (*x < I256::ZERO, words(*x))
            }),
        })
    }

    /// [`Self::fold`] with several weights, for all columns.
    pub fn folds(&self, weights: &[&[F]]) -> Vec<Wiped> {
        const TASK: usize = 256;
        let Integers::Small(values) = &self.integers else {
            return weights.iter().map(|weights| self.fold(weights, 0..self.columns)).collect();
        };
        let rows = self.rows();
        let weights: Vec<Vec<Fe>> = weights.iter().map(|weights| elements(weights)).collect();
        let weights: Vec<&[Fe]> = weights.iter().map(Vec::as_slice).collect();
        let tasks = (0..self.columns.div_ceil(TASK)).into_par_iter().map(|task| {
            let first = task * TASK;
            let count = TASK.min(self.columns - first);
            let cell = |(row, at)| values[row * self.columns + first + at] as f64;
            let mut cells = Array2::from_shape_fn((rows, count), cell);
            let sums = times_vectors(&cells.t(), &weights);
            cells.fill(0.0);
            std::hint::black_box(&mut cells);
            sums
        });
        let tasks: Vec<Vec<Wiped>> = tasks.collect();
        let of_vector = |at: usize| {
            let all = tasks.iter().flat_map(|sums| sums[at].iter().copied());
            Wiped(all.collect())
        };
        (0..weights.len()).map(of_vector).collect()
    }

    /// `Σ_{t,o} weights[t]·features[o]·x(t, o)`
    pub fn value(&self, weights: &[F], features: &[F]) -> F {
        let first = features.iter().position(|f| *f != F::ZERO).unwrap_or(0);
        let end = features.iter().rposition(|f| *f != F::ZERO).map_or(first, |last| last + 1);
        let sums = self.fold(weights, first..end);
        inner_product(&sums, &elements(&features[first..end])).into()
    }
}

/// For some columns, the sums of all rows with weights. Integers are given by sign and words.
fn sums<T: Sync, const WORDS: usize>(
    values: &[T],
    columns: usize,
    weights: &[(usize, Signed)],
    of: Range<usize>,
    words: impl Fn(&T) -> (bool, [u64; WORDS]) + Sync,
) -> Vec<Fe> {
    const TASK: usize = 64;
    let mut out = vec![Fe::ZERO; of.len()];
    let shift = Fe::of_words([0, 1, 0, 0]);
    out.par_chunks_mut(TASK).enumerate().for_each(|(task, out)| {
        let mut sums = vec![[IntegerSum::default(); WORDS]; out.len()];
        for (row, weight) in weights {
            let cells = &values[row * columns + of.start + task * TASK..][..out.len()];
            for (sums, cell) in sums.iter_mut().zip(cells) {
                let (is_negative, words) = words(cell);
                for (sum, word) in sums.iter_mut().zip(words) {
                    if WORDS == 1 || word != 0 {
                        sum.add_magnitude(is_negative, word, weight);
                    }
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(&sums) {
            let high_first = sums.iter().rev();
            *out = high_first.fold(Fe::ZERO, |high, sum| high * shift + sum.reduce());
        }
    });
    out
}

impl Drop for Grid {
    fn drop(&mut self) {
        match &mut self.integers {
            Integers::Small(values) => values.zeroize(),
            Integers::Narrow(values) => values.zeroize(),
            Integers::Wide(values) => {
                values.iter_mut().for_each(|value| *value = I256::ZERO);
                std::hint::black_box(values);
            }
        }
    }
}
