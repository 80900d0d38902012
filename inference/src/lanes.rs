//! Numbers that the tree of fractions computes with: four elements of the field, one by one or at
//! once with AVX2. The processor that runs it decides which; results do not depend on it.
//!
//! With AVX2, elements have nine limbs of 29 bits each, in Montgomery form with R = 2^261, in lanes
//! of 64 bits. They are not reduced below p: each operation says how large its numbers may be.
//! 2^261 is 71·p, and a product of numbers below a·p and b·p is below (1 + a·b/71)·p.
#![allow(unsafe_code)]

use crate::fe::{Fe, Products};

/// Elements of a number.
pub const LANES: usize = 4;

/// Four elements.
pub trait Number: Copy + Send + Sync {
    /// Whether it needs AVX2.
    const WIDE: bool;
    /// The same in memory.
    type Stored: Copy + Default + Send + Sync;
    /// One element in memory.
    type Entry: Copy + Default + Send + Sync;
    /// A sum of at most 2^7 products.
    type Sum: Copy + Default;
    /// Four integers.
    type Integers: Copy;

    /// An element in memory.
    fn entry(element: Fe) -> Self::Entry;
    /// Elements that lie apart.
    fn gather(entries: &[Self::Entry], codes: &[u32]) -> Self;
    /// From memory.
    fn load(stored: &Self::Stored) -> Self;
    /// To memory.
    fn store(self) -> Self::Stored;
    /// The same element in all lanes.
    fn splat(element: Fe) -> Self;
    /// 0
    fn zero() -> Self;
    /// 1
    fn one() -> Self;
    /// `a + b`, of numbers below 30·p.
    fn plus(self, other: Self) -> Self;
    /// `a·b`
    fn times(self, other: Self) -> Self;
    /// `a·d + b·c`
    fn crossed(a: Self, b: Self, c: Self, d: Self) -> Self;
    /// `2·high − low`, of numbers below 8·p.
    fn at_two(low: Self, high: Self) -> Self;
    /// `low + r·(high − low)`; `weights` are 1 − r and r.
    fn bound(low: Self, high: Self, weights: [Self; 2]) -> Self;
    /// Adds `value·weight`.
    fn accumulate(sum: &mut Self::Sum, value: Self, weight: Self);
    /// Adds a number below 2·p, as one of the products.
    fn add(sum: &mut Self::Sum, value: Self);
    /// The sum over all lanes.
    fn total(sum: Self::Sum) -> Fe;
    /// Elements of a number in memory, in order.
    fn elements(stored: &Self::Stored) -> [Fe; LANES];
    /// A number in memory.
    fn stored(elements: [Fe; LANES]) -> Self::Stored;

    /// The first four of some integers.
    fn integers(integers: &[u32]) -> Self::Integers;
    /// `a + b`
    fn sum_of(a: Self::Integers, b: Self::Integers) -> Self::Integers;
    /// `a·b`, of integers below 2^32.
    fn product_of(a: Self::Integers, b: Self::Integers) -> Self::Integers;
    /// A coefficient of [`Self::form`].
    fn coefficient<const STEPS: usize>(element: Fe) -> Self::Entry;
    /// `constant + Σ factor·integer`: four integers below 2^24 for one step, and two below 2^32
    /// for two.
    fn form<const K: usize, const STEPS: usize>(
        constant: &Self::Entry,
        factors: &[Self::Entry; K],
        integers: [Self::Integers; K],
    ) -> Self;
}

/// Four elements, one by one.
#[derive(Clone, Copy, Default)]
pub struct Plain([Fe; LANES]);

impl Plain {
    #[inline(always)]
    fn each(of: impl Fn(usize) -> Fe) -> Plain {
        Plain(std::array::from_fn(of))
    }
}

impl Number for Plain {
    const WIDE: bool = false;
    type Stored = Plain;
    type Entry = Fe;
    type Sum = [Products; LANES];
    type Integers = [u64; LANES];

