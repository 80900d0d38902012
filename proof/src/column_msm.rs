//! Commitments to many columns of integers over the same bases.
//!
//! It knows points and integers, not what they stand for. Each integer is written in signed digits
//! (`Digits`), and each digit costs one addition in affine coordinates. The additions of all
//! columns at one base do not depend on each other, so they share one inversion (`Additions`).
//! There are two ways to spend these additions, and `Plan` takes the cheaper one:
//!
//! - Tables, for many columns: the multiples of a base are computed once for all columns, and the
//!   multiple that a digit names is added to the sum of its column.
//! - Buckets, for few columns: a base is added to the sum that its digit names, and at the end
//!   these sums are multiplied by their digits.
//!
//! Digits are signed, so integers from 0 to 2^16 - 1 would often have one more than those of 16
//! bits with a sign. Blocks of them are moved by 2^15, and one addition puts that right
//! (`is_moved`).
//!
//! Running time depends on the integers, as in [`crate::msm`]. Copies of them, and sums that depend
//! on them, are overwritten when dropped.

use std::ops::RangeInclusive;

use blst::{blst_fp, blst_p1_affine};
use ff::Field;
use group::{Curve, Group, prime::PrimeCurveAffine};
use midnight_curves::Fp;
use rayon::prelude::*;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    field::{F, G1, G1Affine, Secret, from_i64},
    msm::msm,
};

/// Fewest and most columns that share an inversion, with tables and with buckets (which take much
/// memory). An inversion takes as long as about 10 additions.
const TABLE_CHUNK: RangeInclusive<usize> = 128..=512;
const BUCKET_CHUNK: RangeInclusive<usize> = 16..=64;
/// Bits of a digit.
const WIDTHS: RangeInclusive<u32> = 2..=10;
/// Bases whose values, and tables, are in memory at a time.
const BLOCK: usize = 16;
/// How far a block of values is moved.
const MOVE: i64 = 1 << 15;
/// Bases whose tables are computed together.
const BUILD_BASES: usize = 4;

/// For each column, `Σ_i column[i]·bases[i]`. If one list is longer, its rest is ignored. (Below
/// about a hundred columns, [`small_msm`](crate::msm::small_msm) is as fast where it applies.)
pub fn commit_columns(bases: &[G1Affine], columns: &[&[i64]]) -> Vec<G1> {
    let columns = within(bases.len(), columns);
    let plan = Plan::new(bases.len(), &columns);
    let points: Vec<Point> = bases.iter().map(Point::new).collect();
    commit_by(plan, &points, &columns)
}

/// The columns without what has no base.
fn within<'a>(bases: usize, columns: &[&'a [i64]]) -> Vec<&'a [i64]> {
    columns.iter().map(|column| &column[..column.len().min(bases)]).collect()
}

/// The same as [`commit_columns`], from its definition.
pub fn commit_columns_plain(bases: &[G1Affine], columns: &[&[i64]]) -> Vec<G1> {
    let commit = |column: &&[i64]| {
        let scalars: Secret = Secret(column.iter().map(|value| from_i64(*value)).collect());
        let scalars: &[F] = &scalars;
        msm(bases, scalars)
    };
    columns.iter().map(commit).collect()
}

fn commit_by(plan: Plan, points: &[Point], columns: &[&[i64]]) -> Vec<G1> {
    match plan.method {
        Method::Tables => by_tables(plan, points, columns),
        Method::Buckets => by_buckets(plan, points, columns),
    }
}

/// The digits of an integer, lowest first: it is `Σ_w digit_w·2^(width·w)`. A digit is at most
/// 2^(width-1) in magnitude.
struct Digits {
    rest: i64,
    width: u32,
}

impl Iterator for Digits {
    type Item = i32;

    #[inline(always)]
    fn next(&mut self) -> Option<i32> {
        if self.rest == 0 {
            return None;
        }
        let half = 1i64 << (self.width - 1);
        if self.rest.unsigned_abs() <= half as u64 {
            let digit = self.rest as i32;
            self.rest = 0;
            return Some(digit);
        }
        // The lowest `width` bits, as a signed number.
        let unused = 64 - self.width;
        let digit = (self.rest << unused) >> unused;
        // `(rest - digit) >> width`, without the overflow.
        self.rest = (self.rest >> self.width) + i64::from(digit < 0);
        Some(digit as i32)
    }
}

