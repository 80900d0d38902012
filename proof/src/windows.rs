//! Multi-exponentiation by windows of digits (Pippenger's method), with affine points.
//!
//! Each scalar is written in signed digits. In each window, the points with the same digit are
//! summed in pairs, pairs of pairs, and so on: the additions of a level do not depend on each
//! other, so many of them share an inversion. The sums of all digits d then make `Σ_d d·sum_d`.

use group::Group;
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::{
    affine::{Additions, Point, Points},
    field::{G1, G1Affine},
};

/// Additions that share an inversion, which takes as long as about 10 of them.
const BATCH: usize = 512;
/// Bits of a digit.
const WIDTHS: std::ops::RangeInclusive<u32> = 3..=13;

/// Each point and its opposite.
pub fn signed(points: &[G1Affine]) -> Vec<Point> {
    let both = |point: &G1Affine| {
        let point = Point::new(point);
        [point, point.opposite()]
    };
    points.iter().flat_map(both).collect()
}

/// How scalars are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Bits of a digit.
    pub width: u32,
    /// Digits of a scalar.
    pub windows: usize,
}

impl Plan {
    /// The plan with the fewest additions, for so many scalars of so many bits (with a sign).
    pub fn new(scalars: usize, bits: u32) -> Self {
        let plan = |width: u32| Self { width, windows: bits.div_ceil(width) as usize };
        WIDTHS.map(plan).min_by_key(|plan| plan.additions(scalars)).unwrap_or(plan(4))
    }

    /// Additions for so many scalars.
    pub fn additions(&self, scalars: usize) -> u64 {
        self.windows as u64 * (scalars as u64 + (1 << (self.width - 1)))
    }

    /// The digit of a window: scalars are `Σ_w digit_w·2^(width·w)`, with digits of at most
    /// 2^(width-1) in magnitude. `words` is the scalar in two's complement, lowest word first.
    #[inline(always)]
    pub fn digit(&self, words: &[u64], window: usize) -> i32 {
        // The bits of the window, and the highest bit below it.
        let bits = match window * self.width as usize {
            0 => words[0] << 1,
            first => {
                let (word, within) = ((first - 1) / 64, (first - 1) % 64);
                let above = words.get(word + 1).copied().unwrap_or(0);
                (words[word] >> within) | (above << 1 << (63 - within))
            }
        } & ((2 << self.width) - 1);
        // The highest bit counts negatively, and the one below the window as one.
        ((bits + 1) >> 1) as i32 - ((bits >> self.width) << self.width) as i32
    }
}

/// `Σ_i scalar_i·point_i`. `signed` has each point and its opposite; `digit` is that of a scalar in
/// a window.
pub fn sum(signed: &[Point], plan: Plan, digit: impl Fn(usize, usize) -> i32 + Sync) -> G1 {
    let at_once = plan.windows.div_ceil(rayon::current_num_threads()).max(1);
    let windows: Vec<usize> = (0..plan.windows).collect();
    let bits: Vec<Points> = windows
        .par_chunks(at_once)
        .flat_map_iter(|windows| {
            let half = 1 << (plan.width - 1);
            let mut additions = Additions::new(BATCH);
            let mut sums = Points(Vec::with_capacity(windows.len() * half));
            for window in windows {
                let digits = (0..signed.len() / 2).map(|i| digit(i, *window));
                let digits = Zeroizing::new(digits.collect::<Vec<i32>>());
                sums.0.extend_from_slice(&sums_by_digit(signed, &digits, half, &mut additions).0);
            }
            bits_of(sums, half, &mut additions)
        })
        .collect();
    let bits = bits.iter().rev().flat_map(|bits| bits.0.iter().rev());
    bits.fold(G1::identity(), |high, bit| {
        let high = if bool::from(high.is_identity()) { high } else { high.double() };
        high + bit.affine()
    })
}

/// For each d from 1 to `half`, the sum of the points whose digit is d, less those whose digit is
/// −d.
fn sums_by_digit(
    signed: &[Point],
    digits: &[i32],
    half: usize,
    additions: &mut Additions,
) -> Points {
    let mut counts = Zeroizing::new(vec![0usize; half + 1]);
    for digit in digits {
        counts[digit.unsigned_abs() as usize] += 1;
    }
    let mut next = Zeroizing::new(vec![0usize; half + 1]);
    for d in 1..half {
        next[d + 1] = next[d] + counts[d];
    }
    let mut order = Zeroizing::new(vec![0u32; digits.len() - counts[0]]);
    for (i, digit) in digits.iter().enumerate().filter(|(_, digit)| **digit != 0) {
        let place = &mut next[digit.unsigned_abs() as usize];
        order[*place] = 2 * i as u32 + u32::from(*digit < 0);
        *place += 1;
    }
    let mut lengths = Zeroizing::new(counts[1..].to_vec());
    let paired = pair_up(signed, &mut lengths, |at| order[at] as usize, additions);
    segment_sums(paired, lengths, additions)
}

/// The sum of each of consecutive segments of points.
fn segment_sums(
    mut points: Points,
    mut lengths: Zeroizing<Vec<usize>>,
    additions: &mut Additions,
) -> Points {
    while lengths.iter().any(|length| *length > 1) {
        points = pair_up(&points.0, &mut lengths, |at| at, additions);
    }
    let mut left = points.0.iter();
    let sum = |length: &usize| match length {
        0 => Point::IDENTITY,
        _ => left.next().copied().unwrap_or(Point::IDENTITY),
    };
    Points(lengths.iter().map(sum).collect())
}

