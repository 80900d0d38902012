//! A matrix of low rank as the product of two small ones, modulo 2⁶⁴.
//!
//! The deltas `D = X·A·B` of N rows have rank r at most, so r rows of D, and for every row of D its
//! r coordinates in them, are all of D. The elimination is over the 2-adic integers: a pivot is an
//! entry that is divisible by the smallest power of two, so every entry is a multiple of it, and
//! the quotient is exact. 64 bits of each number suffice, because a quotient by 2^v lacks v bits
//! and is multiplied with a row that is divisible by 2^v.
//!
//! The factors are a function of D and r. They say nothing that D does not say.

use rayon::prelude::*;

/// Rows that one thread multiplies at a time.
const ROWS_AT_ONCE: usize = 32;

/// Two factors of a matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factors {
    /// Their rank.
    pub rank: usize,
    /// `[rank, rows]`: coordinates of the rows of the matrix.
    pub coordinates: Vec<u64>,
    /// `[rank, width]`
    pub basis: Vec<u64>,
}

impl Factors {
    /// The factors of a matrix with rows of `width` integers, whose rank is at most `most`.
    pub fn of(matrix: &[i64], width: usize, most: usize) -> Factors {
        let rows = matrix.len() / width.max(1);
        let mut factors = Factors { rank: 0, coordinates: Vec::new(), basis: Vec::new() };
        let mut rest = vec![0u64; width];
        while factors.rank < most {
            let Some((row, column)) = factors.pivot(matrix, rows, &mut rest) else { break };
            factors.rest_of(matrix, rows, row, &mut rest);
            let twos = rest[column].trailing_zeros();
            let inverse = inverse(rest[column] >> twos);
            for row in 0..rows {
                let of_column = |basis: &[u64]| basis[column];
                let known: u64 = factors
                    .terms(rows, row, width)
                    .map(|(coordinate, basis)| coordinate.wrapping_mul(of_column(basis)))
                    .fold(0, u64::wrapping_add);
                let rest = (matrix[row * width + column] as u64).wrapping_sub(known);
                factors.coordinates.push((rest >> twos).wrapping_mul(inverse));
            }
            factors.basis.extend_from_slice(&rest);
            factors.rank += 1;
        }
        debug_assert_eq!(factors.product(rows, width), matrix, "the rank is more than {most}");
        factors
    }

    /// The coordinates of a row, each with the row of the basis that it belongs to.
    fn terms(&self, rows: usize, row: usize, width: usize) -> impl Iterator<Item = (u64, &[u64])> {
        // During the elimination, the basis may be one row short of the coordinates.
        (0..self.rank).map(move |at| {
            (self.coordinates[at * rows + row], &self.basis[at * width..(at + 1) * width])
        })
    }

    /// What the factors so far lack of a row.
    fn rest_of(&self, matrix: &[i64], rows: usize, row: usize, rest: &mut [u64]) {
        let width = rest.len();
        let values = &matrix[row * width..(row + 1) * width];
        rest.iter_mut().zip(values).for_each(|(rest, value)| *rest = *value as u64);
        for (coordinate, basis) in self.terms(rows, row, width) {
            for (rest, basis) in rest.iter_mut().zip(basis) {
                *rest = rest.wrapping_sub(coordinate.wrapping_mul(*basis));
            }
        }
    }

    /// An entry of what the factors so far lack that is divisible by the smallest power of two.
    /// None: they lack nothing.
    fn pivot(&self, matrix: &[i64], rows: usize, rest: &mut [u64]) -> Option<(usize, usize)> {
        let (mut fewest, mut pivot) = (u64::BITS, None);
        for row in 0..rows {
            self.rest_of(matrix, rows, row, rest);
            for (column, entry) in rest.iter().enumerate() {
                if entry.trailing_zeros() < fewest {
                    (fewest, pivot) = (entry.trailing_zeros(), Some((row, column)));
                    if fewest == 0 {
                        return pivot;
                    }
                }
            }
        }
        pivot
    }

    /// The product: a matrix with this many rows of `width` integers.
    pub fn product(&self, rows: usize, width: usize) -> Vec<i64> {
        let mut product = vec![0i64; rows * width];
        let chunks = product.par_chunks_mut((ROWS_AT_ONCE * width).max(1)).enumerate();
        chunks.for_each(|(chunk, out)| {
            for (at, out) in out.chunks_mut(width.max(1)).enumerate() {
                for (coordinate, basis) in self.terms(rows, chunk * ROWS_AT_ONCE + at, width) {
                    for (out, basis) in out.iter_mut().zip(basis) {
                        *out = out.wrapping_add(coordinate.wrapping_mul(*basis) as i64);
                    }
                }
            }
        });
        product
    }
}

/// The inverse of an odd number modulo 2⁶⁴, by Newton's method: each step doubles the right bits,
/// of which an odd number has three as its own inverse.
fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    for _ in 0..5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
    }
    inverse
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Integers that are often even, or zero.
    fn entry() -> impl Strategy<Value = i64> {
        (-(1i64 << 30)..1 << 30, 0u32..34)
            .prop_map(|(value, twos)| value >> (twos / 2) << (twos / 3))
    }

    proptest! {
        #[test]
        fn factors_of_a_matrix_of_low_rank_have_it_as_product(
            (rank, rows, width, left, right) in (0usize..6, 1usize..90, 1usize..40).prop_flat_map(
                |(rank, rows, width)| (
                    Just(rank), Just(rows), Just(width),
                    prop::collection::vec(entry(), rows * rank),
                    prop::collection::vec(entry(), rank * width),
                )
            )
        ) {
            let matrix: Vec<i64> = (0..rows * width)
                .map(|at| (0..rank).fold(0i64, |sum, k| {
                    let product = i128::from(left[(at / width) * rank + k])
                        * i128::from(right[k * width + at % width]);
                    sum + product as i64
                }))
                .collect();
            let factors = Factors::of(&matrix, width, rank);
            prop_assert!(factors.rank <= rank);
            prop_assert_eq!(factors.coordinates.len(), factors.rank * rows);
            prop_assert_eq!(factors.basis.len(), factors.rank * width);
            prop_assert_eq!(factors.product(rows, width), matrix);
        }

        #[test]
        fn odd_numbers_have_inverses(value in any::<u64>()) {
            prop_assert_eq!((value | 1).wrapping_mul(inverse(value | 1)), 1);
        }
    }

    #[test]
    fn matrices_whose_entries_are_all_even_and_matrices_of_zeros_have_factors() {
        let matrix = [4, 8, i64::MIN, 12, 20, i64::MIN, 8, 16, 0];
        let factors = Factors::of(&matrix, 3, 3);
        assert_eq!((factors.rank, factors.product(3, 3)), (2, matrix.to_vec()));
        assert_eq!(Factors::of(&[0; 6], 2, 4).rank, 0);
        assert_eq!(Factors::of(&[0; 6], 2, 4).product(3, 2), [0; 6]);
        assert!(Factors::of(&[], 2, 4).product(0, 2).is_empty());
    }
}