/// Whether the values at a whole block of bases are committed to as `value - MOVE`, and `MOVE`
/// times the sum of the bases: large ones have a digit less then, and small ones have one more.
fn is_moved(values: &[i64]) -> bool {
    let is_whole =
        values.len() == BLOCK && values.iter().all(|value| (0..2 * MOVE).contains(value));
    let large = values.iter().filter(|value| **value >= MOVE - 128).count();
    let small = values.iter().filter(|value| **value < 128).count();
    is_whole && large > small + 1
}

/// For each block of bases these, and if it is whole the opposite of their sum.
fn with_sums(points: &[Point]) -> Vec<Point> {
    let mut all = Vec::with_capacity(points.len() + points.len() / BLOCK);
    for block in points.chunks(BLOCK) {
        all.extend_from_slice(block);
        if block.len() == BLOCK {
            let sum: G1 = block.iter().map(|point| G1::from(point.affine())).sum();
            all.push(Point::new(&(-sum).to_affine()));
        }
    }
    all
}

/// Most digits of an integer from -2^`bits` to 2^`bits`. (One step takes it to at most
/// 2^(bits-width) in magnitude, and the last digit may be 2^(width-1).)
fn digit_count(bits: u32, width: u32) -> usize {
    (bits + 1).div_ceil(width) as usize
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Tables,
    Buckets,
}

/// How the additions are spent.
#[derive(Clone, Copy, Debug)]
struct Plan {
    method: Method,
    /// Bits of a digit.
    width: u32,
    /// Digits of the largest integer.
    windows: usize,
}

impl Plan {
    /// The plan with the fewest additions.
    fn new(bases: usize, columns: &[&[i64]]) -> Self {
        let mut counts = columns
            .par_iter()
            .map(|column| {
                let mut counts = [0u64; 64];
                let mut count = |value: i64| {
                    let bits = 64 - (value ^ (value >> 63)).leading_zeros();
                    counts[bits as usize] += u64::from(value != 0);
                };
                for block in column.chunks(BLOCK) {
                    if is_moved(block) {
                        block.iter().for_each(|value| count(value - MOVE));
                        count(-MOVE);
                    } else {
                        block.iter().for_each(|value| count(*value));
                    }
                }
                counts
            })
            .reduce(|| [0u64; 64], |a, b| std::array::from_fn(|bits| a[bits] + b[bits]));
        let most = counts.iter().rposition(|count| *count > 0);
        let bases = bases + bases / BLOCK;
        let mut best = (u64::MAX, Self { method: Method::Buckets, width: 2, windows: 0 });
        for width in WIDTHS {
            let half = 1u64 << (width - 1);
            let windows = most.map_or(0, |bits| digit_count(bits as u32, width));
            let digits: u64 = (0u32..)
                .zip(&counts)
                .map(|(bits, count)| digit_count(bits, width) as u64 * count)
                .sum();
            // A multiple and its opposite take longer than one addition to a sum.
            let tables = digits + (half + half / 4) * bases as u64;
            // Buckets do not fit into the nearest cache: an addition takes a quarter longer.
            let buckets = digits + digits / 4 + 2 * half * windows as u64 * columns.len() as u64;
            for (cost, method) in [(tables, Method::Tables), (buckets, Method::Buckets)] {
                if cost < best.0 {
                    best = (cost, Self { method, width, windows });
                }
            }
        }
        counts.zeroize();
        best.1
    }

    /// Columns for one task, so that all threads have work.
    fn chunk(&self, columns: usize) -> usize {
        let sizes = match self.method {
            Method::Tables => TABLE_CHUNK,
            Method::Buckets => BUCKET_CHUNK,
        };
        columns.div_ceil(rayon::current_num_threads()).clamp(*sizes.start(), *sizes.end())
    }

    /// The largest magnitude of a digit.
    fn half(&self) -> usize {
        1 << (self.width - 1)
    }

    fn digits(&self, value: i64) -> impl Iterator<Item = (usize, i32)> {
        Digits { rest: value, width: self.width }.enumerate().filter(|(_, digit)| *digit != 0)
    }
}

/// A point of the curve in affine coordinates. The identity is (0, 0), which is not on the curve.
#[derive(Clone, Copy)]
struct Point {
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
    const IDENTITY: Self = Self { x: Fp::ZERO, y: Fp::ZERO };

