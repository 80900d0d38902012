//! Products with public matrices, exactly: integers in `f64`.
//!
//! A sum of products of integers is exact in `f64` as long as it stays below 2^53, in any order of
//! addition, with fused multiplication or without. So matrix products of floats, which are the
//! fastest that a processor has, give the same integers on every machine. Larger numbers are cut
//! into limbs that keep to that limit.

use ndarray::{Array2, ArrayView2, ShapeBuilder, linalg::general_mat_mul};
use rayon::prelude::*;

use crate::{weight::Weight, whole::Whole};

/// Sums stay below `2^EXACT`.
pub const EXACT: u32 = 53;
/// Most and fewest outputs that one task computes. A task prepares all rows, so it should not have
/// few outputs.
const BLOCK: [usize; 2] = [512, 64];
/// Tasks for each thread, so that one that is slower delays the others less.
const TASKS: usize = 2;

/// A matrix as it is read: floats, gains of its inputs, fractional bits.
#[derive(Debug, Clone, Copy)]
pub struct Scaled<'a> {
    /// The floats.
    pub weight: &'a Weight,
    /// One factor for each input.
    pub gain: Option<&'a [f32]>,
    /// Fractional bits of the integers.
    pub bits: i32,
}

impl Scaled<'_> {
    /// Calls `each` for blocks of outputs, on all threads: the first output, and the integers as
    /// `[inputs, outputs of the block]`. Results are in the order of the blocks.
    pub fn blocks<T: Send>(&self, each: impl Fn(usize, ArrayView2<'_, f64>) -> T + Sync) -> Vec<T> {
        let outputs = self.weight.outputs();
        let [most, fewest] = BLOCK;
        let size = outputs.div_ceil(TASKS * rayon::current_num_threads());
        let size = size.next_multiple_of(8).clamp(fewest, most);
        let firsts: Vec<usize> = (0..outputs).step_by(size).collect();
        firsts
            .into_par_iter()
            .map_init(Vec::new, |block, first| {
                let count = size.min(outputs - first);
                let (of_output, of_input) =
                    self.weight.integers(first, count, self.gain, self.bits, block);
                let shape = (self.weight.inputs(), count).strides((of_input, of_output));
                let view = ArrayView2::from_shape(shape, block);
                each(first, view.unwrap_or_else(|_| ArrayView2::from(&[[0.0; 0]; 0])))
            })
            .collect()
    }

    /// The largest `Σ|w|` over the inputs of an output.
    pub fn largest_sum(&self) -> u64 {
        let sums = self.blocks(|_, block| {
            block
                .columns()
                .into_iter()
                .map(|column| column.iter().map(|w| w.abs()).sum::<f64>())
                .fold(0.0, f64::max)
        });
        sums.into_iter().fold(0.0, f64::max) as u64
    }

    /// `Σ w·x` of rows of integers-as-floats whose sums stay exact: `[rows, outputs]`.
    pub fn floats(&self, x: &Array2<f64>) -> Array2<f64> {
        let blocks = self.blocks(|_, block| {
            let mut out = Array2::zeros((x.nrows(), block.ncols()));
            general_mat_mul(1.0, x, &block, 0.0, &mut out);
            out
        });
        let views: Vec<_> = blocks.iter().map(|block| block.view()).collect();
        let joined = ndarray::concatenate(ndarray::Axis(1), &views).unwrap_or_default();
        joined.as_standard_layout().into_owned()
    }

    /// `Σ w·x` of rows of integers: `[rows, outputs]`. `largest_sum` is that of
    /// [`Self::largest_sum`]; every sum must stay within the type `S`.
    pub fn integers<X: Whole, S: Whole>(&self, x: &[X], largest_sum: u64) -> Vec<S> {
        let inputs = self.weight.inputs();
        let rows = x.len() / inputs.max(1);
        let width = limb_width(largest_sum);
        // As many limbs as these rows need, which are fewer than the bound of all rows asks for.
        let bound = x.par_iter().map(|x| x.magnitude()).max().unwrap_or_default();
        let count = limb_count(bound.into().unsigned_abs(), width);
        let limbs = limbs(x, inputs, width, count);
        let outputs = self.weight.outputs();
        let integer = |part: f64| S::of(i128::from(part as i64));
        let blocks = self.blocks(|_, block| {
            let mut parts = Array2::zeros((rows * count, block.ncols()));
            general_mat_mul(1.0, &limbs, &block, 0.0, &mut parts);
            let mut sums = Vec::with_capacity(rows * block.ncols());
            for parts in parts.as_slice().unwrap_or(&[]).chunks(count * block.ncols()) {
                let (lowest, higher) = parts.split_at(block.ncols());
                let first = sums.len();
                sums.extend(lowest.iter().map(|part| integer(*part)));
                for (at, limb) in higher.chunks(block.ncols()).enumerate() {
                    let shift = width * (at as u32 + 1);
                    for (sum, part) in sums[first..].iter_mut().zip(limb) {
                        // Sums of some limbs may wrap; that of all does not.
                        *sum = sum.wrapping_sum(integer(*part) << shift);
                    }
                }
            }
            sums
        });
        let mut all = vec![S::default(); rows * outputs];
        all.par_chunks_mut(outputs.max(1)).enumerate().for_each(|(row, all)| {
            let mut first = 0;
            for block in &blocks {
                let count = block.len() / rows;
                all[first..first + count].copy_from_slice(&block[row * count..][..count]);
                first += count;
            }
        });
        all
    }
}

/// Bits of a limb: limbs lie within `±2^(width − 1)`, so their sums within `2^EXACT`.
fn limb_width(largest_sum: u64) -> u32 {
    let bits = u64::BITS - largest_sum.leading_zeros();
    (EXACT + 1).saturating_sub(bits).clamp(2, 32)
}

/// Whether sums of a matrix can be computed at all.
pub fn is_computable(largest_sum: u64) -> bool {
    largest_sum < 1 << (EXACT - 2)
}

/// Limbs of `width` bits that numbers from `−bound − 1` to `bound` need: one bit for the sign, and
/// one for the balance.
fn limb_count(bound: u128, width: u32) -> usize {
    let bits = u128::BITS - bound.leading_zeros() + 2;
    bits.div_ceil(width).max(1) as usize
}

/// Cuts numbers into limbs within `±2^(width − 1)`: for each row, the rows of its limbs, lowest
/// first.
fn limbs<X: Whole>(x: &[X], columns: usize, width: u32, count: usize) -> Array2<f64> {
    let mut limbs = vec![0f64; x.len() * count];
    let half = X::from(1) << (width - 1);
    limbs.par_chunks_mut(columns * count).zip(x.par_chunks(columns)).for_each(|(limbs, x)| {
        if count == 1 {
            limbs.iter_mut().zip(x).for_each(|(limb, x)| *limb = x.float());
            return;
        }
        let mut rest = x.to_vec();
        for limb in limbs.chunks_mut(columns) {
            for (limb, rest) in limb.iter_mut().zip(&mut rest) {
                let high = (*rest + half) >> width;
                *limb = (*rest - (high << width)).float();
                *rest = high;
            }
        }
    });
    let rows = limbs.len() / columns.max(1);
    Array2::from_shape_vec((rows, columns), limbs).unwrap_or_default()
}
