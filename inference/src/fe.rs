//! The scalar field once more, with arithmetic that the compiler sees: the prover's inner loops.
//!
//! [`Fe`] holds the same four limbs as the library's [`F`], in Montgomery form with R = 2^256, so
//! that the two convert for nothing. The library calls a function for every addition; here sums of
//! products are reduced once.

use std::ops::{Add, AddAssign, Mul, MulAssign, Neg, Sub, SubAssign};

use blst::blst_fr;
use zklora_proof::field::F;

/// A field element in Montgomery form, below p.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fe([u64; 4]);

/// p
const P: [u64; 4] =
    [0xffff_ffff_0000_0001, 0x53bd_a402_fffe_5bfe, 0x3339_d808_09a1_d805, 0x73ed_a753_299d_7d48];
/// −p^−1 modulo 2^64
const NEGATIVE_INVERSE: u64 = 0xffff_fffe_ffff_ffff;
/// R² modulo p
const R2: Fe = Fe([
    0xc999_e990_f3f2_9c6d,
    0x2b6c_edcb_8792_5c23,
    0x05d3_1496_7254_398f,
    0x0748_d9d9_9f59_ff11,
]);

/// `a + b·c + carry`: the low and the high word. It never overflows.
#[inline(always)]
fn mac(a: u64, b: u64, c: u64, carry: u64) -> (u64, u64) {
    let sum = u128::from(b)
        .wrapping_mul(u128::from(c))
        .wrapping_add(u128::from(a))
        .wrapping_add(u128::from(carry));
    (sum as u64, (sum >> 64) as u64)
}

/// `a + b + carry`
#[inline(always)]
fn adc(a: u64, b: u64, carry: bool) -> (u64, bool) {
    let (sum, first) = a.overflowing_add(b);
    let (sum, second) = sum.overflowing_add(u64::from(carry));
    (sum, first | second)
}

/// `a − b − borrow`
#[inline(always)]
fn sbb(a: u64, b: u64, borrow: bool) -> (u64, bool) {
    let (difference, first) = a.overflowing_sub(b);
    let (difference, second) = difference.overflowing_sub(u64::from(borrow));
    (difference, first | second)
}

#[inline(always)]
fn minus(a: [u64; 4], b: [u64; 4]) -> ([u64; 4], bool) {
    let (r0, c) = sbb(a[0], b[0], false);
    let (r1, c) = sbb(a[1], b[1], c);
    let (r2, c) = sbb(a[2], b[2], c);
    let (r3, c) = sbb(a[3], b[3], c);
    ([r0, r1, r2, r3], c)
}

#[inline(always)]
fn plus(a: [u64; 4], b: [u64; 4]) -> [u64; 4] {
    let (r0, c) = adc(a[0], b[0], false);
    let (r1, c) = adc(a[1], b[1], c);
    let (r2, c) = adc(a[2], b[2], c);
    let (r3, _) = adc(a[3], b[3], c);
    [r0, r1, r2, r3]
}

/// Subtracts p once, if the number is not below it.
#[inline(always)]
fn below_p(a: [u64; 4]) -> [u64; 4] {
    let (less, borrow) = minus(a, P);
    if borrow { a } else { less }
}

impl Add for Fe {
    type Output = Fe;
    #[inline(always)]
    fn add(self, other: Fe) -> Fe {
        Fe(below_p(plus(self.0, other.0)))
    }
}

impl Sub for Fe {
    type Output = Fe;
    #[inline(always)]
    fn sub(self, other: Fe) -> Fe {
        let (difference, borrow) = minus(self.0, other.0);
        let mask = 0u64.wrapping_sub(u64::from(borrow));
        Fe(plus(difference, P.map(|limb| limb & mask)))
    }
}

impl Neg for Fe {
    type Output = Fe;
    #[inline(always)]
    fn neg(self) -> Fe {
        Fe::ZERO - self
    }
}

impl Mul for Fe {
    type Output = Fe;
    #[inline(always)]
    fn mul(self, other: Fe) -> Fe {
        self.product(other)
    }
}

impl AddAssign for Fe {
    #[inline(always)]
    fn add_assign(&mut self, other: Fe) {
        *self = *self + other;
    }
}

