//! Exponentials, sines and activation functions, computed with integers only.
//!
//! The public tables of a model are made here. They must have the same bits on every machine, and
//! whoever writes a second implementation must get the same bits, too. So an entry is the real
//! function's value, rounded to the nearest integer, and half rounds up. Enough bits are computed
//! that this holds unless the real value is so near a half that no table we make has such an entry:
//! each function says how near.
//!
//! A number is an `i128`, a multiple of `2^-96` of size below `2^31`. Two other units occur:
//! an angle or an exponent that must stay exact is an `I256`, a multiple of `2^-160`, and series
//! are summed in multiples of `2^-124`.

use std::{ops::RangeInclusive, sync::LazyLock};

use ethnum::I256;

use crate::graph::Function;

/// Bits behind the point of a number.
pub(crate) const FRACTION: u32 = 96;
/// The number 1.
pub(crate) const ONE: i128 = 1 << FRACTION;
/// Bits behind the point while a series is summed.
const SERIES: u32 = 124;
/// Bits behind the point of an exact argument.
const EXACT: u32 = 160;

/// `ln 2`, with `EXACT` bits.
const LN_2: I256 = I256::from_words(0xb172_17f7, 0xd1cf79abc9e3b39803f2f6af40f34326_u128 as i128);
/// `π/2`, with `EXACT` bits.
const HALF_PI: I256 = I256::from_words(0x1_921f_b544, 0x42d18469898cc51701b839a252049c11);
/// `2/√π`
const TWO_BY_ROOT_PI: i128 = 0x1_20dd_7504_29b6_d11a_e3a9_14ff;
/// `√(2/π)`
const ROOT_TWO_BY_PI: i128 = 0xcc42_299e_a1b2_8468_7e59_e280;
/// `1/√2`
const ROOT_HALF: i128 = 0xb504_f333_f9de_6484_597d_89b3;
/// `1.702`
const QUICK: i128 = (1702 << FRACTION) / 1000;
/// `0.044715`
const CUBIC: i128 = (44_715 << FRACTION) / 1_000_000;

/// The product of two numbers with `bits` bits behind the point, rounded down.
fn product(a: i128, b: i128, bits: u32) -> i128 {
    ((I256::from(a) * I256::from(b)) >> bits).as_i128()
}

/// The product of two numbers, rounded down.
pub(crate) fn multiply(a: i128, b: i128) -> i128 {
    product(a, b, FRACTION)
}

/// The quotient of two numbers, rounded to zero; 0 for a zero divisor.
pub(crate) fn divide(a: i128, b: i128) -> i128 {
    (I256::from(a) << FRACTION).checked_div(I256::from(b)).unwrap_or_default().as_i128()
}

/// `⌊value·2^bits + 1/2⌋`, for `bits` from −40 to 60.
pub(crate) fn rounded(value: i128, bits: i32) -> i128 {
    let shift = FRACTION.saturating_add_signed(bits.saturating_neg()).clamp(1, 254);
    ((I256::from(value) + (I256::ONE << (shift - 1))) >> shift).as_i128()
}

/// As [`rounded`], and as near as an `i32` can be.
fn entry(value: i128, bits: i32) -> i32 {
    rounded(value, bits).clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

/// A float as a multiple of `2^-160`. Exact for every `f32`, and for an `f64` of size `2^-108` or
/// more; of a smaller one, lower bits are dropped. `None` if it is not finite, or `2^31` or more.
pub(crate) fn from_f64(value: f64) -> Option<I256> {
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 52) & 0x7ff, bits & ((1 << 52) - 1));
    let mantissa = I256::from(if exponent == 0 { fraction } else { fraction | (1 << 52) });
    // The value is `mantissa·2^(exponent - 1075)`, and `2^31` has the exponent 1023 + 31.
    let size = match exponent.max(1) {
        1054.. => return None,
        exponent @ 915.. => mantissa << (exponent - 915),
        exponent => mantissa >> (915 - exponent).min(255),
    };
    Some(if value.is_sign_negative() { -size } else { size })
}