    fn new(point: &G1Affine) -> Self {
        if bool::from(point.is_identity()) {
            Self::IDENTITY
        } else {
            Self { x: point.x(), y: point.y() }
        }
    }

    fn affine(&self) -> G1Affine {
        let mut out = G1Affine::identity();
        *out.as_mut() = blst_p1_affine { x: self.x.into(), y: self.y.into() };
        out
    }

    #[inline(always)]
    fn is_identity(&self) -> bool {
        is_zero(&self.x) && is_zero(&self.y)
    }

    fn opposite(&self) -> Self {
        Self { x: self.x, y: -self.y }
    }
}

/// Points that depend on secrets, overwritten when dropped.
struct Points(Vec<Point>);

impl Points {
    fn identities(count: usize) -> Self {
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
struct Additions {
    waiting: Vec<Addition>,
    /// The denominator of each slope.
    denominators: Vec<Fp>,
    /// First their products up to each, then the slopes.
    slopes: Vec<Fp>,
}

impl Additions {
    /// Room for `count` additions, so that no copy is left behind by growth.
    fn new(count: usize) -> Self {
        Self {
            waiting: Vec::with_capacity(count),
            denominators: Vec::with_capacity(count),
            slopes: Vec::with_capacity(count),
        }
    }

    /// Adds `addends[addend]` to `sums[sum]`: at once where no inverse is needed, else at the next
    /// [`Self::finish`], which takes the same slices.
    #[inline(always)]
    fn push(&mut self, sums: &mut [Point], addends: &[Point], sum: usize, addend: usize) {
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
    fn finish(&mut self, sums: &mut [Point], addends: &[Point]) {
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

/// The columns of a chunk, and a sum for each of their windows, window by window.
struct Chunk<'a> {
    columns: &'a [&'a [i64]],
    sums: Points,
    additions: Additions,
    /// The values at a block of bases and at the opposite of their sum, base by base: a base that
    /// reads its values from the columns waits for memory.
    values: Zeroizing<Vec<i64>>,
}

impl<'a> Chunk<'a> {
    fn new(plan: Plan, columns: &'a [&'a [i64]]) -> Self {
        let count = columns.len() * plan.windows;
        Self {
            columns,
            sums: Points::identities(count),
            additions: Additions::new(count),
            values: Zeroizing::new(vec![0; columns.len() * (BLOCK + 1)]),
        }
    }

    /// Reads the values at the bases from `first` on.
    fn read(&mut self, first: usize) {
        let count = self.columns.len();
        for (k, column) in self.columns.iter().enumerate() {
            let block = column.get(first..).unwrap_or(&[]);
            let block = &block[..block.len().min(BLOCK)];
            let by = if is_moved(block) { MOVE } else { 0 };
            for b in 0..BLOCK {
                self.values[b * count + k] = block.get(b).map_or(0, |value| value - by);
            }
            self.values[BLOCK * count + k] = -by;
        }
    }

    /// Adds the products with a block of bases, of which `tables` has the multiples, as of the
    /// opposite of their sum. The first is the base `first`.
    fn add(&mut self, plan: Plan, tables: &[Point], first: usize) {
        self.read(first);
        let (half, count) = (plan.half(), self.columns.len());
        let Self { sums: Points(sums), additions, values, .. } = self;
        for (table, values) in tables.chunks_exact(2 * half + 1).zip(values.chunks_exact(count)) {
            warm(table);
            for (k, value) in values.iter().enumerate() {
                for (window, digit) in plan.digits(*value) {
                    let multiple = half.wrapping_add_signed(digit as isize);
                    additions.push(sums, table, window * count + k, multiple);
                }
            }
            additions.finish(sums, table);
        }
    }

    /// Adds the products with all bases, given with their opposites.
    fn add_by_buckets(&mut self, plan: Plan, signed: &[Point]) {
        let (half, count) = (plan.half(), self.columns.len());
        let lanes = self.sums.0.len();
        let mut buckets = Points::identities(lanes * half);
        let Points(buckets) = &mut buckets;
        for (signed, first) in signed.chunks(2 * (BLOCK + 1)).zip((0..).step_by(BLOCK)) {
            self.read(first);
            for (signed, values) in signed.chunks_exact(2).zip(self.values.chunks_exact(count)) {
                for (k, value) in values.iter().enumerate() {
                    for (window, digit) in plan.digits(*value) {
                        let lane = window * count + k;
                        let bucket = lane * half + digit.unsigned_abs() as usize - 1;
                        self.additions.push(buckets, signed, bucket, usize::from(digit < 0));
                    }
                }
                self.additions.finish(buckets, signed);
            }
        }
        // `Σ_d d·bucket_d` is the sum of the sums from each bucket up.
        let mut above = Points::identities(lanes);
        for d in (0..half).rev() {
            for lane in 0..lanes {
                self.additions.push(&mut above.0, buckets, lane, lane * half + d);
            }
            self.additions.finish(&mut above.0, buckets);
            for lane in 0..lanes {
                self.additions.push(&mut self.sums.0, &above.0, lane, lane);
            }
            self.additions.finish(&mut self.sums.0, &above.0);
        }
    }

    /// The commitments: for each column `Σ_w 2^(width·w)·sum_w`.
    fn commitments(&self, plan: Plan) -> Vec<G1> {
        let commitment = |k: usize| {
            let sums = self.sums.0.iter().skip(k).step_by(self.columns.len());
            sums.rev().fold(G1::identity(), |high, sum| {
                let high = if bool::from(high.is_identity()) {
                    high
                } else {
                    (0..plan.width).fold(high, |point, _| point.double())
                };
                high + sum.affine()
            })
        };
        (0..self.columns.len()).map(commitment).collect()
    }
}

/// Reads points in order, which takes memory less time than the digits' order.
fn warm(points: &[Point]) {
    let read = |point: &Point| blst_fp::from(point.x).l[0] ^ blst_fp::from(point.y).l[5];
    std::hint::black_box(points.iter().fold(0, |all, point| all ^ read(point)));
}

/// The multiples -`half` to `half` of each point, point by point.
fn tables(points: &[Point], half: usize) -> Vec<Point> {
    let size = 2 * half + 1;
    let build = |(tables, points): (&mut [Point], &[Point])| {
        for (table, point) in tables.chunks_exact_mut(size).zip(points) {
            table[half + 1] = *point;
        }
        let mut additions = Additions::new(points.len() * half.div_ceil(2));
        let mut known = 1;
        while known < half {
            // The multiples up to `known`, plus `known` times the point.
            let count = known.min(half - known);
            let mut steps = Vec::with_capacity(points.len());
            for table in tables.chunks_exact_mut(size) {
                table.copy_within(half + 1..half + 1 + count, half + 1 + known);
                steps.push(table[half + known]);
            }
            for b in 0..steps.len() {
                let next = b * size + half + 1 + known;
                for sum in next..next + count {
                    additions.push(tables, &steps, sum, b);
                }
            }
            additions.finish(tables, &steps);
            known += count;
        }
        for table in tables.chunks_exact_mut(size) {
            for multiple in 1..=half {
                table[half - multiple] = table[half + multiple].opposite();
            }
        }
    };
    let mut out = vec![Point::IDENTITY; points.len() * size];
    out.par_chunks_mut(BUILD_BASES * size).zip(points.par_chunks(BUILD_BASES)).for_each(build);
    out
}

fn by_tables(plan: Plan, points: &[Point], columns: &[&[i64]]) -> Vec<G1> {
    let mut chunks: Vec<Chunk<'_>> = columns
        .chunks(plan.chunk(columns.len()))
        .map(|columns| Chunk::new(plan, columns))
        .collect();
    let points = with_sums(points);
    for (points, first) in points.chunks(BLOCK + 1).zip((0..).step_by(BLOCK)) {
        let tables = tables(points, plan.half());
        chunks.par_iter_mut().for_each(|chunk| chunk.add(plan, &tables, first));
    }
    chunks.par_iter().flat_map_iter(|chunk| chunk.commitments(plan)).collect()
}

fn by_buckets(plan: Plan, points: &[Point], columns: &[&[i64]]) -> Vec<G1> {
    let points = with_sums(points);
    let signed: Vec<Point> = points.iter().flat_map(|point| [*point, point.opposite()]).collect();
    let commit = |columns: &[&[i64]]| {
        let mut chunk = Chunk::new(plan, columns);
        chunk.add_by_buckets(plan, &signed);
        chunk.commitments(plan)
    };
    columns.par_chunks(plan.chunk(columns.len())).flat_map_iter(commit).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Multiples of one point, among them equal and opposite ones and the identity.
    fn bases(multiples: &[i64]) -> Vec<G1Affine> {
        multiples.iter().map(|m| (G1::generator() * from_i64(*m)).to_affine()).collect()
    }

    fn slices(columns: &[Vec<i64>]) -> Vec<&[i64]> {
        columns.iter().map(Vec::as_slice).collect()
    }

    fn values() -> impl Strategy<Value = i64> {
        prop_oneof![
            3 => Just(0),
            3 => -2i64..=2,
            3 => -(1i64 << 16)..=1 << 16,
            1 => -(1i64 << 33)..=1 << 33,
            1 => any::<i64>(),
            1 => prop::sample::select(vec![i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1]),
            1 => (0u32..63, -1i64..=1, any::<bool>()).prop_map(|(bit, near, negative)| {
                let value = (1i64 << bit) + near;
                if negative { -value } else { value }
            }),
        ]
    }

    fn multiples() -> impl Strategy<Value = i64> {
        prop_oneof![4 => -3i64..=3, 1 => any::<i32>().prop_map(i64::from)]
    }

    /// As [`commit_columns`], for all plans.
    fn every_plan(bases: &[G1Affine], columns: &[&[i64]]) -> Vec<(Plan, Vec<G1>)> {
        let points: Vec<Point> = bases.iter().map(Point::new).collect();
        let columns = within(bases.len(), columns);
        WIDTHS
            .flat_map(|width| [Method::Tables, Method::Buckets].map(|method| (width, method)))
            .map(|(width, method)| {
                let windows = digit_count(63, width);
                let plan = Plan { method, width, windows };
                (plan, commit_by(plan, &points, &columns))
            })
            .collect()
    }

    proptest! {
        #[test]
        fn digits_make_up_their_integer(value in values(), width in 2u32..=16) {
            let digits: Vec<i32> = Digits { rest: value, width }.collect();
            let sum = digits.iter().rev().fold(0i128, |high, d| (high << width) + i128::from(*d));
            prop_assert_eq!(sum, i128::from(value));
            prop_assert!(digits.iter().all(|digit| digit.unsigned_abs() <= 1 << (width - 1)));
            let bits = 64 - (value ^ (value >> 63)).leading_zeros();
            prop_assert!(digits.len() <= digit_count(bits, width));
        }

        #[test]
        fn differences_are_those_of_the_library(a in any::<i64>(), b in any::<i64>()) {
            let points = bases(&[a, b]);
            for x in [points[0].x(), points[0].y(), Fp::ZERO, Fp::ONE, -Fp::ONE] {
                for y in [points[1].x(), points[1].y(), x, Fp::ZERO, Fp::ONE, -Fp::ONE] {
                    prop_assert_eq!(difference(&x, &y), x - y);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_plan_has_the_plain_commitments(
            multiples in prop::collection::vec(multiples(), 0..40),
            columns in prop::collection::vec(prop::collection::vec(values(), 0..44), 0..6),
        ) {
            let (bases, columns) = (bases(&multiples), slices(&columns));
            let plain = commit_columns_plain(&bases, &columns);
            for (plan, commitments) in every_plan(&bases, &columns) {
                prop_assert!(commitments == plain, "{:?}", plan);
            }
            prop_assert!(commit_columns(&bases, &columns) == plain);
        }

        #[test]
        fn many_columns_have_the_plain_commitments(
            multiples in prop::collection::vec(multiples(), 1..20),
            seeds in prop::collection::vec(prop::collection::vec(values(), 20), 12),
            count in 1usize..700,
        ) {
            // More columns than a chunk has.
            let columns: Vec<&[i64]> =
                (0..count).map(|k| &seeds[k % 12][k % 7..20 - k % 3]).collect();
            let bases = bases(&multiples);
            let plain = commit_columns_plain(&bases, &columns[..count.min(84)]);
            let commitments = commit_columns(&bases, &columns);
            prop_assert_eq!(commitments.len(), count);
            // The columns repeat: 84 is a multiple of 12, 7 and 3.
            for (k, commitment) in commitments.iter().enumerate() {
                prop_assert!(*commitment == plain[k % 84]);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn moved_blocks_have_the_plain_commitments(
            multiples in prop::collection::vec(multiples(), 30..50),
            columns in prop::collection::vec(
                prop::collection::vec(
                    prop_oneof![6 => 0i64..1 << 16, 1 => (1i64 << 15) - 130..=1 << 15, 1 => Just(0)],
                    14..50,
                ),
                1..6,
            ),
        ) {
            let (bases, columns) = (bases(&multiples), slices(&columns));
            let plain = commit_columns_plain(&bases, &columns);
            for (plan, commitments) in every_plan(&bases, &columns) {
                prop_assert!(commitments == plain, "{:?}", plan);
            }
            prop_assert!(commit_columns(&bases, &columns) == plain);
        }
    }

    #[test]
    fn integers_without_a_sign_have_two_digits() {
        let column: Vec<i64> = (0..4080).map(|i| (i * 40_503) % 65_536).collect();
        let moved = column.chunks(BLOCK).filter(|block| is_moved(block)).count();
        assert_eq!(moved, 4080 / BLOCK);
        let plan = Plan::new(4088, &vec![&column[..]; 4096]);
        assert_eq!((plan.method, plan.width, plan.windows), (Method::Tables, 8, 2));
    }

    #[test]
    fn nothing_commits_to_the_identity() {
        let some = bases(&[1, 2, 3]);
        assert!(commit_columns(&some, &[]).is_empty());
        assert!(commit_columns(&[], &[]).is_empty());
        for columns in [&[&[][..], &[][..]], &[&[0, 0, 0][..], &[0][..]]] {
            assert_eq!(commit_columns(&some, columns), [G1::identity(); 2]);
        }
        assert_eq!(commit_columns(&[], &[&[1, 2]]), [G1::identity()]);
        assert_eq!(commit_columns(&bases(&[0, 0]), &[&[1, i64::MIN]]), [G1::identity()]);
    }

    #[test]
    fn equal_and_opposite_points_are_summed_right() {
        for count in [1usize, 2, 3, 15, 16, 17, 33] {
            let same = bases(&vec![5; count]);
            let opposite = bases(&(0..count).map(|i| [5, -5][i % 2]).collect::<Vec<_>>());
            let columns: Vec<Vec<i64>> =
                [1, -1, 2, 128, -128, 129].iter().map(|value| vec![*value; count]).collect();
            let columns = slices(&columns);
            for bases in [same, opposite] {
                let plain = commit_columns_plain(&bases, &columns);
                for (plan, commitments) in every_plan(&bases, &columns) {
                    assert!(commitments == plain, "{plan:?}");
                }
            }
        }
    }

    #[test]
    fn few_columns_take_buckets_and_many_take_tables() {
        let column: Vec<i64> = (0..4088).map(|i| (i * 40_503) % 65_536 - 32_768).collect();
        let few = Plan::new(4088, &[&column[..]; 64]);
        assert_eq!((few.method, few.width, few.windows), (Method::Buckets, 8, 2));
        let many = Plan::new(4088, &vec![&column[..]; 4096]);
        assert_eq!((many.method, many.width, many.windows), (Method::Tables, 8, 2));
    }

    /// Prints nanoseconds per value of 16 bits, here and by [`small_msm`](crate::msm::small_msm)
    /// for each column. `RAYON_NUM_THREADS` and `taskset` choose the threads.
    #[test]
    #[ignore = "a measurement"]
    fn speed() {
        use std::{hint::black_box, time::Instant};
        const ROWS: usize = 4088;
        let bases = bases(&(1..=ROWS as i64).map(|i| i * i + 7).collect::<Vec<_>>());
        let mut state = 1u64;
        let columns: Vec<Vec<i64>> = (0..4096)
            .map(|_| {
                let mut next = || {
                    state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    i64::from((state >> 48) as i16)
                };
                (0..ROWS).map(|_| next()).collect()
            })
            .collect();
        let narrow: Vec<i32> = columns[0].iter().map(|value| *value as i32).collect();
        let columns = slices(&columns);
        let per_value = |started: Instant, columns: usize| {
            started.elapsed().as_nanos() as f64 / (columns * ROWS) as f64
        };
        for count in [64, 512, 4096] {
            let (mut here, mut there) = (f64::MAX, f64::MAX);
            for _ in 0..(1024 / count).clamp(1, 4) {
                let started = Instant::now();
                black_box(commit_columns(&bases, &columns[..count]));
                here = here.min(per_value(started, count));
                for _ in 0..8 {
                    let started = Instant::now();
                    black_box(crate::msm::small_msm(&bases, &narrow, 16));
                    there = there.min(per_value(started, 1));
                }
            }
            let threads = rayon::current_num_threads();
            eprintln!("{count} columns, {threads} threads: {here:.0} ns; small_msm {there:.0} ns");
        }
    }
}