/// Adds neighbours in each segment, and leaves the last of an odd number as it is. `place` says
/// where each point is.
fn pair_up(
    points: &[Point],
    lengths: &mut [usize],
    place: impl Fn(usize) -> usize,
    additions: &mut Additions,
) -> Points {
    let mut out = Points(Vec::with_capacity(lengths.iter().map(|l| l.div_ceil(2)).sum()));
    let mut first = 0;
    for length in lengths {
        for at in (first..first + *length).step_by(2) {
            out.0.push(points[place(at)]);
            if at + 1 < first + *length {
                let sum = out.0.len() - 1;
                additions.push(&mut out.0, points, sum, place(at + 1));
            }
            if additions.len() == BATCH {
                additions.finish(&mut out.0, points);
            }
        }
        first += *length;
        *length = length.div_ceil(2);
    }
    additions.finish(&mut out.0, points);
    out
}

/// For each window, `Σ_d d·sum_d` as points that count 1, 2, 4, …: as many as a digit has bits.
/// `sums` has `half` points for each window.
///
/// With places e = d − 1, it is `Σ_e sum_e + Σ_e e·sum_e`, and the second sum is twice that of the
/// sums of neighbours, and once those at odd places.
fn bits_of(sums: Points, half: usize, additions: &mut Additions) -> Vec<Points> {
    let windows = sums.0.len() / half;
    let (mut odd, all) = odd_places(sums, half, additions);
    // The sum of all counts once, as the first bit does.
    for window in 0..windows {
        additions.push(&mut odd.0, &all.0, window, window);
    }
    additions.finish(&mut odd.0, &all.0);
    let of_window = |window: usize| {
        let of_window = odd.0.iter().skip(window).step_by(windows);
        // No sum counts 2^(width-1). (Allocated whole: growth leaves a copy in memory.)
        let mut bits = Points(Vec::with_capacity(of_window.len() + 1));
        bits.0.extend(of_window);
        bits.0.push(Point::IDENTITY);
        bits
    };
    (0..windows).map(of_window).collect()
}

/// For each bit of a place, and for each list of `size` points, the sum of the points whose places
/// have that bit; and the sum of all points of each list. `size` is a power of two above one.
fn odd_places(lists: Points, mut size: usize, additions: &mut Additions) -> (Points, Points) {
    let count = lists.0.len() / size;
    let mut odd = Points(Vec::with_capacity(count * (size - 1)));
    let (mut level, mut lengths) = (lists, Vec::new());
    while size > 1 {
        odd.0.extend(level.0.iter().skip(1).step_by(2));
        size /= 2;
        lengths.resize(lengths.len() + count, size);
        level = pair_up(&level.0, &mut vec![2; count * size], |at| at, additions);
    }
    (segment_sums(odd, Zeroizing::new(lengths), additions), level)
}

/// For each bit, the sum of the points whose number has it. `signed` has each point and its
/// opposite; numbers have so many bits.
pub fn subset_sums(signed: &[Point], numbers: &[i32], bits: u32) -> Vec<G1Affine> {
    let (most, mut additions) = ((1 << bits) - 1, Additions::new(BATCH));
    let mut sums = Points::identities(1);
    sums.0.extend_from_slice(&sums_by_digit(signed, numbers, most, &mut additions).0);
    let (subsets, _) = odd_places(sums, most + 1, &mut additions);
    subsets.0.iter().map(Point::affine).collect()
}

#[cfg(test)]
mod tests {
    use group::Curve;
    use proptest::prelude::*;

    use super::*;
    use crate::field::from_i64;

    proptest! {
        #[test]
        fn digits_make_up_their_scalar(value in any::<i64>(), width in 3u32..=13) {
            let plan = Plan { width, windows: 65usize.div_ceil(width as usize) };
            let words = [value as u64, (value >> 63) as u64];
            let digits: Vec<i32> = (0..plan.windows).map(|w| plan.digit(&words, w)).collect();
            let sum = digits.iter().rev().fold(0i128, |high, d| (high << width) + i128::from(*d));
            prop_assert_eq!(sum, i128::from(value));
            prop_assert!(digits.iter().all(|digit| digit.unsigned_abs() <= 1 << (width - 1)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn subset_sums_are_sums_of_subsets(
            multiples in prop::collection::vec(
                prop_oneof![3 => -2i64..=2, 2 => any::<i64>()], 0..90),
            bits in 1u32..=7,
            seed in any::<u64>(),
        ) {
            let points: Vec<G1> =
                multiples.iter().map(|of| G1::generator() * from_i64(*of)).collect();
            let number = |i: usize| {
                ((i as u64 + 1).wrapping_mul(seed | 1) >> 40) as i32 & ((1 << bits) - 1)
            };
            let numbers: Vec<i32> = (0..points.len()).map(number).collect();
            let expected: Vec<G1Affine> = (0..bits)
                .map(|bit| {
                    let subset = points.iter().zip(&numbers).filter(|(_, n)| *n >> bit & 1 == 1);
                    subset.map(|(point, _)| point).sum::<G1>().to_affine()
                })
                .collect();
            let signed = signed(&crate::msm::to_affine(&points));
            prop_assert_eq!(subset_sums(&signed, &numbers, bits), expected);
        }
    }

    #[test]
    fn the_plan_grows_with_the_scalars() {
        assert_eq!(Plan::new(512, 256), Plan { width: 8, windows: 32 });
        assert_eq!(Plan::new(4096, 256), Plan { width: 10, windows: 26 });
        assert_eq!(Plan::new(4088, 17), Plan { width: 9, windows: 2 });
    }
}