impl SubAssign for Fe {
    #[inline(always)]
    fn sub_assign(&mut self, other: Fe) {
        *self = *self - other;
    }
}

impl MulAssign for Fe {
    #[inline(always)]
    fn mul_assign(&mut self, other: Fe) {
        *self = *self * other;
    }
}

impl std::iter::Sum for Fe {
    fn sum<I: Iterator<Item = Fe>>(elements: I) -> Fe {
        elements.fold(Fe::ZERO, |sum, element| sum + element)
    }
}

impl From<F> for Fe {
    #[inline(always)]
    fn from(element: F) -> Fe {
        Fe(blst_fr::from(element).l)
    }
}

impl From<Fe> for F {
    #[inline(always)]
    fn from(element: Fe) -> F {
        F::from(blst_fr { l: element.0 })
    }
}

impl Fe {
    /// 0
    pub const ZERO: Fe = Fe([0; 4]);
    /// 1: R modulo p
    pub const ONE: Fe = Fe([
        0x0000_0001_ffff_fffe,
        0x5884_b7fa_0003_4802,
        0x998c_4fef_ecbc_4ff5,
        0x1824_b159_acc5_056f,
    ]);

    /// p
    pub const P: [u64; 4] = P;
    /// R modulo p: one.
    pub const R: [u64; 4] = Fe::ONE.0;

    /// The element whose Montgomery form is congruent to `Σ limbs[i]·2^(i·bits)`, which is below
    /// 2^256.
    pub fn of_limbs(limbs: &[u32], bits: u32) -> Fe {
        let mut words = [0u64; 4];
        for (limb, first) in limbs.iter().zip((0..).step_by(bits as usize)) {
            let shifted = u128::from(*limb) << (first % 64);
            let word = first / 64;
            words[word] |= shifted as u64;
            if word < 3 {
                words[word + 1] |= (shifted >> 64) as u64;
            }
        }
        Fe(below_p(below_p(words)))
    }

    /// The element of an integer.
    #[inline(always)]
    pub fn of(integer: i64) -> Fe {
        let magnitude = Fe([integer.unsigned_abs(), 0, 0, 0]) * R2;
        if integer < 0 { -magnitude } else { magnitude }
    }

    /// The element of an integer.
    pub fn of_i128(integer: i128) -> Fe {
        let magnitude = integer.unsigned_abs();
        let magnitude = Fe([magnitude as u64, (magnitude >> 64) as u64, 0, 0]) * R2;
        if integer < 0 { -magnitude } else { magnitude }
    }

    /// The element of the four words of an integer below p.
    pub fn of_words(words: [u64; 4]) -> Fe {
        Fe(words) * R2
    }

    /// Some of the bits of the Montgomery form: `count` of them, at most 32, from `first` on.
    pub fn bits(&self, first: u32, count: u32) -> u64 {
        let (word, within) = ((first / 64) as usize, first % 64);
        let low = self.0[word] >> within;
        let high = match (within, self.0.get(word + 1)) {
            (1.., Some(next)) => next << (64 - within),
            _ => 0,
        };
        (low | high) & ((1 << count) - 1)
    }

    /// The element whose Montgomery form is `2^at`, for `at` below 255: what a bit of
    /// [`Self::bits`] stands for.
    pub fn bit(at: u32) -> Fe {
        let mut words = [0; 4];
        words[(at / 64) as usize] = 1 << (at % 64);
        Fe(words)
    }

    /// `self·other`: a row of the product and one of its reduction in turns.
    #[inline(always)]
    fn product(self, other: Fe) -> Fe {
        let mut t = [0u64; 4];
        for b in other.0 {
            let (t0, mut of_product) = mac(t[0], self.0[0], b, 0);
            let m = t0.wrapping_mul(NEGATIVE_INVERSE);
            let (_, mut of_p) = mac(t0, m, P[0], 0);
            for j in 1..4 {
                let (x, carry) = mac(t[j], self.0[j], b, of_product);
                of_product = carry;
                let (y, carry) = mac(x, m, P[j], of_p);
                of_p = carry;
                t[j - 1] = y;
            }
            // p is below 2^255, so this never overflows.
            t[3] = of_p.wrapping_add(of_product);
        }
        Fe(below_p(t))
    }