/// The argument less a multiple of the period, both with `EXACT` bits: the multiple, and the rest
/// with `SERIES` bits. The rest is at most half the period.
fn reduced(argument: I256, period: I256) -> (i128, i128) {
    let multiple = (argument + (period >> 1_u32)).div_euclid(period);
    (multiple.as_i128(), ((argument - multiple * period) >> (EXACT - SERIES)).as_i128())
}

/// `e^argument`, the argument with `EXACT` bits and at most 20, the result with `SERIES` bits and
/// to be multiplied by two to the power of the second number. Its error is below `2^-118`.
fn exp_series(argument: I256) -> (i128, i128) {
    let (power, rest) = reduced(argument, LN_2);
    let (mut sum, mut term) = (0, 1 << SERIES);
    // The rest is at most 0.35, and 0.35^28/28! < 2^-138.
    for n in 1..=28 {
        sum += term;
        term = product(term, rest, SERIES) / n;
    }
    (sum, power)
}

/// `value·2^power`, rounded down, for a power of at most 1.
fn scaled(value: i128, power: i128) -> i128 {
    if power >= 0 { value << power.min(1) } else { value >> power.saturating_neg().min(127) }
}

/// `e^x`; for `x` above 20, `e^20`.
pub(crate) fn exp(x: i128) -> i128 {
    let (value, power) = exp_series(I256::from(x.min(20 * ONE)) << (EXACT - FRACTION));
    scaled(value, power - i128::from(SERIES - FRACTION))
}

/// `1/(1 + e^-x)`
pub(crate) fn sigmoid(x: i128) -> i128 {
    let small = exp(-x.saturating_abs());
    let below = divide(small, ONE + small);
    if x < 0 { below } else { ONE - below }
}

/// The hyperbolic tangent.
pub(crate) fn tanh(x: i128) -> i128 {
    // At 64, it is 1 to 180 bits.
    2 * sigmoid(2 * x.clamp(-64 * ONE, 64 * ONE)) - ONE
}

/// The polynomial's value. Coefficients from the lowest.
fn polynomial(coefficients: &[i128], x: i128) -> i128 {
    coefficients.iter().rev().fold(0, |sum, coefficient| multiply(sum, x) + coefficient)
}

/// For each `z = j/16` up to 8.5: the Taylor series of the error function about `z`. As each is
/// used for at most 1/16 from there, what 24 coefficients leave out is below `2^-110`.
static ERF: LazyLock<Vec<[i128; 24]>> = LazyLock::new(|| {
    let mut value = 0;
    let about = |j: i128| {
        let mut series = [value; 24];
        // Coefficients of the derivative, `g(z) = 2/√π·e^(−z²)`: from `g' = −2·z·g`, coefficient
        // `n` is `−2·(z·c[n − 1] + c[n − 2])/n`.
        let (mut before, mut last) = (0, multiply(TWO_BY_ROOT_PI, exp(-j * j * (ONE >> 8))));
        for (n, coefficient) in (1..).zip(&mut series[1..]) {
            *coefficient = last / n;
            (before, last) = (last, -(j * last / 8 + 2 * before) / n);
        }
        value = polynomial(&series, ONE >> 4);
        series
    };
    (0..136).map(about).collect()
});

/// The error function. Its error is below `2^-85`.
pub(crate) fn erf(x: i128) -> i128 {
    let size = x.saturating_abs();
    let series = usize::try_from(size >> (FRACTION - 4)).ok().and_then(|j| ERF.get(j));
    // From 8.5 on, it is 1 to 108 bits.
    let value = series.map_or(ONE, |series| polynomial(series, size & ((ONE >> 4) - 1)));
    if x < 0 { -value } else { value }
}

