//! Commitments to many columns of integers over the same bases.
//!
//! It knows points and integers, not what they stand for. Each integer is written in signed digits
//! (`Digits`), and each digit costs one addition in affine coordinates. There are two ways to spend
//! these additions, and `Plan` takes the cheaper one:
//!
//! - Tables, for many columns: the multiples of a base are computed once for all columns, and the
//!   multiple that a digit names is added to the sum of its column. The additions of all columns at
//!   one base do not depend on each other, so they share one inversion.
//! - Windows, for few columns: a multi-exponentiation for each (`windows`).
//!
//! Digits are signed, so integers from 0 to 2^16 - 1 would often have one more than those of 16
//! bits with a sign. Blocks of them are moved by 2^15, and one addition puts that right
//! (`is_moved`).
//!
//! Running time depends on the integers, as in [`crate::msm`]. Copies of them, and sums that depend
//! on them, are overwritten when dropped.

use std::ops::RangeInclusive;

use group::{Curve, Group};
use rayon::prelude::*;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    affine::{Additions, Point, Points},
    field::{G1, G1Affine, Secret, from_i64},
    msm, windows,
};

/// Fewest and most columns whose additions share an inversion, which takes as long as about 10 of
/// them.
const CHUNK: RangeInclusive<usize> = 128..=512;
/// Bits of a digit.
const WIDTHS: RangeInclusive<u32> = 2..=10;
/// Bases whose values, and tables, are in memory at a time.
const BLOCK: usize = 16;
/// How far a block of values is moved.
const MOVE: i64 = 1 << 15;
/// Bases whose tables are computed together.
const BUILD_BASES: usize = 4;

/// An integer of a column.
pub trait Integer: Copy + Send + Sync + Into<i64> {}
impl Integer for i32 {}
impl Integer for i64 {}

/// For each column, `Σ_i column[i]·bases[i]`. If one list is longer, its rest is ignored.
pub fn commit_columns<T: Integer>(bases: &[G1Affine], columns: &[&[T]]) -> Vec<G1> {
    let columns = within(bases.len(), columns);
    let plan = Plan::new(bases.len(), &columns);
    commit_by(plan, bases, &columns)
}

/// The columns without what has no base.
fn within<'a, T>(bases: usize, columns: &[&'a [T]]) -> Vec<&'a [T]> {
    columns.iter().map(|column| &column[..column.len().min(bases)]).collect()
}

/// The same as [`commit_columns`], from its definition.
pub fn commit_columns_plain<T: Integer>(bases: &[G1Affine], columns: &[&[T]]) -> Vec<G1> {
    let commit = |column: &&[T]| {
        let scalars = Secret(column.iter().map(|value| from_i64((*value).into())).collect());
        msm::plain(bases, &scalars)
    };
    columns.iter().map(commit).collect()
}

fn commit_by(plan: Plan, bases: &[G1Affine], columns: &[&[impl Integer]]) -> Vec<G1> {
    match plan {
        Plan::Tables(tables) => {
            let points: Vec<Point> = bases.iter().map(Point::new).collect();
            by_tables(tables, &points, columns)
        }
        Plan::Windows(bits) => by_windows(bits, &windows::signed(bases), columns),
    }
}