    /// Twice the element.
    #[inline(always)]
    pub fn double(self) -> Fe {
        self + self
    }
}

/// Elements of the library's field.
pub fn elements(values: &[F]) -> Vec<Fe> {
    values.iter().map(|value| Fe::from(*value)).collect()
}

/// Elements as those of the library's field.
pub fn library(values: &[Fe]) -> Vec<F> {
    values.iter().map(|value| F::from(*value)).collect()
}

/// `⟨a, b⟩`
pub fn inner_product(a: &[Fe], b: &[Fe]) -> Fe {
    let mut sum = Products::default();
    a.iter().zip(b).for_each(|(x, y)| sum.add(*x, *y));
    sum.reduce()
}

/// `eq(point, i)` for i below `2^(coordinates)`, times a factor, most significant bit first.
pub fn eq_table(point: &[Fe], factor: Fe) -> Vec<Fe> {
    let mut table = vec![Fe::ZERO; 1 << point.len()];
    table[0] = factor;
    let mut length = 1;
    for r in point.iter().rev() {
        let (low, high) = table[..2 * length].split_at_mut(length);
        for (low, high) in low.iter_mut().zip(high) {
            *high = *low * *r;
            *low -= *high;
        }
        length *= 2;
    }
    table
}

/// An unreduced sum of products: eight limbs, and how often they overflowed.
#[derive(Clone, Copy, Default)]
pub struct Products([u64; 9]);

impl Products {
    /// Adds `a·b`.
    #[inline(always)]
    pub fn add(&mut self, a: Fe, b: Fe) {
        let mut product = [0u64; 8];
        for i in 0..4 {
            let mut carry = 0;
            for j in 0..4 {
                let (word, more) = mac(product[i + j], a.0[j], b.0[i], carry);
                product[i + j] = word;
                carry = more;
            }
            product[i + 4] = carry;
        }
        let mut carry = false;
        for (sum, word) in self.0.iter_mut().zip(product) {
            (*sum, carry) = adc(*sum, word, carry);
        }
        self.0[8] = self.0[8].wrapping_add(u64::from(carry));
    }

    /// The sum, modulo p.
    #[inline(always)]
    pub fn reduce(&self) -> Fe {
        let mut t = self.0;
        let mut top = false;
        for i in 0..4 {
            let m = t[i].wrapping_mul(NEGATIVE_INVERSE);
            let (_, mut carry) = mac(t[i], m, P[0], 0);
            for j in 1..4 {
                let (word, more) = mac(t[i + j], m, P[j], carry);
                t[i + j] = word;
                carry = more;
            }
            (t[i + 4], top) = adc(t[i + 4], carry, top);
        }
        // What is left is t[4..8] + high·2^256. Twice p is below 2^256, three times is not.
        let high = t[8].wrapping_add(u64::from(top));
        let low = Fe(below_p(below_p([t[4], t[5], t[6], t[7]])));
        if high == 0 { low } else { low + Fe([high, 0, 0, 0]) * R2 }
    }
}

/// An element and its negative.
#[derive(Clone, Copy)]
pub struct Signed([Fe; 2]);

impl From<Fe> for Signed {
    fn from(element: Fe) -> Signed {
        Signed([element, -element])
    }
}

/// An unreduced sum of integers times elements: at most 2^60 of them.
#[derive(Clone, Copy, Default)]
pub struct IntegerSum([u64; 6]);

impl IntegerSum {
    /// Adds `integer·element`.
    #[inline(always)]
    pub fn add(&mut self, integer: i64, element: &Signed) {
        self.add_magnitude(integer < 0, integer.unsigned_abs(), element);
    }

    /// Adds `±magnitude·element`.
    #[inline(always)]
    pub fn add_magnitude(&mut self, is_negative: bool, magnitude: u64, element: &Signed) {
        let [e0, e1, e2, e3] = element.0[usize::from(is_negative)].0;
        let (s0, carry) = mac(self.0[0], magnitude, e0, 0);
        let (s1, carry) = mac(self.0[1], magnitude, e1, carry);
        let (s2, carry) = mac(self.0[2], magnitude, e2, carry);
        let (s3, carry) = mac(self.0[3], magnitude, e3, carry);
        let (s4, carry) = adc(self.0[4], carry, false);
        self.0 = [s0, s1, s2, s3, s4, self.0[5].wrapping_add(u64::from(carry))];
    }

