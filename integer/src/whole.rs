//! The machine integers that values are computed in: 64 bits where a program's bounds allow it,
//! else 128.

use std::{
    iter::Sum,
    ops::{Add, BitXor, Mul, Neg, Shl, Shr, Sub},
};

/// `i64` or `i128`.
pub trait Whole:
    Copy
    + Default
    + Ord
    + Send
    + Sync
    + Into<i128>
    + From<i32>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Neg<Output = Self>
    + BitXor<Output = Self>
    + Shl<u32, Output = Self>
    + Shr<u32, Output = Self>
    + Sum
{
    /// Bits of the type. Values are below `2^(BITS − 2)`, so sums of two do not overflow.
    const BITS: u32;

    /// An integer that the type holds.
    fn of(x: i128) -> Self;

    /// The nearest float.
    fn float(self) -> f64;

    /// The sum modulo `2^BITS`.
    fn wrapping_sum(self, other: Self) -> Self;

    /// The absolute value, less one for negative numbers: how much of a range is used.
    fn magnitude(self) -> Self {
        self ^ (self >> (Self::BITS - 1))
    }
}

impl Whole for i64 {
    const BITS: u32 = i64::BITS;

    fn of(x: i128) -> i64 {
        x as i64
    }

    fn float(self) -> f64 {
        self as f64
    }

    fn wrapping_sum(self, other: i64) -> i64 {
        self.wrapping_add(other)
    }
}

impl Whole for i128 {
    const BITS: u32 = i128::BITS;

    fn of(x: i128) -> i128 {
        x
    }

    fn float(self) -> f64 {
        self as f64
    }

    fn wrapping_sum(self, other: i128) -> i128 {
        self.wrapping_add(other)
    }
}