    fn entry(element: Fe) -> Fe {
        element
    }
    #[inline(always)]
    fn gather(entries: &[Fe], codes: &[u32]) -> Plain {
        Plain::each(|at| entries[codes[at] as usize])
    }
    #[inline(always)]
    fn load(stored: &Plain) -> Plain {
        *stored
    }
    #[inline(always)]
    fn store(self) -> Plain {
        self
    }
    #[inline(always)]
    fn splat(element: Fe) -> Plain {
        Plain([element; LANES])
    }
    #[inline(always)]
    fn zero() -> Plain {
        Plain([Fe::ZERO; LANES])
    }
    #[inline(always)]
    fn one() -> Plain {
        Plain([Fe::ONE; LANES])
    }
    #[inline(always)]
    fn plus(self, other: Plain) -> Plain {
        Plain::each(|at| self.0[at] + other.0[at])
    }
    #[inline(always)]
    fn times(self, other: Plain) -> Plain {
        Plain::each(|at| self.0[at] * other.0[at])
    }
    #[inline(always)]
    fn crossed(a: Plain, b: Plain, c: Plain, d: Plain) -> Plain {
        Plain::each(|at| {
            let mut sum = Products::default();
            sum.add(a.0[at], d.0[at]);
            sum.add(b.0[at], c.0[at]);
            sum.reduce()
        })
    }
    #[inline(always)]
    fn at_two(low: Plain, high: Plain) -> Plain {
        Plain::each(|at| high.0[at].double() - low.0[at])
    }
    #[inline(always)]
    fn bound(low: Plain, high: Plain, weights: [Plain; 2]) -> Plain {
        Plain::each(|at| low.0[at] + weights[1].0[at] * (high.0[at] - low.0[at]))
    }
    #[inline(always)]
    fn accumulate(sum: &mut [Products; LANES], value: Plain, weight: Plain) {
        for (at, sum) in sum.iter_mut().enumerate() {
            sum.add(value.0[at], weight.0[at]);
        }
    }
    #[inline(always)]
    fn add(sum: &mut [Products; LANES], value: Plain) {
        Plain::accumulate(sum, value, Plain::one());
    }
    #[inline(always)]
    fn total(sum: [Products; LANES]) -> Fe {
        sum.iter().map(Products::reduce).sum()
    }
    fn elements(stored: &Plain) -> [Fe; LANES] {
        stored.0
    }
    fn stored(elements: [Fe; LANES]) -> Plain {
        Plain(elements)
    }
    #[inline(always)]
    fn integers(integers: &[u32]) -> [u64; LANES] {
        std::array::from_fn(|at| u64::from(integers[at]))
    }
    #[inline(always)]
    fn sum_of(a: [u64; LANES], b: [u64; LANES]) -> [u64; LANES] {
        std::array::from_fn(|at| a[at] + b[at])
    }
    #[inline(always)]
    fn product_of(a: [u64; LANES], b: [u64; LANES]) -> [u64; LANES] {
        std::array::from_fn(|at| a[at] * b[at])
    }
    fn coefficient<const STEPS: usize>(element: Fe) -> Fe {
        element
    }
    #[inline(always)]
    fn form<const K: usize, const STEPS: usize>(
        constant: &Fe,
        factors: &[Fe; K],
        integers: [[u64; LANES]; K],
    ) -> Plain {
        Plain::each(|at| {
            let each = factors.iter().zip(&integers);
            each.fold(*constant, |sum, (factor, n)| sum + *factor * Fe::of(n[at] as i64))
        })
    }
}

#[cfg(target_arch = "x86_64")]
pub use avx2::Lanes;