fn by_windows<T: Integer>(bits: u32, signed: &[Point], columns: &[&[T]]) -> Vec<G1> {
    let commit = |column: &&[T]| {
        let plan = windows::Plan::new(column.len(), bits);
        windows::sum(&signed[..2 * column.len()], plan, |i, window| {
            let value: i64 = column[i].into();
            plan.digit(&[value as u64, (value >> 63) as u64], window)
        })
    };
    columns.par_iter().map(commit).collect()
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
fn is_moved(values: &[impl Integer]) -> bool {
    let count = |of: fn(i64) -> bool| values.iter().filter(|value| of((**value).into())).count();
    let (large, small) = (count(|value| value >= MOVE - 128), count(|value| value < 128));
    values.len() == BLOCK
        && large > small + 1
        && count(|value| (0..2 * MOVE).contains(&value)) == BLOCK
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

/// How the additions are spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Tables(Tables),
    /// The bits of the largest integer, and its sign.
    Windows(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tables {
    /// Bits of a digit.
    width: u32,
    /// Digits of the largest integer.
    windows: usize,
}

impl Plan {
    /// The plan with the fewest additions.
    fn new(bases: usize, columns: &[&[impl Integer]]) -> Self {
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
                        block.iter().for_each(|value| count((*value).into() - MOVE));
                        count(-MOVE);
                    } else {
                        block.iter().for_each(|value| count((*value).into()));
                    }
                }
                counts
            })
            .reduce(|| [0u64; 64], |a, b| std::array::from_fn(|bits| a[bits] + b[bits]));
        // Moved blocks have a bit less than their values.
        let bits = counts.iter().rposition(|count| *count > 0).unwrap_or(0) as u32;
        let of_values = if bits == 15 { 16 } else { bits } + 1;
        let of_columns = columns
            .iter()
            .map(|column| windows::Plan::new(column.len(), of_values).additions(column.len()));
        // They wait for memory: an addition takes half as long again as one with a table.
        let mut best = (of_columns.sum::<u64>() * 3 / 2, Self::Windows(of_values));
        let bases = bases + bases / BLOCK;
        for width in WIDTHS {
            let half = 1u64 << (width - 1);
            let digits: u64 = (0u32..)
                .zip(&counts)
                .map(|(bits, count)| digit_count(bits, width) as u64 * count)
                .sum();
            // A multiple and its opposite take longer than one addition to a sum.
            let additions = digits + (half + half / 4) * bases as u64;
            if additions < best.0 {
                let windows = digit_count(bits, width);
                best = (additions, Self::Tables(Tables { width, windows }));
            }
        }
        counts.zeroize();
        best.1
    }
}

impl Tables {
    /// Columns for one task, so that all threads have work.
    fn chunk(&self, columns: usize) -> usize {
        columns.div_ceil(rayon::current_num_threads()).clamp(*CHUNK.start(), *CHUNK.end())
    }

    /// The largest magnitude of a digit.
    fn half(&self) -> usize {
        1 << (self.width - 1)
    }

    fn digits(&self, value: i64) -> impl Iterator<Item = (usize, i32)> {
        Digits { rest: value, width: self.width }.enumerate().filter(|(_, digit)| *digit != 0)
    }
}

/// The columns of a chunk, and a sum for each of their windows, window by window.
struct Chunk<'a, T> {
    columns: &'a [&'a [T]],
    sums: Points,
    additions: Additions,
    /// The values at a block of bases and at the opposite of their sum, base by base: a base that
    /// reads its values from the columns waits for memory.
    values: Zeroizing<Vec<i64>>,
}

impl<'a, T: Integer> Chunk<'a, T> {
    fn new(plan: Tables, columns: &'a [&'a [T]]) -> Self {
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
                self.values[b * count + k] = block.get(b).map_or(0, |value| (*value).into() - by);
            }
            self.values[BLOCK * count + k] = -by;
        }
    }

    /// Adds the products with a block of bases, of which `tables` has the multiples, as of the
    /// opposite of their sum. The first is the base `first`.
    fn add(&mut self, plan: Tables, tables: &[Point], first: usize) {
        self.read(first);
        let (half, count) = (plan.half(), self.columns.len());
        let Self { sums: Points(sums), additions, values, .. } = self;
        for (table, values) in tables.chunks_exact(2 * half + 1).zip(values.chunks_exact(count)) {
            for (k, value) in values.iter().enumerate() {
                for (window, digit) in plan.digits(*value) {
                    let multiple = half.wrapping_add_signed(digit as isize);
                    additions.push(sums, table, window * count + k, multiple);
                }
            }
            additions.finish(sums, table);
        }
    }

    /// The commitments: for each column `Σ_w 2^(width·w)·sum_w`.
    fn commitments(&self, plan: Tables, out: &mut [G1]) {
        for (k, out) in out.iter_mut().enumerate() {
            let sums = self.sums.0.iter().skip(k).step_by(self.columns.len());
            *out = sums.rev().fold(G1::identity(), |high, sum| {
                let high = if bool::from(high.is_identity()) {
                    high
                } else {
                    (0..plan.width).fold(high, |point, _| point.double())
                };
                high + sum.affine()
            });
        }
    }
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

