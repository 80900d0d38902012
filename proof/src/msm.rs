//! Multi-exponentiation `Σ sᵢ·Pᵢ`.
//!
//! It knows points and scalars, not what they stand for. Running time depends on the scalars.

use blst::{MultiPoint, blst_p1, blst_p1_affine};
use group::{Curve, Group, prime::PrimeCurveAffine};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    field::{F, G1, G1Affine, Limbs, limbs},
    windows::{self, Plan},
};

/// Below so many points, `blst` is as fast.
const FEW: usize = 96;
/// Bits of a scalar, and a sign.
const BITS: u32 = 256;

/// `Σ scalars[i]·points[i]`. Points at infinity contribute nothing. If one list is longer, its rest
/// is ignored.
pub fn msm(points: &[G1Affine], scalars: &[F]) -> G1 {
    let count = points.len().min(scalars.len());
    let (points, scalars) = (&points[..count], &scalars[..count]);
    if count < FEW {
        return plain(points, scalars);
    }
    by_windows(points, scalars)
}

fn by_windows(points: &[G1Affine], scalars: &[F]) -> G1 {
    let limbs: Zeroizing<Vec<Limbs>> = Zeroizing::new(scalars.iter().map(limbs).collect());
    let plan = Plan::new(points.len(), BITS);
    windows::sum(&windows::signed(points), plan, |i, window| plan.digit(&limbs[i], window))
}

/// The same as [`msm`], by `blst`.
pub fn plain(points: &[G1Affine], scalars: &[F]) -> G1 {
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

fn from_blst(point: blst_p1) -> G1 {
    let mut out = G1::identity();
    *out.as_mut() = point;
    out
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

    use ff::Field;

    use super::*;
    use crate::field::from_wide;

    fn points(count: usize) -> Vec<G1Affine> {
        to_affine(
            &(1..=count as u64).map(|i| G1::generator() * F::from(i * i + 7)).collect::<Vec<_>>(),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn msm_equals_the_sum_of_products(wide in prop::collection::vec(any::<[u8; 32]>(), 0..70)) {
            let scalars: Vec<F> = wide.iter().map(|w| { let mut b = [0u8; 64]; b[..32].copy_from_slice(w); from_wide(&b) }).collect();
            let points = points(scalars.len());
            let expected: G1 = points.iter().zip(&scalars).map(|(p, s)| G1::from(*p) * s).sum();
            prop_assert_eq!(msm(&points, &scalars), expected);
            prop_assert_eq!(plain(&points, &scalars), expected);
            prop_assert_eq!(by_windows(&points, &scalars), expected);
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
    }

    #[test]
    fn windows_take_extreme_scalars_and_identities() {
        let half = F::from(2).invert().unwrap();
        let power = (0..254).fold(F::ONE, |power, _| power.double());
        let extreme =
            [F::ZERO, F::ONE, -F::ONE, half, -half, half - F::ONE, power, -power, power - F::ONE];
        let mut points = points(FEW + 50);
        (points[7], points[FEW]) = (G1Affine::identity(), G1Affine::identity());
        (points[20], points[30]) = (points[40], -points[40]);
        for shift in 0..extreme.len() {
            let scalar = |i: usize| extreme[(i * i + shift) % extreme.len()];
            let scalars: Vec<F> = (0..points.len()).map(scalar).collect();
            assert_eq!(msm(&points, &scalars), plain(&points, &scalars));
            assert_eq!(by_windows(&points[..9], &scalars), plain(&points[..9], &scalars[..9]));
            let same = vec![scalars[1]; points.len()];
            assert_eq!(msm(&points, &same), plain(&points, &same));
        }
        assert_eq!(by_windows(&[], &[]), G1::identity());
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

    /// Prints microseconds by each way and number of points, on one thread and on all.
    #[test]
    #[ignore = "a measurement"]
    fn speed() {
        use std::{hint::black_box, time::Instant};
        let points = points(16384);
        let scalars = crate::field::powers(F::from(0x9E37_79B9_7F4A_7C15).square(), 16384 + 7);
        let time = |of: &dyn Fn() -> G1| {
            let once = |_| {
                let started = Instant::now();
                black_box(of());
                started.elapsed().as_micros()
            };
            (0..6).map(once).min().unwrap()
        };
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        for count in [48, 96, 192, 512, 1024, 2048, 4096, 16384] {
            let (points, scalars) = (&points[..count], &scalars[7..7 + count]);
            let [here, blst] = [by_windows, plain].map(|of| time(&|| of(points, scalars)));
            let [one, blst_one] =
                [by_windows, plain].map(|of| one.install(|| time(&|| of(points, scalars))));
            eprintln!(
                "{count} points: {here} µs, blst {blst} µs; one thread {one}, blst {blst_one}"
            );
        }
    }
}
