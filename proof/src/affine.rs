//! Points of the curve in affine coordinates, and additions of them that share an inversion.
//!
//! It knows points, not what they stand for. They may depend on secrets, so copies of them are
//! overwritten when dropped. Running time depends on whether points are equal.

use blst::{blst_fp, blst_p1_affine};
use ff::Field;
use group::prime::PrimeCurveAffine;
use midnight_curves::Fp;
use zeroize::Zeroize;

use crate::field::G1Affine;

/// A point of the curve in affine coordinates. The identity is (0, 0), which is not on the curve.
#[derive(Clone, Copy)]
pub struct Point {
    x: Fp,
    y: Fp,
}

/// The lowest limb decides alone for all but one of 2^64 values.
#[inline(always)]
fn is_zero(value: &Fp) -> bool {
    let limbs = blst_fp::from(*value).l;
    limbs[0] == 0 && limbs == [0; 6]
}

/// The modulus of the coordinates.
const P: [u64; 6] = [
    0xb9fe_ffff_ffff_aaab,
    0x1eab_fffe_b153_ffff,
    0x6730_d2a0_f6b0_f624,
    0x6477_4b84_f385_12bf,
    0x4b1b_a7b6_434b_acd7,
    0x1a01_11ea_397f_e69a,
];

/// `a - b`. (The library's is a call and copies.)
#[inline(always)]
fn difference(a: &Fp, b: &Fp) -> Fp {
    let (a, b) = (blst_fp::from(*a).l, blst_fp::from(*b).l);
    let mut out = [0u64; 6];
    let mut borrow = false;
    for i in 0..6 {
        (out[i], borrow) = a[i].borrowing_sub(b[i], borrow);
    }
    // Below zero: add the modulus.
    let mask = 0u64.wrapping_sub(u64::from(borrow));
    let mut carry = false;
    for i in 0..6 {
        (out[i], carry) = out[i].carrying_add(P[i] & mask, carry);
    }
    Fp::from(blst_fp { l: out })
}

impl Point {
    /// The identity.
    pub const IDENTITY: Self = Self { x: Fp::ZERO, y: Fp::ZERO };

    /// The same point.
    pub fn new(point: &G1Affine) -> Self {
        if bool::from(point.is_identity()) {
            Self::IDENTITY
        } else {
            Self { x: point.x(), y: point.y() }
        }
    }

    /// The same point.
    pub fn affine(&self) -> G1Affine {
        let mut out = G1Affine::identity();
        *out.as_mut() = blst_p1_affine { x: self.x.into(), y: self.y.into() };
        out
    }

    #[inline(always)]
    fn is_identity(&self) -> bool {
        is_zero(&self.x) && is_zero(&self.y)
    }

    /// The point with the other sign.
    pub fn opposite(&self) -> Self {
        Self { x: self.x, y: -self.y }
    }
}

/// Points that depend on secrets, overwritten when dropped.
pub struct Points(pub Vec<Point>);

impl Points {
    /// `count` times the identity.
    pub fn identities(count: usize) -> Self {
        Self(vec![Point::IDENTITY; count])
    }
}

impl Drop for Points {
    fn drop(&mut self) {
        self.0.fill(Point::IDENTITY);
        // Keeps the compiler from removing the writes.
        std::hint::black_box(&mut self.0);
    }
}

/// An addition that waits for its inverse.
#[derive(Clone, Copy, Zeroize)]
struct Addition {
    sum: u32,
    addend: u32,
    doubling: bool,
}

/// Additions `sums[i] + addends[j]` that share one inversion. No two may be to the same sum.
pub struct Additions {
    waiting: Vec<Addition>,
    /// The denominator of each slope.
    denominators: Vec<Fp>,
    /// First their products up to each, then the slopes.
    slopes: Vec<Fp>,
}