fn by_tables<T: Integer>(plan: Tables, points: &[Point], columns: &[&[T]]) -> Vec<G1> {
    let mut chunks: Vec<Chunk<'_, T>> = columns
        .chunks(plan.chunk(columns.len()))
        .map(|columns| Chunk::new(plan, columns))
        .collect();
    let points = with_sums(points);
    for (points, first) in points.chunks(BLOCK + 1).zip((0..).step_by(BLOCK)) {
        let tables = tables(points, plan.half());
        chunks.par_iter_mut().for_each(|chunk| chunk.add(plan, &tables, first));
    }
    let mut sums = vec![G1::identity(); columns.len()];
    let each = sums.par_chunks_mut(plan.chunk(columns.len())).zip(&chunks);
    each.for_each(|(sums, chunk)| chunk.commitments(plan, sums));
    sums
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
        let columns = within(bases.len(), columns);
        let tables =
            WIDTHS.map(|width| Plan::Tables(Tables { width, windows: digit_count(63, width) }));
        tables
            .chain([Plan::Windows(64), Plan::Windows(70)])
            .map(|plan| (plan, commit_by(plan, bases, &columns)))
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
        assert_eq!(plan, Plan::Tables(Tables { width: 8, windows: 2 }));
    }

    #[test]
    fn nothing_commits_to_the_identity() {
        let some = bases(&[1, 2, 3]);
        assert!(commit_columns::<i64>(&some, &[]).is_empty());
        assert!(commit_columns::<i64>(&[], &[]).is_empty());
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
    fn few_columns_take_windows_and_many_take_tables() {
        let column: Vec<i64> = (0..4088).map(|i| (i * 40_503) % 65_536 - 32_768).collect();
        assert_eq!(Plan::new(4088, &[&column[..]; 64]), Plan::Windows(17));
        let many = Plan::new(4088, &vec![&column[..]; 4096]);
        assert_eq!(many, Plan::Tables(Tables { width: 8, windows: 2 }));
    }

    /// Prints nanoseconds per value of 16 bits, here and by `blst` for each column.
    /// `RAYON_NUM_THREADS` and `taskset` choose the threads.
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
        let columns = slices(&columns);
        let per_value = |commit: &dyn Fn(&[&[i64]]) -> Vec<G1>, columns: &[&[i64]]| {
            let started = Instant::now();
            black_box(commit(columns));
            started.elapsed().as_nanos() as f64 / (columns.len() * ROWS) as f64
        };
        for count in [1, 16, 64, 512, 4096] {
            let columns = &columns[..count];
            let (mut here, mut there) = (f64::MAX, f64::MAX);
            for _ in 0..(1024 / count).clamp(1, 4) {
                here = here.min(per_value(&|c| commit_columns(&bases, c), columns));
                there = there.min(per_value(&|c| by_blst(&bases, c), &columns[..1]));
            }
            let (threads, plan) = (rayon::current_num_threads(), Plan::new(ROWS, columns));
            eprintln!(
                "{count} columns, {threads} threads: {here:.0} ns; blst {there:.0} ns; {plan:?}"
            );
        }
    }

    /// By `blst`'s multi-exponentiation with short scalars.
    fn by_blst(bases: &[G1Affine], columns: &[&[i64]]) -> Vec<G1> {
        use blst::{MultiPoint, blst_p1_affine};
        let commit = |column: &&[i64]| {
            let signed = bases.iter().zip(*column).map(|(base, value)| {
                let signed = if *value < 0 { -*base } else { *base };
                *signed.as_ref()
            });
            let signed: Vec<blst_p1_affine> = signed.collect();
            let magnitude = |value: &i64| (value.unsigned_abs() as u16).to_le_bytes();
            let bytes: Vec<u8> = column.iter().flat_map(magnitude).collect();
            let mut out = G1::identity();
            *out.as_mut() = signed.as_slice().mult(&bytes, 16);
            out
        };
        columns.iter().map(commit).collect()
    }
}