/// Cosine and sine of an angle with `EXACT` bits (see [`from_f64`]). Their error is below `2^-95`
/// for an angle below `2^62`.
pub(crate) fn cos_sin(angle: I256) -> (i128, i128) {
    let (quarters, rest) = reduced(angle, HALF_PI);
    let (mut cos, mut sin, mut term) = (0, 0, 1 << SERIES);
    // The rest is at most 0.79, and 0.79^32/32! < 2^-128.
    for n in 0..32 {
        match n % 4 {
            0 => cos += term,
            1 => sin += term,
            2 => cos -= term,
            _ => sin -= term,
        }
        term = product(term, rest, SERIES) / (n + 1);
    }
    let (cos, sin) = (cos >> (SERIES - FRACTION), sin >> (SERIES - FRACTION));
    match quarters & 3 {
        0 => (cos, sin),
        1 => (-sin, cos),
        2 => (-cos, -sin),
        _ => (sin, -cos),
    }
}

/// Entry `d`, from 0 to `count − 1`, is `⌊2^bits·e^(−unit·d) + 1/2⌋`.
///
/// `unit` is the exact number, at least 0; any other, and one of `2^31` or more, counts as
/// infinite. `bits` is at most 40. With 65,537 entries, they are right unless the real value is
/// within `2^-60` of a half.
pub fn exponentials(unit: f64, bits: u32, count: usize) -> Vec<u64> {
    let ratio = match from_f64(unit) {
        Some(unit) if unit >= 0 => {
            let (value, power) = exp_series(-unit);
            scaled(value, power)
        }
        _ => 0,
    };
    // The ratio's error is below 2^-118, and a product's rounding below 2^-124. Nothing here is
    // above 1, so a step adds less than 2^-117 to the error. It stays below 2^-100 for 65,537
    // entries, and 2^40 times that is 2^-60.
    let shift = SERIES - bits.min(40);
    let mut value = 1 << SERIES;
    let mut entries = vec![0; count];
    for entry in &mut entries {
        *entry = ((value + (1 << (shift - 1))) >> shift) as u64;
        if *entry == 0 {
            break;
        }
        value = product(value, ratio, SERIES);
    }
    entries
}

/// `x·S(−x)` for an `x` of 0 or more: what `F(x) = x·S(x)` is below `x`, as `S(x) + S(−x) = 1`.
/// It is above 0 wherever the real number is, so that a half still rounds down at a large `x`.
fn below_identity(function: Function, x: i128) -> i128 {
    let rest = match function {
        Function::Relu => return 0,
        // At 128, it is 0 to 180 bits.
        _ if x >= 128 * ONE => return 1,
        Function::Silu => sigmoid(-x),
        Function::QuickGelu => sigmoid(-multiply(QUICK, x)),
        Function::Gelu => (ONE - erf(multiply(ROOT_HALF, x))) / 2,
        Function::GeluTanh => {
            let cube = multiply(multiply(x, x), x);
            (ONE - tanh(multiply(ROOT_TWO_BY_PI, x + multiply(CUBIC, cube)))) / 2
        }
    };
    multiply(x, rest).max(1)
}

/// Fractional bits that the arguments of [`activation`] can have.
pub const ACTIVATION_BITS: RangeInclusive<i32> = -8..=20;

/// Entry `32768 + g`, for `g` from −32768 to 32767, is `⌊2^out_bits·F(g·2^−x_bits) + 1/2⌋`, or the
/// nearest `i32`.
///
/// `F` is the real function: its constants are 1.702, 0.044715 and `√(2/π)`, not floats. `x_bits`
/// is from −8 to 20, `out_bits` from −40 to 40. `F` is computed with an error below `2^-84`, so an
/// entry is right unless the real value is within `2^(out_bits − 84)` of a half.
pub fn activation(function: Function, x_bits: i32, out_bits: i32) -> Vec<i32> {
    let unit = ONE << 8 >> (x_bits.clamp(*ACTIVATION_BITS.start(), *ACTIVATION_BITS.end()) + 8);
    let both = |g: i128| {
        let x = g * unit;
        let below = below_identity(function, x);
        (entry(-below, out_bits), entry(x - below, out_bits))
    };
    let (minus, plus): (Vec<i32>, Vec<i32>) = (0..=32_768).map(both).unzip();
    minus.into_iter().skip(1).rev().chain(plus.into_iter().take(32_768)).collect()
}