    /// The sum, modulo p.
    pub fn reduce(&self) -> Fe {
        let [s0, s1, s2, s3, s4, s5] = self.0;
        // Products with R2 in Montgomery form are 2^256 times the high words.
        Fe(below_p(below_p([s0, s1, s2, s3]))) + Fe([s4, s5, 0, 0]) * R2
    }
}

/// Secret elements, overwritten when dropped.
#[derive(Default)]
pub struct Wiped(pub Vec<Fe>);

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.fill(Fe::ZERO);
        std::hint::black_box(&mut self.0);
    }
}

impl std::ops::Deref for Wiped {
    type Target = Vec<Fe>;
    fn deref(&self) -> &Vec<Fe> {
        &self.0
    }
}

impl std::ops::DerefMut for Wiped {
    fn deref_mut(&mut self) -> &mut Vec<Fe> {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use ff::Field;
    use proptest::prelude::*;
    use zklora_proof::{
        field::{from_i64, from_i128, from_wide},
        fold::eq_weights,
    };

    use super::*;

    /// Elements, those at the ends of the range among them.
    fn element() -> impl Strategy<Value = F> {
        prop_oneof![
            8 => any::<[u8; 32]>().prop_map(|half| {
                let mut bytes = [0u8; 64];
                bytes[..32].copy_from_slice(&half);
                from_wide(&bytes)
            }),
            1 => (0u64..4).prop_map(F::from),
            1 => (1u64..4).prop_map(|x| -F::from(x)),
        ]
    }

    proptest! {
        #[test]
        fn arithmetic_is_that_of_the_library(x in element(), y in element()) {
            let (a, b) = (Fe::from(x), Fe::from(y));
            prop_assert_eq!(F::from(a), x);
            prop_assert_eq!(F::from(a + b), x + y);
            prop_assert_eq!(F::from(a - b), x - y);
            prop_assert_eq!(F::from(a * b), x * y);
            prop_assert_eq!(F::from(-a), -x);
            prop_assert_eq!(F::from(a.double()), x.double());
        }

        #[test]
        fn integers_are_those_of_the_library(x in any::<i64>(), y in any::<i128>()) {
            let y = y / 2;
            prop_assert_eq!(F::from(Fe::of(x)), from_i64(x));
            prop_assert_eq!(F::from(Fe::of_i128(y)), from_i128(y));
        }

        #[test]
        fn sums_are_reduced_right(
            values in prop::collection::vec((element(), element(), any::<i64>()), 0..40),
        ) {
            let (mut products, mut small) = (Products::default(), IntegerSum::default());
            let mut expected = [F::ZERO; 2];
            for (x, y, s) in &values {
                products.add(Fe::from(*x), Fe::from(*y));
                small.add(*s, &Signed::from(Fe::from(*x)));
                expected[0] += *x * y;
                expected[1] += from_i64(*s) * x;
            }
            prop_assert_eq!(F::from(products.reduce()), expected[0]);
            prop_assert_eq!(F::from(small.reduce()), expected[1]);
        }

        #[test]
        fn eq_tables_are_those_of_the_library(point in prop::collection::vec(element(), 0..6)) {
            let table = eq_table(&elements(&point), Fe::ONE);
            prop_assert_eq!(library(&table), eq_weights(&point, 1 << point.len()));
        }
    }

    #[test]
    fn one_is_one_and_long_sums_of_the_largest_products_are_right() {
        assert_eq!(F::from(Fe::ONE), F::ONE);
        let largest = Fe::from(-F::ONE);
        // The largest Montgomery form.
        let raw = Fe([P[0] - 1, P[1], P[2], P[3]]);
        for element in [largest, raw] {
            let mut sum = Products::default();
            let count = 100_000u64;
            (0..count).for_each(|_| sum.add(element, element));
            assert_eq!(sum.reduce(), element * element * Fe::of(count as i64));
        }
    }
}
