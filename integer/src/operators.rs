//! The exact meaning of every operator, on integers in memory (docs/integer-model.md, "Operators").
//!
//! Each function works on one row or one unit, so that callers choose what runs at the same time.
//! The bounds of [`crate::program`] keep all arithmetic here from overflowing.

use ethnum::{I256, U256};

use crate::{graph::NormKind, rules, whole::Whole};

/// A number is outside its range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beyond {
    /// The place within the row: a feature, or a key.
    pub place: usize,
    /// The number divided by the range's end.
    pub times: f64,
}

/// `⌊(x + 2^(shift − 1))/2^shift⌋`; for a shift that is not positive, `x·2^−shift`.
pub fn rounded<T: Whole>(x: T, shift: i32) -> T {
    let by = shift.unsigned_abs();
    match shift {
        ..=0 => x << by.min(T::BITS - 1),
        _ if by < T::BITS - 1 => (x + (T::from(1) << (by - 1))) >> by,
        _ => T::from(0),
    }
}

/// The same for a 256-bit number. The result must fit an `i128`, or saturates.
pub fn rounded_wide(x: I256, shift: i32) -> i128 {
    let rounded = match shift {
        ..=0 => x << shift.unsigned_abs().min(255),
        1..=254 => (x + (I256::ONE << (shift - 1))) >> shift,
        _ => I256::ZERO,
    };
    i128::try_from(rounded).unwrap_or(if rounded < I256::ZERO { i128::MIN } else { i128::MAX })
}

/// Whether `x` has at most `bits` bits with its sign; else, how far it is beyond.
pub fn in_range(place: usize, x: i128, bits: u32) -> Result<(), Beyond> {
    let end = 1i128 << (bits - 1);
    if (-end..end).contains(&x) {
        return Ok(());
    }
    Err(Beyond { place, times: x.unsigned_abs() as f64 / end as f64 })
}

/// The root of a row: the largest odd `R` with `R²·(S + ε) ≤ width·4^root`, where `S` is the sum of
/// the squares of `y`. None if there is none, or if it has too many bits.
pub fn norm_root(y: &[i128], epsilon: U256, root: u32) -> Option<u64> {
    let narrow = y.iter().all(|y| y.unsigned_abs() < 1 << 56);
    let squares = if narrow && y.len() < 1 << 15 {
        // As products of 64-bit numbers, which are quicker.
        let square = |y: u64| u128::from(y) * u128::from(y);
        U256::from(y.iter().map(|y| square(y.unsigned_abs() as u64)).sum::<u128>())
    } else {
        y.iter().map(|y| U256::from(y.unsigned_abs()) * U256::from(y.unsigned_abs())).sum()
    };
    let quotient = (U256::from(y.len() as u64) << (2 * root)) / (squares + epsilon);
    let quotient = u128::try_from(quotient).ok()?;
    let largest = quotient.isqrt();
    let odd = if largest % 2 == 1 { largest } else { largest.checked_sub(1)? };
    u64::try_from(odd).ok().filter(|odd| *odd < 1 << rules::MAX_ROOT_BITS)
}

/// What a norm takes the root of: the row itself, or `n·x − Σx`.
pub fn norm_input<T: Whole>(x: &[T], kind: NormKind) -> Vec<i128> {
    let x = x.iter().map(|x| (*x).into());
    match kind {
        NormKind::Rms => x.collect(),
        NormKind::Layer => {
            let (count, sum) = (x.len() as i128, x.clone().sum::<i128>());
            x.map(|x| count * x - sum).collect()
        }
    }
}