/// Whether the processor has what [`Lanes`] needs.
pub fn available() -> bool {
    crate::vectors::are_there()
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{LANES, Number};
    use crate::fe::Fe;

    /// Number of limbs.
    const LIMBS: usize = 9;
    /// Bits of a limb.
    const BITS: u32 = 29;
    /// All bits of a limb.
    const MASK: u64 = (1 << BITS) - 1;
    /// p in limbs. The lowest is 1, so −p^−1 modulo 2^29 is −1.
    const P: [u64; LIMBS] = limbs_of(Fe::P);

    /// 2^261 modulo p, which is one.
    const ONE: [u64; LIMBS] = limbs_of([
        0x0000_0045_ffff_ffba,
        0x1a25_272e_0072_d846,
        0xfe2e_edcd_5dbe_ee8b,
        0x4d04_3f42_9eef_be41,
    ]);

    /// Limbs of four words.
    const fn limbs_of(words: [u64; 4]) -> [u64; LIMBS] {
        let mut limbs = [0; LIMBS];
        let mut at = 0;
        while at < LIMBS {
            let (word, within) = (at * BITS as usize / 64, at * BITS as usize % 64);
            let mut bits = words[word] >> within;
            if within > 0 && word + 1 < 4 {
                bits |= words[word + 1] << (64 - within);
            }
            limbs[at] = bits & MASK;
            at += 1;
        }
        limbs
    }

    /// Some times p with limbs from which any limb can be subtracted.
    const fn times_p(factor: u64) -> [u64; LIMBS] {
        let mut limbs = [0; LIMBS];
        let (mut at, mut carry) = (0, 0);
        while at < LIMBS {
            let sum = factor * P[at] + carry;
            (limbs[at], carry) = (sum & MASK, sum >> BITS);
            at += 1;
        }
        limbs[LIMBS - 1] += carry << BITS;
        limbs[0] += MASK + 1;
        at = 1;
        while at < LIMBS - 1 {
            limbs[at] += MASK;
            at += 1;
        }
        limbs[LIMBS - 1] -= 1;
        limbs
    }
    const EIGHT_P: [u64; LIMBS] = times_p(8);

    /// Four elements in registers.
    ///
    /// Every function of this type needs a processor with AVX2: they are called only after
    /// [`super::available`] said so (`tree::run` decides once).
    #[derive(Clone, Copy)]
    pub struct Lanes([__m256i; LIMBS]);

    /// Four elements in memory.
    #[derive(Clone, Copy, Default)]
    #[repr(align(16))]
    pub struct Four([[u32; 4]; LIMBS]);

    /// A sum whose limbs have not been carried.
    #[derive(Clone, Copy)]
    pub struct Sum([__m256i; LIMBS]);

    impl Default for Sum {
        #[inline(always)]
        fn default() -> Sum {
            Sum(zeros())
        }
    }

    /// Brings limbs of less than 2^63 below 2^29, but for the last.
    #[inline(always)]
    fn carried(limbs: [__m256i; LIMBS]) -> [__m256i; LIMBS] {
        // SAFETY: see `Lanes`.
        unsafe {
            let mask = _mm256_set1_epi64x(MASK as i64);
            let mut out = limbs;
            for at in 0..LIMBS - 1 {
                let carry = _mm256_srli_epi64(out[at], BITS as i32);
                out[at] = _mm256_and_si256(out[at], mask);
                out[at + 1] = _mm256_add_epi64(out[at + 1], carry);
            }
            out
        }
    }

    /// `Σ a·b / 2^261` modulo p.
    #[inline(always)]
    fn montgomery<const N: usize>(products: [(&Lanes, &Lanes); N]) -> Lanes {
        // SAFETY: see `Lanes`.
        unsafe { columns(products) }
    }

    /// [`montgomery`], column by column, for one or two products of numbers with limbs below 2^29
    /// (the last below 2^32). All columns are below 2^64: 18 products of 58 bits, 9 with p, and a
    /// carry. Never inlined, as the functions below: the loops with many products then lie in the
    /// processor's nearest caches.
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    fn columns<const N: usize>(products: [(&Lanes, &Lanes); N]) -> Lanes {
        let mask = _mm256_set1_epi64x(MASK as i64);
        let zero = _mm256_setzero_si256();
        let (mut m, mut out, mut carry) = ([zero; LIMBS], [zero; LIMBS], zero);
        // Conditions and places are constants in each use.
        macro_rules! column {
                ($k:literal: $($i:literal)*) => {{
                    let (mut sum, mut of_p) = (carry, zero);
                    $(
                        if $i <= $k && $k - $i < 9 {
                            let j = ($k as usize).wrapping_sub($i);
                            for (a, b) in &products {
                                sum = _mm256_add_epi64(sum, _mm256_mul_epu32(a.0[$i], b.0[j]));
                            }
                            if $i < $k {
                                let p = _mm256_set1_epi64x(P[j] as i64);
                                of_p = _mm256_add_epi64(of_p, _mm256_mul_epu32(m[$i], p));
                            }
                        }
                    )*
                    sum = _mm256_add_epi64(sum, of_p);
                    if $k < 9 {
                        // p's lowest limb is 1, so this makes the column's lowest bits 0.
                        m[$k % 9] = _mm256_and_si256(_mm256_sub_epi64(zero, sum), mask);
                        sum = _mm256_add_epi64(sum, m[$k % 9]);
                    } else {
                        out[($k as usize).wrapping_sub(9) % 9] = _mm256_and_si256(sum, mask);
                    }
                    carry = _mm256_srli_epi64(sum, BITS as i32);
                }};
            }
        column!(0: 0 1 2 3 4 5 6 7 8);
        column!(1: 0 1 2 3 4 5 6 7 8);
        column!(2: 0 1 2 3 4 5 6 7 8);
        column!(3: 0 1 2 3 4 5 6 7 8);
        column!(4: 0 1 2 3 4 5 6 7 8);
        column!(5: 0 1 2 3 4 5 6 7 8);
        column!(6: 0 1 2 3 4 5 6 7 8);
        column!(7: 0 1 2 3 4 5 6 7 8);
        column!(8: 0 1 2 3 4 5 6 7 8);
        column!(9: 0 1 2 3 4 5 6 7 8);
        column!(10: 0 1 2 3 4 5 6 7 8);
        column!(11: 0 1 2 3 4 5 6 7 8);
        column!(12: 0 1 2 3 4 5 6 7 8);
        column!(13: 0 1 2 3 4 5 6 7 8);
        column!(14: 0 1 2 3 4 5 6 7 8);
        column!(15: 0 1 2 3 4 5 6 7 8);
        column!(16: 0 1 2 3 4 5 6 7 8);
        out[8] = carry;
        Lanes(out)
    }

    /// [`Number::form`]
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    fn form<const K: usize, const STEPS: usize>(
        constant: &[u32; LIMBS],
        factors: &[[u32; LIMBS]; K],
        integers: &[__m256i; K],
    ) -> Lanes {
        let mut limbs = zeros();
        for (at, limb) in limbs.iter_mut().enumerate() {
            *limb = _mm256_set1_epi64x(i64::from(constant[at]));
            for (factor, n) in factors.iter().zip(integers) {
                let factor = _mm256_set1_epi32(factor[at] as i32);
                *limb = _mm256_add_epi64(*limb, _mm256_mul_epu32(factor, *n));
            }
        }
        let (mask, zero) = (_mm256_set1_epi64x(MASK as i64), _mm256_setzero_si256());
        for _ in 0..STEPS {
            // As in `columns`.
            let m = _mm256_and_si256(_mm256_sub_epi64(zero, limbs[0]), mask);
            let carry = _mm256_srli_epi64(_mm256_add_epi64(limbs[0], m), BITS as i32);
            limbs[1] = _mm256_add_epi64(limbs[1], carry);
            for at in 1..LIMBS {
                let p = _mm256_set1_epi64x(P[at] as i64);
                limbs[at - 1] = _mm256_add_epi64(limbs[at], _mm256_mul_epu32(m, p));
            }
            limbs[LIMBS - 1] = zero;
        }
        Lanes(carried(limbs))
    }

    /// [`Number::gather`]
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    fn gather(entries: &[[u32; LIMBS]], codes: &[u32]) -> Lanes {
        let (a, b) = (&entries[codes[0] as usize], &entries[codes[1] as usize]);
        let (c, d) = (&entries[codes[2] as usize], &entries[codes[3] as usize]);
        let mut out = zeros();
        for (at, out) in out.iter_mut().enumerate() {
            let limbs = _mm_set_epi32(d[at] as i32, c[at] as i32, b[at] as i32, a[at] as i32);
            *out = _mm256_cvtepu32_epi64(limbs);
        }
        Lanes(out)
    }

    /// [`Number::at_two`]
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    fn at_two(low: &Lanes, high: &Lanes) -> Lanes {
        let mut limbs = zeros();
        for (at, limb) in limbs.iter_mut().enumerate() {
            let offset = _mm256_set1_epi64x(EIGHT_P[at] as i64);
            let raised = _mm256_sub_epi64(offset, low.0[at]);
            *limb = _mm256_add_epi64(raised, _mm256_slli_epi64(high.0[at], 1));
        }
        Lanes(carried(limbs))
    }

    #[inline(always)]
    fn zeros() -> [__m256i; LIMBS] {
        // SAFETY: see `Lanes`.
        [unsafe { _mm256_setzero_si256() }; LIMBS]
    }

    /// Raw numbers below 2^261 in all lanes.
    #[inline(always)]
    fn raw(limbs: [u64; LIMBS]) -> Lanes {
        let mut out = zeros();
        for (out, limb) in out.iter_mut().zip(limbs) {
            // SAFETY: see `Lanes`.
            *out = unsafe { _mm256_set1_epi64x(limb as i64) };
        }
        Lanes(out)
    }

    /// The element whose form with R = 2^256 a lane has.
    fn lane(four: &Four, lane: usize) -> Fe {
        Fe::of_limbs(&four.0.map(|limb| limb[lane]), BITS)
    }

    impl Number for Lanes {
        const WIDE: bool = true;
        type Stored = Four;
        type Entry = [u32; LIMBS];
        type Sum = Sum;
        type Integers = __m256i;

        fn entry(element: Fe) -> [u32; LIMBS] {
            // From R = 2^256 to 2^261.
            let raised = (0..5).fold(element, |element, _| element.double());
            std::array::from_fn(|at| raised.bits(at as u32 * BITS, BITS) as u32)
        }

        #[inline(always)]
        fn gather(entries: &[[u32; LIMBS]], codes: &[u32]) -> Lanes {
            // SAFETY: see `Lanes`.
            unsafe { gather(entries, codes) }
        }

        #[inline(always)]
        fn load(stored: &Four) -> Lanes {
            let mut out = zeros();
            for (out, limb) in out.iter_mut().zip(&stored.0) {
                // SAFETY: see `Lanes`; each limb has the 16 bytes that are read.
                *out = unsafe { _mm256_cvtepu32_epi64(_mm_loadu_si128(limb.as_ptr().cast())) };
            }
            Lanes(out)
        }

        #[inline(always)]
        fn store(self) -> Four {
            let mut out = Four::default();
            for (out, limb) in out.0.iter_mut().zip(self.0) {
                // SAFETY: see `Lanes`; each limb has the 16 bytes that are written.
                unsafe {
                    let even = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
                    let packed = _mm256_permutevar8x32_epi32(limb, even);
                    _mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_castsi256_si128(packed));
                }
            }
            out
        }

        #[inline(always)]
        fn splat(element: Fe) -> Lanes {
            raw(Self::entry(element).map(u64::from))
        }

        #[inline(always)]
        fn zero() -> Lanes {
            raw([0; LIMBS])
        }

        #[inline(always)]
        fn one() -> Lanes {
            raw(ONE)
        }

        #[inline(always)]
        fn plus(self, other: Lanes) -> Lanes {
            let mut sums = self.0;
            for (sum, limb) in sums.iter_mut().zip(other.0) {
                // SAFETY: see `Lanes`.
                *sum = unsafe { _mm256_add_epi64(*sum, limb) };
            }
            Lanes(carried(sums))
        }

        #[inline(always)]
        fn times(self, other: Lanes) -> Lanes {
            montgomery([(&self, &other)])
        }

        #[inline(always)]
        fn crossed(a: Lanes, b: Lanes, c: Lanes, d: Lanes) -> Lanes {
            montgomery([(&a, &d), (&b, &c)])
        }

        #[inline(always)]
        fn at_two(low: Lanes, high: Lanes) -> Lanes {
            // SAFETY: see `Lanes`.
            unsafe { at_two(&low, &high) }
        }

        #[inline(always)]
        fn bound(low: Lanes, high: Lanes, weights: [Lanes; 2]) -> Lanes {
            montgomery([(&low, &weights[0]), (&high, &weights[1])])
        }

        #[inline(always)]
        fn accumulate(sum: &mut Sum, value: Lanes, weight: Lanes) {
            Self::add(sum, montgomery([(&value, &weight)]));
        }

        #[inline(always)]
        fn add(sum: &mut Sum, value: Lanes) {
            for (sum, limb) in sum.0.iter_mut().zip(value.0) {
                // SAFETY: see `Lanes`.
                *sum = unsafe { _mm256_add_epi64(*sum, limb) };
            }
        }

        #[inline(always)]
        fn total(sum: Sum) -> Fe {
            // At most 2^7 products below 2·p: the last limb stays below 2^32.
            let reduced = Lanes(carried(sum.0)).times(Lanes::one());
            Self::elements(&reduced.store()).into_iter().sum()
        }

        #[inline(always)]
        fn elements(stored: &Four) -> [Fe; LANES] {
            // 2^256 modulo p: a product with it, over 2^261, takes R = 2^261 to 2^256.
            let to = limbs_of(Fe::R);
            let converted = Lanes::load(stored).times(raw(to)).store();
            std::array::from_fn(|at| lane(&converted, at))
        }

        fn stored(elements: [Fe; LANES]) -> Four {
            let mut out = Four::default();
            for (lane, element) in elements.iter().enumerate() {
                let limbs = Self::entry(*element);
                out.0.iter_mut().zip(limbs).for_each(|(out, limb)| out[lane] = limb);
            }
            out
        }

        #[inline(always)]
        fn integers(integers: &[u32]) -> __m256i {
            let integers = &integers[..LANES];
            // SAFETY: see `Lanes`; the slice has the 16 bytes that are read.
            unsafe { _mm256_cvtepu32_epi64(_mm_loadu_si128(integers.as_ptr().cast())) }
        }

        #[inline(always)]
        fn sum_of(a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: see `Lanes`.
            unsafe { _mm256_add_epi64(a, b) }
        }

        #[inline(always)]
        fn product_of(a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: see `Lanes`.
            unsafe { _mm256_mul_epu32(a, b) }
        }

        fn coefficient<const STEPS: usize>(element: Fe) -> [u32; LIMBS] {
            let steps = STEPS * BITS as usize;
            Self::entry((0..steps).fold(element, |element, _| element.double()))
        }

        /// Each step divides by 2^29, for which the coefficients are larger. The limbs stay below
        /// 2^63, and the result below 2·p.
        #[inline(always)]
        fn form<const K: usize, const STEPS: usize>(
            constant: &[u32; LIMBS],
            factors: &[[u32; LIMBS]; K],
            integers: [__m256i; K],
        ) -> Lanes {
            // SAFETY: see `Lanes`.
            unsafe { form::<K, STEPS>(constant, factors, &integers) }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use ff::Field;
    use proptest::prelude::*;
    use zklora_proof::field::{F, from_wide};

    use super::*;
    use crate::fe::elements;

    /// Elements, those at the ends of the range among them.
    fn element() -> impl Strategy<Value = Fe> {
        let any_element = any::<[u8; 32]>().prop_map(|half| {
            let mut bytes = [0u8; 64];
            bytes[..32].copy_from_slice(&half);
            from_wide(&bytes)
        });
        prop_oneof![
            8 => any_element,
            1 => (0u64..4).prop_map(F::from),
            1 => (1u64..4).prop_map(|x| -F::from(x)),
        ]
        .prop_map(Fe::from)
    }

    fn plain(number: Lanes) -> Vec<Fe> {
        Lanes::elements(&number.store()).to_vec()
    }

    fn lanes(elements: &[Fe]) -> Lanes {
        Lanes::load(&Lanes::stored(std::array::from_fn(|at| elements[at])))
    }

    fn each(a: &[Fe], b: &[Fe], of: impl Fn(Fe, Fe) -> Fe) -> Vec<Fe> {
        a.iter().zip(b).map(|(a, b)| of(*a, *b)).collect()
    }

    proptest! {
        #[test]
        fn lanes_compute_what_elements_do(
            a in prop::collection::vec(element(), 4),
            b in prop::collection::vec(element(), 4),
            r in element(),
        ) {
            if !available() {
                return Ok(());
            }
            let (x, y) = (lanes(&a), lanes(&b));
            prop_assert_eq!(plain(x), a.clone());
            prop_assert_eq!(plain(x.plus(y)), each(&a, &b, |a, b| a + b));
            prop_assert_eq!(plain(x.times(y)), each(&a, &b, |a, b| a * b));
            prop_assert_eq!(plain(Lanes::at_two(x, y)), each(&a, &b, |a, b| b.double() - a));
            prop_assert_eq!(
                plain(Lanes::crossed(x, y, x, y)),
                each(&a, &b, |a, b| (a * b).double())
            );
            let weights = [Fe::ONE - r, r];
            prop_assert_eq!(
                plain(Lanes::bound(x, y, weights.map(Lanes::splat))),
                each(&a, &b, |a, b| a * weights[0] + b * weights[1])
            );
            // The largest numbers that the loops make.
            let two = Lanes::at_two(x, y);
            let expected = each(&a, &b, |a, b| b.double() - a);
            prop_assert_eq!(
                plain(Lanes::crossed(two.plus(two), two.plus(two), two, two)),
                each(&expected, &expected, |x, _| (x * x).double().double())
            );
            prop_assert_eq!(plain(Lanes::one()), vec![Fe::ONE; 4]);
            prop_assert_eq!(plain(Lanes::zero()), vec![Fe::ZERO; 4]);
            let mut sum = <Lanes as Number>::Sum::default();
            (0..1 << 7).for_each(|_| Lanes::accumulate(&mut sum, two, x));
            let total: Fe = each(&expected, &a, |x, a| x * a).into_iter().sum();
            prop_assert_eq!(Lanes::total(sum), total * Fe::of(1 << 7));
            let entries: Vec<_> = a.iter().map(|a| Lanes::entry(*a)).collect();
            let gathered = plain(Lanes::gather(&entries, &[3, 1, 1, 0]));
            prop_assert_eq!(gathered, [3, 1, 1, 0].map(|i| a[i]));
        }
    }

    /// Four products, and a number more: what the loops extrapolate.
    #[test]
    fn numbers_of_some_times_p_are_extrapolated_right() {
        if !available() {
            return;
        }
        // The largest number: its form with R = 2^261 is p − 1.
        let most = -Fe::bit(0) * Fe::from(F::from(32).invert().unwrap());
        let sum = |count: usize| {
            (0..count).fold((Lanes::zero(), Fe::ZERO), |(lanes, fe), _| {
                (lanes.plus(Lanes::splat(most)), fe + most)
            })
        };
        for (low, high) in (0..8).flat_map(|low| [0, 1, 5, 7].map(|high| (low, high))) {
            let ((low, of_low), (high, of_high)) = (sum(low), sum(high));
            let two = Lanes::at_two(low, high);
            assert_eq!(plain(two.times(Lanes::one())), [of_high.double() - of_low; 4]);
            assert_eq!(plain(two.times(two))[0], {
                let two = of_high.double() - of_low;
                two * two
            });
        }
    }

    #[test]
    fn the_largest_element_is_handled() {
        if !available() {
            return;
        }
        let largest = elements(&[-F::ONE; 4]);
        assert_eq!(plain(lanes(&largest).times(lanes(&largest))), [Fe::ONE; 4]);
    }
}
