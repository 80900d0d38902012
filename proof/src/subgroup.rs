//! Whether many points of the curve lie in the prime-order group (docs/protocol.md, "Manifest and
//! adapter id").
//!
//! A check of one point takes as long as about 150 additions, so many points are checked by sums of
//! random subsets. If a point is not in the group, then a subset with it and the same subset
//! without it cannot both have their sums in the group. So a sum is outside with probability one
//! half at least, and all of the 128 or more are inside with probability 2^−128 at most. The
//! subsets are a hash of all points: an attacker who looks for points that pass tries 2^128 of
//! them.

use group::{Group, GroupEncoding};
use rayon::prelude::*;

use crate::{
    field::{G1, G1Affine},
    msm::to_affine,
    windows::{self, subset_sums},
};

/// Sums of random subsets, at least.
const SUMS: usize = 128;
/// Below so many points, each is checked.
const FEW: usize = 512;
/// Points that are summed at a time, so that memory does not grow with them.
const PIECE: usize = 1 << 15;

/// Whether all points of the curve lie in the prime-order group.
pub fn contains(points: &[G1Affine]) -> bool {
    match points.len() < FEW {
        true => each(points),
        false => by_subsets(points, &digest(points)),
    }
}

/// The same as [`contains`], point by point.
fn each(points: &[G1Affine]) -> bool {
    points.par_iter().all(|point| bool::from(point.is_torsion_free()))
}

fn digest(points: &[G1Affine]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("zklora v1 subsets");
    for point in points {
        hasher.update(point.to_bytes().as_ref());
    }
    *hasher.finalize().as_bytes()
}

fn by_subsets(points: &[G1Affine], key: &[u8; 32]) -> bool {
    // More sums at once cost 2^bits additions and save reading all points.
    let bits = points.len().max(1).ilog2().saturating_sub(3).clamp(4, 11);
    let rounds = SUMS.div_ceil(bits as usize);
    let mut sums = vec![G1::identity(); rounds * bits as usize];
    for (piece, points) in points.chunks(PIECE).enumerate() {
        let signed = windows::signed(points);
        sums.par_chunks_exact_mut(bits as usize).enumerate().for_each(|(round, sums)| {
            // Each bit of a number says whether the point is in one of the subsets.
            let numbers = numbers(key, piece, round, points.len(), bits);
            for (sum, addend) in sums.iter_mut().zip(subset_sums(&signed, &numbers, bits)) {
                *sum += addend;
            }
        });
    }
    each(&to_affine(&sums))
}

/// Random numbers of so many bits, at most 16.
fn numbers(key: &[u8; 32], piece: usize, round: usize, count: usize, bits: u32) -> Vec<i32> {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&(piece as u64).to_le_bytes());
    hasher.update(&(round as u64).to_le_bytes());
    let mut bytes = vec![0; 2 * count];
    hasher.finalize_xof().fill(&mut bytes);
    let (words, _) = bytes.as_chunks::<2>();
    words.iter().map(|word| i32::from(u16::from_le_bytes(*word)) & ((1 << bits) - 1)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ff::Field;
    use group::{Curve, Group};

    use super::*;
    use crate::{
        field::{F, G1},
        msm::to_affine,
    };

    /// Points of the curve outside the prime-order group, of small order and of any.
    fn outside() -> Vec<G1Affine> {
        let any = (1u8..).filter_map(|x| {
            let mut bytes = [0u8; 48];
            (bytes[0], bytes[47]) = (0x80, x);
            let mut repr = <G1Affine as GroupEncoding>::Repr::default();
            repr.as_mut().copy_from_slice(&bytes);
            let point: Option<G1Affine> = G1Affine::from_bytes_unchecked(&repr).into();
            point.filter(|point| !bool::from(point.is_torsion_free()))
        });
        let any: Vec<G1Affine> = any.take(3).collect();
        // Times the order of the group: what is left has an order that divides the cofactor, and
        // times the cofactor's part without 3 and 11, one that divides 3·11².
        let order = (F::ZERO - F::ONE).to_bytes_le();
        let times = |point: &G1Affine, scalar: &[u8]| {
            let mut sum = G1::identity();
            for byte in scalar.iter().rev() {
                for bit in (0..8).rev() {
                    sum = sum.double();
                    if byte >> bit & 1 == 1 {
                        sum += point;
                    }
                }
            }
            sum
        };
        let small = any.iter().map(|point| (times(point, &order) + point).to_affine());
        let rest = [10177u64, 859_267, 52_437_899];
        let smaller = small.clone().map(|point| {
            rest.iter().fold(point, |point, prime| {
                let once = times(&point, &prime.to_le_bytes()).to_affine();
                times(&once, &prime.to_le_bytes()).to_affine()
            })
        });
        let all: Vec<G1Affine> = any.iter().copied().chain(small.clone()).chain(smaller).collect();
        all.into_iter().filter(|point| !bool::from(point.is_torsion_free())).collect()
    }

    #[test]
    fn one_point_outside_the_group_is_found() {
        let inside: Vec<G1> = (1..=700u64).map(|i| G1::generator() * F::from(i * i + 7)).collect();
        let inside = to_affine(&inside);
        for count in [1, 2, 511, 512, 700] {
            assert!(contains(&inside[..count]));
            assert!(by_subsets(&inside[..count], &digest(&inside)));
        }
        let outside = outside();
        assert!(outside.len() > 4, "{}", outside.len());
        for point in &outside {
            assert!(!each(std::slice::from_ref(point)));
            for at in [0, 1, 350, 699] {
                let mut points = inside.clone();
                points[at] = *point;
                assert!(!contains(&points));
            }
        }
        // Several, whose sum is in the group.
        let mut points = inside.clone();
        (points[3], points[600]) = (outside[0], -outside[0]);
        assert!(!contains(&points));
        let mut points = vec![outside[0]; 600];
        assert!(!contains(&points));
        points.fill(G1Affine::from(G1::generator()));
        assert!(contains(&points));
    }
}