impl Additions {
    /// Room for `count` additions, so that no copy is left behind by growth.
    pub fn new(count: usize) -> Self {
        Self {
            waiting: Vec::with_capacity(count),
            denominators: Vec::with_capacity(count),
            slopes: Vec::with_capacity(count),
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds `addends[addend]` to `sums[sum]`: at once where no inverse is needed, else at the next
    /// [`Self::finish`], which takes the same slices.
    #[inline(always)]
    pub fn push(&mut self, sums: &mut [Point], addends: &[Point], sum: usize, addend: usize) {
        let (p, q) = (&sums[sum], &addends[addend]);
        let denominator = difference(&q.x, &p.x);
        // The identity has x = 0.
        if is_zero(&denominator) || is_zero(&p.x) || is_zero(&q.x) {
            self.push_exception(&mut sums[sum], q, sum, addend);
        } else {
            self.wait(sum, addend, false, denominator);
        }
    }

    /// [`Self::push`] where a point may be the identity, or both have the same x.
    #[cold]
    fn push_exception(&mut self, p: &mut Point, q: &Point, sum: usize, addend: usize) {
        if q.is_identity() {
            return;
        }
        if p.is_identity() {
            *p = *q;
            return;
        }
        let denominator = difference(&q.x, &p.x);
        if !is_zero(&denominator) {
            self.wait(sum, addend, false, denominator);
            return;
        }
        // Points with the same x are equal or opposite.
        let twice = p.y + q.y;
        if is_zero(&twice) {
            *p = Point::IDENTITY;
        } else {
            self.wait(sum, addend, true, twice);
        }
    }

    #[inline(always)]
    fn wait(&mut self, sum: usize, addend: usize, doubling: bool, denominator: Fp) {
        self.waiting.push(Addition { sum: sum as u32, addend: addend as u32, doubling });
        self.denominators.push(denominator);
    }

    /// Does the additions that wait. A copy of a number that was just computed makes a processor
    /// wait, so most loops copy only what an earlier loop computed.
    pub fn finish(&mut self, sums: &mut [Point], addends: &[Point]) {
        let Self { waiting, denominators, slopes } = self;
        for (i, denominator) in denominators.iter().enumerate() {
            slopes.push(*denominator);
            if let [.., before, product] = &mut slopes[..=i] {
                *product *= &*before;
            }
        }
        let Some(product) = slopes.last() else { return };
        // No denominator is zero, so the inverse exists.
        let mut inverse = product.invert().unwrap_or(Fp::ZERO);
        for i in (1..slopes.len()).rev() {
            slopes[i] = slopes[i - 1];
            slopes[i] *= &inverse;
            inverse *= &denominators[i];
        }
        slopes[0] = inverse;
        for (addition, slope) in waiting.iter().zip(slopes.iter_mut()) {
            let p = &sums[addition.sum as usize];
            let q = &addends[addition.addend as usize];
            *slope *= &if addition.doubling { p.x.square().mul3() } else { difference(&q.y, &p.y) };
        }
        let squares = denominators.iter_mut();
        for ((addition, slope), square) in waiting.iter().zip(slopes.iter_mut()).zip(squares) {
            let p = &mut sums[addition.sum as usize];
            let q = &addends[addition.addend as usize];
            *square = *slope;
            *square *= &*slope;
            let x = difference(&difference(square, &p.x), &q.x);
            *slope *= &difference(&p.x, &x);
            *p = Point { x, y: difference(slope, &p.y) };
        }
        self.waiting.clear();
        self.denominators.clear();
        self.slopes.clear();
    }
}

impl Drop for Additions {
    fn drop(&mut self) {
        // Also what `clear` left in the spare room.
        let count = self.waiting.capacity();
        let nothing = Addition { sum: 0, addend: 0, doubling: false };
        self.waiting.resize(count, nothing);
        self.waiting.zeroize();
        for values in [&mut self.denominators, &mut self.slopes] {
            values.clear();
            values.resize(values.capacity(), Fp::ZERO);
            std::hint::black_box(values);
        }
    }
}

#[cfg(test)]
mod tests {
    use group::{Curve, Group};
    use proptest::prelude::*;

    use super::*;
    use crate::field::{G1, from_i64};

    fn multiple(of: i64) -> G1Affine {
        (G1::generator() * from_i64(of)).to_affine()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn sums_are_those_of_the_library(
            multiples in prop::collection::vec(
                prop_oneof![2 => -2i64..=2, 3 => any::<i64>()], 0..80),
        ) {
            let points: Vec<G1Affine> = multiples.iter().map(|m| multiple(*m)).collect();
            let half = points.len() / 2;
            let expected: Vec<G1Affine> = (0..half)
                .map(|i| (G1::from(points[i]) + points[half + i]).to_affine())
                .collect();
            let mut sums: Vec<Point> = points[..half].iter().map(Point::new).collect();
            let addends: Vec<Point> = points[half..].iter().map(Point::new).collect();
            let mut additions = Additions::new(half);
            for i in 0..half {
                additions.push(&mut sums, &addends, i, i);
            }
            additions.finish(&mut sums, &addends);
            prop_assert_eq!(sums.iter().map(Point::affine).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn differences_are_those_of_the_library(a in any::<i64>(), b in any::<i64>()) {
            let points = [multiple(a), multiple(b)];
            for x in [points[0].x(), points[0].y(), Fp::ZERO, Fp::ONE, -Fp::ONE] {
                for y in [points[1].x(), points[1].y(), x, Fp::ZERO, Fp::ONE, -Fp::ONE] {
                    prop_assert_eq!(difference(&x, &y), x - y);
                }
            }
        }
    }

    #[test]
    fn points_are_kept() {
        for of in [0, 1, -1, 7, 1 << 40] {
            let point = multiple(of);
            assert_eq!(Point::new(&point).affine(), point);
            assert_eq!(Point::new(&point).opposite().affine(), -point);
            assert_eq!(Point::new(&point).is_identity(), of == 0);
        }
    }
}
