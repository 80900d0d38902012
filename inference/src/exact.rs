//! Matrices of integers times vectors of field elements, with products of floats.
//!
//! As in [`zklora_integer::products`], sums of floats are exact as long as they stay below 2^53:
//! elements are cut into limbs that keep to it.

use ndarray::{Array2, ArrayView2, linalg::general_mat_mul};
use zklora_integer::products::EXACT;

use crate::fe::{Fe, IntegerSum, Signed, Wiped};

/// Bits of an element.
const ELEMENT: u32 = 255;
/// Fewest and most bits of a limb for which floats are worth it, and exact.
const LIMB: [u32; 2] = [8, 32];

/// `matrix·vector` for each vector; nothing for those that are zero. The integers are below 2^53.
pub fn times_vectors(matrix: &ArrayView2<'_, f64>, vectors: &[&[Fe]]) -> Vec<Wiped> {
    let mut out: Vec<Wiped> = vectors.iter().map(|_| Wiped::default()).collect();
    let is_zero = |vector: &[Fe]| vector.iter().all(|element| *element == Fe::ZERO);
    let live: Vec<usize> = (0..vectors.len()).filter(|at| !is_zero(vectors[*at])).collect();
    let largest = matrix.iter().fold(0.0f64, |most, w| most.max(w.abs())) as u64;
    let bits_of = |x: u64| u64::BITS - x.leading_zeros();
    let width = EXACT.saturating_sub(bits_of(largest) + bits_of(matrix.ncols() as u64));
    let width = width.min(LIMB[1]);
    if live.is_empty() {
        return out;
    }
    if width < LIMB[0] {
        live.iter().for_each(|at| out[*at] = one_by_one(matrix, vectors[*at]));
        return out;
    }
    let count = ELEMENT.div_ceil(width) as usize;
    let shape = (matrix.ncols(), live.len() * count);
    let limbs = Array2::from_shape_fn(shape, |(place, at)| {
        vectors[live[at / count]][place].bits((at % count) as u32 * width, width) as f64
    });
    let mut parts = Array2::zeros((matrix.nrows(), live.len() * count));
    general_mat_mul(1.0, matrix, &limbs, 0.0, &mut parts);
    let places: Vec<Signed> =
        (0..count as u32).map(|at| Signed::from(Fe::bit(at * width))).collect();
    for parts in parts.rows() {
        for (parts, at) in parts.iter().collect::<Vec<_>>().chunks(count).zip(&live) {
            let mut sum = IntegerSum::default();
            parts.iter().zip(&places).for_each(|(part, place)| sum.add(**part as i64, place));
            out[*at].push(sum.reduce());
        }
    }
    // The matrix may be secret.
    parts.fill(0.0);
    std::hint::black_box(&mut parts);
    out
}

/// The same for one vector, without floats' products.
fn one_by_one(matrix: &ArrayView2<'_, f64>, vector: &[Fe]) -> Wiped {
    let vector: Vec<Signed> = vector.iter().map(|element| Signed::from(*element)).collect();
    let rows = matrix.rows().into_iter().map(|row| {
        let mut sum = IntegerSum::default();
        row.iter().zip(&vector).for_each(|(w, element)| sum.add(*w as i64, element));
        sum.reduce()
    });
    Wiped(rows.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn matrices_times_vectors_are_exact(
            bits in 1u32..50,
            cells in prop::collection::vec(any::<i64>(), 60),
            words in prop::collection::vec(any::<i64>(), 24),
        ) {
            let cells = cells.iter().map(|cell| (cell >> (64 - bits)) as f64).collect();
            let matrix = Array2::from_shape_vec((5, 12), cells).unwrap_or_default();
            let element = |word: &i64| -Fe::of(word >> 1) * Fe::of(i64::MAX).double();
            let vectors: Vec<Vec<Fe>> =
                words.chunks(12).map(|words| words.iter().map(element).collect()).collect();
            let zero = vec![Fe::ZERO; 12];
            let all: [&[Fe]; 3] = [&vectors[0], &zero, &vectors[1]];
            let products = times_vectors(&matrix.view(), &all);
            prop_assert!(products[1].is_empty());
            for (vector, product) in [(all[0], &products[0]), (all[2], &products[2])] {
                let expected: Vec<Fe> = matrix
                    .rows()
                    .into_iter()
                    .map(|row| row.iter().zip(vector).map(|(w, x)| Fe::of(*w as i64) * *x).sum())
                    .collect();
                prop_assert_eq!(&product.0, &expected);
            }
        }
    }
}
