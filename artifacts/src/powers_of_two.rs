//! Powers of two and binary logarithms by the bits of an `f64`: exact on every machine, unlike `ln`
//! and `powf` of the system's library.

/// `2^exponent`, for exponents of normal numbers; clamped to that range.
pub fn pow2(exponent: i32) -> f64 {
    let biased = (exponent.clamp(-1022, 1023) + 1023) as u64;
    f64::from_bits(biased << 52)
}

/// The largest `e` with `2^e ≤ |value|`, for a normal number.
pub fn floor_log2(value: f64) -> i32 {
    ((value.to_bits() >> 52) & 0x7ff) as i32 - 1023
}

/// The largest integer of a symmetric signed range, `2^(bits-1) - 1`.
pub fn largest(bits: u32) -> i64 {
    (1i64 << (bits - 1)) - 1
}

/// The smallest exponent `e` for which every `|value| ≤ max`, divided by `2^e` and rounded, is at
/// most `limit`.
pub fn fitting_exponent(max: f64, limit: i64) -> i32 {
    let limit = limit as f64;
    let mut exponent = floor_log2(max) - floor_log2(limit) - 1;
    while (max / pow2(exponent)).round() > limit {
        exponent += 1;
    }
    exponent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_and_logarithms_are_exact() {
        for exponent in [-1022, -300, -1, 0, 1, 52, 1023] {
            assert_eq!(floor_log2(pow2(exponent)), exponent);
        }
        assert_eq!((pow2(-1), pow2(10), floor_log2(1.999), floor_log2(-5.0)), (0.5, 1024.0, 0, 2));
    }

    #[test]
    fn the_fitting_exponent_fits_and_the_next_smaller_one_does_not() {
        for max in [1e-9, 0.7, 1.0, 31.0, 31.4, 31.5, 32.0, 12345.678] {
            let e = fitting_exponent(max, 31);
            assert!((max / pow2(e)).round() <= 31.0 && (max / pow2(e - 1)).round() > 31.0, "{max}");
        }
    }
}
