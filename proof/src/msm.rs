//! Multi-exponentiation `Σ sᵢ·Pᵢ` through `blst`'s Pippenger.
//!
//! It knows points and scalars, not what they stand for.

use blst::{MultiPoint, blst_p1, blst_p1_affine};
use group::{Curve, Group, prime::PrimeCurveAffine};
use zeroize::Zeroize;

use crate::field::{F, G1, G1Affine};

fn from_blst(point: blst_p1) -> G1 {
    let mut out = G1::identity();
    *out.as_mut() = point;
    out
}

/// `Σ scalars[i]·points[i]`. Points at infinity contribute nothing. If one list is longer, its rest
/// is ignored.
pub fn msm(points: &[G1Affine], scalars: &[F]) -> G1 {
    let mut bases: Vec<blst_p1_affine> = Vec::with_capacity(points.len());
    let mut bytes: Vec<u8> = Vec::with_capacity(points.len() * 32);
    for (point, scalar) in points.iter().zip(scalars) {
        if !bool::from(point.is_identity()) {
            bases.push(*point.as_ref());
            bytes.extend_from_slice(&scalar.to_bytes_le());
        }
    }
    if bases.is_empty() {
        return G1::identity();
    }
    let sum = from_blst(bases.as_slice().mult(&bytes, 255));
    // The scalars may be secret.
    bytes.zeroize();
    sum
}

/// `Σ scalars[i]·points[i]` for integers below 2^`bits` in magnitude: the points take the
/// signs, so the cost grows with `bits` and not with the field. `bits` is at most 31.
pub fn small_msm(points: &[G1Affine], scalars: &[i32], bits: u32) -> G1 {
    let bits = bits.clamp(1, 31) as usize;
    let width = bits.div_ceil(8);
    let mut bases: Vec<blst_p1_affine> = Vec::with_capacity(scalars.len());
    let mut bytes: Vec<u8> = Vec::with_capacity(scalars.len() * width);
    for (point, scalar) in points.iter().zip(scalars) {
        if *scalar == 0 || bool::from(point.is_identity()) {
            continue;
        }
        let signed = if *scalar < 0 { -*point } else { *point };
        bases.push(*signed.as_ref());
        bytes.extend_from_slice(&scalar.unsigned_abs().to_le_bytes()[..width]);
    }
    if bases.is_empty() {
        return G1::identity();
    }
    let sum = from_blst(bases.as_slice().mult(&bytes, bits));
    bytes.zeroize();
    sum
}

/// Converts all points to affine coordinates with one inversion.
pub fn to_affine(points: &[G1]) -> Vec<G1Affine> {
    // The library's batch conversion indexes the first point.
    if points.is_empty() {
        return Vec::new();
    }
    let mut out = vec![G1Affine::identity(); points.len()];
    G1::batch_normalize(points, &mut out);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::field::{from_i64, from_wide};

    fn points(count: usize) -> Vec<G1Affine> {
        to_affine(
            &(1..=count as u64).map(|i| G1::generator() * F::from(i * i + 7)).collect::<Vec<_>>(),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn small_msm_equals_the_sum_of_products(bits in 2u32..=31, raw in prop::collection::vec(any::<i32>(), 0..90)) {
            let limit = (1i64 << bits) - 1;
            let scalars: Vec<i32> = raw.iter().map(|v| (i64::from(*v) % (limit + 1)) as i32).collect();
            let points = points(scalars.len());
            let expected: G1 = points.iter().zip(&scalars).map(|(p, s)| G1::from(*p) * from_i64(i64::from(*s))).sum();
            prop_assert_eq!(small_msm(&points, &scalars, bits), expected);
        }

        #[test]
        fn msm_equals_the_sum_of_products(wide in prop::collection::vec(any::<[u8; 32]>(), 0..70)) {
            let scalars: Vec<F> = wide.iter().map(|w| { let mut b = [0u8; 64]; b[..32].copy_from_slice(w); from_wide(&b) }).collect();
            let points = points(scalars.len());
            let expected: G1 = points.iter().zip(&scalars).map(|(p, s)| G1::from(*p) * s).sum();
            prop_assert_eq!(msm(&points, &scalars), expected);
        }
    }

    #[test]
    fn identity_points_contribute_nothing() {
        let mut points = points(3);
        points[1] = G1Affine::identity();
        let scalars = [F::from(2), F::from(3), F::from(5)];
        assert_eq!(
            msm(&points, &scalars),
            G1::from(points[0]) * scalars[0] + G1::from(points[2]) * scalars[2]
        );
        assert_eq!(small_msm(&points[1..2], &[9], 8), G1::identity());
    }

    #[test]
    fn equal_and_opposite_points_are_summed_right() {
        // A prover picks the points of the span equation, so the addition must handle its
        // exceptional cases.
        let point = points(1)[0];
        for count in [2usize, 3, 31, 32, 33, 64, 300] {
            let same = vec![point; count];
            let ones = vec![F::from(1); count];
            assert_eq!(msm(&same, &ones), G1::from(point) * F::from(count as u64));
            let alternating: Vec<_> =
                (0..count).map(|i| if i % 2 == 0 { point } else { -point }).collect();
            assert_eq!(msm(&alternating, &ones), G1::from(point) * F::from((count % 2) as u64));
            let wide = F::from(3) - F::from(5);
            assert_eq!(
                msm(&alternating, &vec![wide; count]),
                G1::from(point) * (wide * F::from((count % 2) as u64))
            );
        }
    }
}