/// The products of a row with the ranks of an adapter: `Σ_i x_i·a_ji`. `narrow`: sums fit 64 bits.
pub fn inner<T: Whole>(x: &[T], pairs: &[(Vec<i32>, Vec<i32>)], narrow: bool) -> Vec<i128> {
    if narrow {
        let x: Vec<i64> = x.iter().map(|x| (*x).into() as i64).collect();
        let dot = |a: &[i32]| x.iter().zip(a).map(|(x, a)| x * i64::from(*a)).sum::<i64>();
        return pairs.iter().map(|(a, _)| i128::from(dot(a))).collect();
    }
    let product = |(x, a): (&T, &i32)| (*x).into() * i128::from(*a);
    let dot = |a: &[i32]| x.iter().zip(a).map(product).sum::<i128>();
    pairs.iter().map(|(a, _)| dot(a)).collect()
}

/// Rotates a row head by head: `2^WAVE_BITS` times the real rotation. `waves` has cosine and sine
/// of the row's position for each feature of a head, none for features that are not rotated.
pub fn rotary<T: Whole>(
    x: &[T],
    rotations: &[crate::graph::Rotation],
    waves: &[Option<(i32, i32)>],
    out: &mut [T],
) {
    let size = rotations.len();
    for (x, out) in x.chunks(size).zip(out.chunks_mut(size)) {
        for (feature, out) in out.iter_mut().enumerate() {
            let rotation = &rotations[feature];
            *out = match waves[feature] {
                None => x[feature] << rules::WAVE_BITS,
                Some((cosine, sine)) => {
                    let sine = T::from(if rotation.negative { -sine } else { sine });
                    x[feature] * T::from(cosine) + x[rotation.partner] * sine
                }
            };
        }
    }
}

/// `⌈x/2^shift⌉`; for a negative shift, `x·2^−shift`, which the type must hold.
pub fn ceiling<T: Whole>(x: T, shift: i32) -> T {
    let by = shift.unsigned_abs();
    match shift {
        ..=0 => x << by.min(T::BITS - 1),
        _ if by < T::BITS - 1 => -((-x) >> by),
        _ => T::from(i32::from(x > T::from(0))),
    }
}

/// The place and value of the largest number of a row, the first of equals.
pub fn largest<T: Whole>(row: &[T]) -> (usize, T) {
    let first = (0, row.first().copied().unwrap_or_default());
    let larger = |most: (usize, T), (at, x): (usize, &T)| if *x > most.1 { (at, *x) } else { most };
    row.iter().enumerate().fold(first, larger)
}

/// The place and value of the number that uses most of a range.
pub fn outermost<T: Whole>(row: &[T]) -> (usize, T) {
    let further = |most: (usize, T), (at, x): (usize, &T)| {
        if x.magnitude() > most.1.magnitude() { (at, *x) } else { most }
    };
    row.iter().enumerate().fold((0, T::default()), further)
}

/// The least integer `c`, no less than any of `scores`, with `Σ T[c − score] ≤ limit`.
///
/// The sum falls when `c` grows, so the least is unique. The search begins at the logarithm of the
/// sum at the largest score and goes to where the sum crosses the limit.
pub fn normaliser(scores: &[i64], table: &[u64], limit: u64) -> i64 {
    let largest = scores.iter().copied().max().unwrap_or(0);
    let sum = |c: i64| -> u64 {
        scores
            .iter()
            .map(|score| {
                usize::try_from(c - score).ok().and_then(|d| table.get(d)).copied().unwrap_or(0)
            })
            .sum()
    };
    let total = sum(largest);
    if total <= limit {
        return largest;
    }
    // The sum at `c` is about that at the largest score times T[c − largest]/T[0]: the first guess
    // is where this falls to the limit. Then it doubles steps until the crossing lies between.
    let first = u128::from(table.first().copied().unwrap_or(1));
    let wanted = u128::from(limit) * first / u128::from(total);
    let guess = table.partition_point(|entry| u128::from(*entry) > wanted) as i64;
    let (mut below, mut above) = (largest, largest + guess.max(1));
    let mut step = 2;
    while sum(above) > limit {
        below = above;
        above += step;
        step *= 2;
    }
    step = 2;
    while above - step > below && sum(above - step) <= limit {
        above -= step;
        step *= 2;
    }
    below = below.max(above - step);
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        if sum(middle) <= limit { above = middle } else { below = middle }
    }
    above
}
