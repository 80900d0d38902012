//! Products of one point with many scalars.

use group::Group;
use zklora_proof::{
    field::{F, G1, G1Affine, limbs},
    msm::to_affine,
};

/// Bits of a digit.
const WIDTH: usize = 8;
/// Digits of a scalar.
const DIGITS: usize = 256 / WIDTH;
/// Multiples for a digit: those of 1 to 2^WIDTH − 1.
const MULTIPLES: usize = (1 << WIDTH) - 1;

/// A point, with its multiples for every digit of a scalar.
pub struct FixedBase(Vec<G1Affine>);

impl FixedBase {
    /// Computes the multiples.
    pub fn new(point: &G1Affine) -> FixedBase {
        let mut multiples = Vec::with_capacity(DIGITS * MULTIPLES);
        let mut base = G1::from(point);
        for _ in 0..DIGITS {
            let mut sum = base;
            for _ in 0..MULTIPLES {
                multiples.push(sum);
                sum += base;
            }
            base = sum;
        }
        FixedBase(to_affine(&multiples))
    }

    /// `scalar·point`
    pub fn times(&self, scalar: &F) -> G1 {
        let bytes = limbs(scalar).into_iter().flat_map(u64::to_le_bytes);
        let digits = bytes.zip(self.0.chunks(MULTIPLES));
        let picked = digits.filter_map(|(digit, multiples)| {
            usize::from(digit).checked_sub(1).map(|at| multiples[at])
        });
        picked.fold(G1::identity(), |sum, multiple| sum + multiple)
    }
}

#[cfg(test)]
mod tests {
    use ff::Field;
    use group::Curve;
    use zklora_proof::field::powers;

    use super::*;

    #[test]
    fn products_are_those_of_the_library() {
        let point = (G1::generator() * F::from(77)).to_affine();
        let base = FixedBase::new(&point);
        let scalars = powers(F::from(0x1234_5678_9abc_def1), 9);
        for scalar in scalars.iter().chain(&[F::ZERO, F::ONE, -F::ONE, F::from(256)]) {
            assert_eq!(base.times(scalar), G1::from(point) * scalar);
        }
    }
}