/// Entry `t`, from 0 to `positions − 1`, is `⌊2^bits·cos(t·frequency) + 1/2⌋`, and the same of the
/// sine.
///
/// `frequency` is the exact number. There are no entries if it is not finite, or `2^31` or more.
/// `bits` is at most 30. An entry is right unless the real value is within `2^(bits − 93)` of a
/// half, if the angle is below `2^62`.
pub fn rotations(frequency: f32, positions: usize, bits: u32) -> Vec<(i32, i32)> {
    const BLOCK: usize = 64;
    let Some(frequency) = from_f64(frequency.into()) else { return Vec::new() };
    let at = |t: usize| cos_sin(frequency * I256::from(t as u64));
    let bits = bits.min(30) as i32;
    // The angle of an entry is the sum of a block's first angle and one of these.
    let inner: Vec<_> = (0..BLOCK).map(at).collect();
    let block = |index: usize| {
        let (cos, sin) = at(index * BLOCK);
        let turned = move |&(c, s): &(i128, i128)| {
            let real = multiply(cos, c) - multiply(sin, s);
            (entry(real, bits), entry(multiply(sin, c) + multiply(cos, s), bits))
        };
        inner.iter().map(turned)
    };
    (0..positions.div_ceil(BLOCK)).flat_map(block).take(positions).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use num_bigint::{BigInt, Sign};
    use proptest::prelude::*;

    use super::*;

    const FUNCTIONS: [Function; 5] =
        [Function::Silu, Function::Gelu, Function::GeluTanh, Function::QuickGelu, Function::Relu];

    /// A real number with 1280 bits behind the point, computed without anything of the above.
    const DEEP: u32 = 1280;

    fn one() -> BigInt {
        BigInt::from(1) << DEEP
    }

    fn times(a: &BigInt, b: &BigInt) -> BigInt {
        (a * b) >> DEEP
    }

    fn over(a: &BigInt, b: &BigInt) -> BigInt {
        (a << DEEP) / b
    }

    fn decimal(numerator: i64, denominator: i64) -> BigInt {
        (BigInt::from(numerator) << DEEP) / denominator
    }

    /// An `f64` as it is: `mantissa·2^exponent`.
    fn float(value: f64) -> BigInt {
        let (bits, exponent) = (value.to_bits(), (value.to_bits() >> 52 & 0x7ff) as i64 - 1075);
        let mantissa = BigInt::from((bits & ((1 << 52) - 1)) | (1 << 52));
        if value == 0.0 {
            return BigInt::ZERO;
        }
        let size = mantissa << u64::try_from(exponent + i64::from(DEEP)).unwrap();
        if value < 0.0 { -size } else { size }
    }

    /// The sum of terms, the next of which is a given function of the last and its index.
    fn series(first: BigInt, next: impl Fn(&BigInt, i64) -> BigInt) -> BigInt {
        let (mut sum, mut term, mut n) = (BigInt::ZERO, first, 1);
        while term > BigInt::from(1) || term < BigInt::from(-1) {
            sum += &term;
            term = next(&term, n);
            n += 1;
        }
        sum
    }

    fn deep_exp(x: &BigInt) -> BigInt {
        if x.sign() == Sign::Minus {
            return over(&one(), &deep_exp(&-x));
        }
        let mut value = series(one(), |term, n| (times(term, x) >> 32) / n);
        for _ in 0..32 {
            value = times(&value, &value);
        }
        value
    }

    fn arctan_of_inverse(k: i64) -> BigInt {
        let sum = |n: i64| one() / (BigInt::from(k).pow(2 * n as u32 + 1) * (2 * n + 1));
        (0..300).map(|n| if n % 2 == 0 { sum(n) } else { -sum(n) }).sum()
    }

    /// Machin's formula.
    fn pi() -> BigInt {
        16 * arctan_of_inverse(5) - 4 * arctan_of_inverse(239)
    }

    fn root(x: &BigInt) -> BigInt {
        (x << DEEP).sqrt()
    }

    fn deep_erf(x: &BigInt) -> BigInt {
        let square = times(x, x);
        let next = |term: &BigInt, n: i64| 2 * times(term, &square) / (2 * n + 1);
        let sum = times(&series(x.clone(), next), &deep_exp(&-square.clone()));
        2 * over(&sum, &root(&pi()))
    }

    fn deep_sigmoid(x: &BigInt) -> BigInt {
        over(&one(), &(one() + deep_exp(&-x)))
    }

    fn deep_tanh(x: &BigInt) -> BigInt {
        2 * deep_sigmoid(&(2 * x)) - one()
    }

    fn deep_cos_sin(angle: &BigInt) -> (BigInt, BigInt) {
        let rest: BigInt = angle % (2 * pi());
        let square = times(&rest, &rest);
        let next = |odd: i64| {
            let square = &square;
            move |term: &BigInt, n: i64| -times(term, square) / ((2 * n - 1 + odd) * (2 * n + odd))
        };
        (series(one(), next(0)), series(rest.clone(), next(1)))
    }

    fn deep_activation(function: Function, x: &BigInt) -> BigInt {
        match function {
            Function::Relu => x.clone().max(BigInt::ZERO),
            Function::Silu => times(x, &deep_sigmoid(x)),
            Function::QuickGelu => times(x, &deep_sigmoid(&times(x, &decimal(1702, 1000)))),
            Function::Gelu => times(x, &(one() + deep_erf(&over(x, &root(&decimal(2, 1)))))) >> 1,
            Function::GeluTanh => {
                let cube = times(&times(x, x), x);
                let inner = x + times(&cube, &decimal(44_715, 1_000_000));
                let inner = times(&inner, &root(&over(&decimal(2, 1), &pi())));
                times(x, &(one() + deep_tanh(&inner))) >> 1
            }
        }
    }

    /// `⌊x·2^bits + 1/2⌋`
    fn deep_rounded(x: &BigInt, bits: i32) -> BigInt {
        let shift = DEEP.checked_add_signed(-bits).unwrap();
        (x + (BigInt::from(1) << (shift - 1))) >> shift
    }

    fn deep(x: i128) -> BigInt {
        BigInt::from(x) << (DEEP - FRACTION)
    }

    #[track_caller]
    fn near(value: i128, real: &BigInt, bits: u32) {
        let error = (deep(value) - real).magnitude() >> (DEEP - bits);
        assert_eq!(error, BigInt::ZERO.magnitude().clone(), "{value} is not {real}");
    }

    fn number(x: f64) -> i128 {
        (from_f64(x).unwrap() >> (EXACT - FRACTION)).as_i128()
    }

    fn back(x: i128) -> f64 {
        x as f64 / ONE as f64
    }

    #[test]
    fn constants() {
        let exact = |x: I256| (BigInt::from(*x.high()) << 128) + BigInt::from(*x.low() as u128);
        assert_eq!(exact(HALF_PI), deep_rounded(&(pi() >> 1), 160));
        let e_to_half_ln_2 = deep_exp(&((exact(LN_2) << (DEEP - 160)) >> 1));
        let error = e_to_half_ln_2 - root(&decimal(2, 1));
        assert_eq!(error.magnitude() >> (DEEP - 159), BigInt::ZERO.magnitude().clone());
        near(TWO_BY_ROOT_PI, &over(&decimal(2, 1), &root(&pi())), 96);
        near(ROOT_TWO_BY_PI, &root(&over(&decimal(2, 1), &pi())), 96);
        near(ROOT_HALF, &root(&decimal(1, 2)), 96);
        near(QUICK, &decimal(1702, 1000), 96);
        near(CUBIC, &decimal(44_715, 1_000_000), 96);
        assert_eq!(exp(0), ONE);
        assert_eq!(rounded(exp(ONE), 60), 3_133_965_575_612_453_543); // e
        assert_eq!(sigmoid(0), ONE / 2);
        assert_eq!((tanh(0), erf(0)), (0, 0));
        assert_eq!(cos_sin(I256::ZERO), (ONE, 0));
    }

    #[test]
    fn floats() {
        let two = |power: u32| I256::ONE << power;
        assert_eq!(from_f64(1.0), Some(two(160)));
        assert_eq!(from_f64(-1.5), Some(-two(160) - two(159)));
        assert_eq!(from_f64(-0.0), Some(I256::ZERO));
        assert_eq!(from_f64(f32::from_bits(1).into()), Some(two(11)));
        assert_eq!(from_f64(f64::MIN_POSITIVE / 2.0), Some(I256::ZERO));
        let largest = f64::from_bits(2_147_483_648_f64.to_bits() - 1);
        assert_eq!(from_f64(largest), Some(two(191) - two(160 - 22)));
        for none in [2_147_483_648.0, -2_147_483_648.0, f64::INFINITY, f64::NAN, f64::MAX] {
            assert_eq!(from_f64(none), None);
        }
    }

    #[test]
    fn edges() {
        assert_eq!(divide(ONE, 0), 0);
        assert_eq!(rounded(ONE / 2, 0), 1);
        assert_eq!(rounded(-ONE / 2, 0), 0);
        assert_eq!(rounded(i128::MAX, 60), 1 << 91);
        assert_eq!((rounded(i128::MAX, -40), rounded(i128::MIN, i32::MIN)), (0, 0));
        for x in [i128::MIN, i128::MIN + 1, -1_000_000 * ONE] {
            assert_eq!((exp(x), sigmoid(x), tanh(x), erf(x)), (0, 0, -ONE, -ONE));
        }
        assert_eq!((sigmoid(i128::MAX), tanh(i128::MAX), erf(i128::MAX)), (ONE, ONE, ONE));
        assert_eq!(exp(i128::MAX), exp(20 * ONE));
        for unit in [f64::INFINITY, f64::NAN, -1.0, 1e300, 2e9, 100.0] {
            assert_eq!(exponentials(unit, 40, 3), [1 << 40, 0, 0]);
        }
        assert_eq!(exponentials(1e-300, 40, 3), [1 << 40; 3]);
        assert_eq!(exponentials(1.0, 400, 1), [1 << 40]);
        assert_eq!(exponentials(1.0, 0, 3), [1, 0, 0]);
        assert!(exponentials(1.0, 8, 0).is_empty());
        for frequency in [f32::INFINITY, f32::NAN, 2_147_483_648.0] {
            assert!(rotations(frequency, 3, 20).is_empty());
        }
        assert_eq!(rotations(0.0, 2, 99), [(1 << 30, 0); 2]);
        assert_eq!(rotations(f32::MIN_POSITIVE, 65, 30), [(1 << 30, 0); 65]);
        for function in FUNCTIONS {
            // The nearest `i32`; and a half at a large `x` is below a half, except for `Relu`.
            let table = activation(function, i32::MIN, i32::MAX);
            assert_eq!((table.len(), table[65_535], table[32_768]), (65_536, i32::MAX, 0));
            let table = activation(function, 8, 7);
            let up = i32::from(function == Function::Relu);
            assert_eq!((table[0], table[65_535]), (0, 16_383 + up));
        }
    }

    #[test]
    fn as_floats_have_it() {
        for step in -4000..=4000 {
            let x = f64::from(step) / 200.0;
            let sigma = 1.0 / (1.0 + (-x).exp());
            assert!((back(exp(number(x))) / x.exp() - 1.0).abs() < 1e-9 || x < -19.0);
            assert!((back(sigmoid(number(x))) - sigma).abs() < 1e-9);
            assert!((back(tanh(number(x))) - x.tanh()).abs() < 1e-9);
            let (cos, sin) = cos_sin(from_f64(x).unwrap());
            assert!((back(cos) - x.cos()).abs() + (back(sin) - x.sin()).abs() < 1e-9);
        }
        let table = exponentials(0.001, 40, 65_537);
        for (d, entry) in table.iter().enumerate() {
            let real = (-0.001 * d as f64).exp() * 40_f64.exp2();
            assert!((*entry as f64 - real).abs() < 1e-9 * 40_f64.exp2());
        }
    }

    #[test]
    fn exponentials_fall() {
        for unit in [0.0, 1e-300, 1e-12, 1e-6, 1e-4, 0.01, 0.7, 3.0] {
            let table = exponentials(unit, 40, 65_537);
            assert_eq!((table.len(), table[0]), (65_537, 1 << 40));
            assert!(table.is_sorted_by(|a, b| a >= b));
        }
    }

    /// `F(x) − F(−x) = x`, and both are rounded.
    #[test]
    fn symmetry() {
        for function in FUNCTIONS.into_iter().filter(|f| *f != Function::Relu) {
            for (x_bits, out_bits) in [(12, 12), (-8, -10)] {
                let table = activation(function, x_bits, out_bits);
                for g in 0..32_768_usize {
                    let difference = i64::from(table[32_768 + g]) - i64::from(table[32_768 - g]);
                    let exact = (g as f64) * f64::from(out_bits - x_bits).exp2();
                    assert!((difference as f64 - exact).abs() <= 1.0);
                }
            }
        }
    }

    /// Every Taylor series of the error function, at both of its ends and between.
    #[test]
    fn erf_everywhere() {
        for step in 0..=136 {
            for x in [step << 92, (step << 92) + (1 << 91) + 12_345, (step << 92) + (1 << 92) - 1] {
                near(erf(x), &deep_erf(&deep(x)), 85);
                assert_eq!(erf(-x), -erf(x));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn functions_are_right(x in -70.0_f64..20.0, angle in -1e9_f64..1e9) {
            let fixed = number(x);
            let real = deep(fixed);
            near(exp(fixed), &deep_exp(&real), if x > 0.0 { 84 } else { 94 });
            near(sigmoid(fixed), &deep_sigmoid(&real), 94);
            near(tanh(fixed), &deep_tanh(&real), 93);
            let (cos, sin) = cos_sin(from_f64(angle).unwrap());
            let (real_cos, real_sin) = deep_cos_sin(&float(angle));
            near(cos, &real_cos, 95);
            near(sin, &real_sin, 95);
        }

        #[test]
        fn exponentials_are_right(power in -20_f64..4.0, bits in 0_u32..=40, d in 0_usize..65_537) {
            let unit = power.exp2();
            let d = d.min((40.0 / unit) as usize);
            let real = deep_exp(&(-float(unit) * d));
            let entry = BigInt::from(exponentials(unit, bits, d + 1)[d]);
            prop_assert_eq!(entry, deep_rounded(&real, bits as i32));
        }

        #[test]
        fn rotations_are_right(power in -40_f32..30.0, bits in 0_u32..=30, t in 0_usize..5000) {
            let frequency = power.exp2();
            let (cos, sin) = deep_cos_sin(&(float(frequency.into()) * t));
            let entry = rotations(frequency, t + 1, bits)[t];
            let real = (deep_rounded(&cos, bits as i32), deep_rounded(&sin, bits as i32));
            prop_assert_eq!((BigInt::from(entry.0), BigInt::from(entry.1)), real);
        }
    }

    proptest! {
        // A table at a time: without optimisation, one takes half a second.
        #![proptest_config(ProptestConfig::with_cases(20))]

        #[test]
        fn activations_are_right(
            function in prop::sample::select(&FUNCTIONS[..]),
            x_bits in -8..=20,
            top in 8..30,
            samples in prop::collection::vec(-32_768..32_768, 20),
        ) {
            let out_bits = x_bits - 15 + top;
            let table = activation(function, x_bits, out_bits);
            // Further out, `DEEP` bits do not show that the real value is below a half.
            let limit = if function == Function::GeluTanh { 20 } else { 28 };
            let limit = (limit << x_bits.max(0) >> (-x_bits).max(0)).max(1);
            for g in samples.into_iter().map(|g| g % limit) {
                let x = (BigInt::from(g) << (DEEP + 8)) >> (x_bits + 8);
                let real = deep_rounded(&deep_activation(function, &x), out_bits);
                let entry = table[usize::try_from(32_768 + g).unwrap()];
                prop_assert_eq!(BigInt::from(entry), real, "{:?} of {}", function, g);
            }
        }
    }
}
