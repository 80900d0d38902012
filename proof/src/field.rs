//! The scalar field of BLS12-381, sums of small integers times field elements, and secret vectors
//! that are overwritten when dropped.
//!
//! It knows nothing of adapters or proofs.

use ff::{Field, FromUniformBytes};

/// The scalar field F of BLS12-381, of prime order p (255 bits).
pub type F = midnight_curves::Fq;
/// A commitment, in projective coordinates.
pub type G1 = midnight_curves::G1Projective;
/// A commitment, in affine coordinates.
pub type G1Affine = midnight_curves::G1Affine;

/// A field element as four little-endian 64-bit limbs, canonical (below p).
pub type Limbs = [u64; 4];

/// The canonical limbs of `value`.
pub fn limbs(value: &F) -> Limbs {
    let bytes = value.to_bytes_le();
    let mut out = [0u64; 4];
    for (limb, chunk) in out.iter_mut().zip(bytes.chunks_exact(8)) {
        let mut word = [0u8; 8];
        word.copy_from_slice(chunk);
        *limb = u64::from_le_bytes(word);
    }
    out
}

/// The canonical limbs of each element.
pub fn all_limbs(values: &[F]) -> Vec<Limbs> {
    values.iter().map(limbs).collect()
}

/// The field element congruent to `value`.
pub fn from_i128(value: i128) -> F {
    let magnitude = value.unsigned_abs();
    signed(value < 0, &[magnitude as u64, (magnitude >> 64) as u64, 0, 0])
}

/// `±magnitude`, for a magnitude below 2^254 (which is below p).
fn signed(negative: bool, magnitude: &Limbs) -> F {
    // Canonical by the bound, so the conversion never fails. (`PrimeField::from_u128` would double
    // 64 times.)
    let value = F::from_u64s_le(magnitude).unwrap_or(F::ZERO);
    if negative { -value } else { value }
}

/// `Σ_k parts[k]·2^(32k)` for four parts below 2^127 in magnitude: the sum is below 2^224, so it is
/// computed as a 256-bit integer in two's complement and converted once.
pub fn from_parts_of_32_bits(parts: &[i128; 4]) -> F {
    let mut words = [0u64; 4];
    for part in parts.iter().rev() {
        let sign = (part >> 127) as u64;
        let addend = [*part as u64, (part >> 64) as u64, sign, sign];
        let mut carry = 0u128;
        let mut below = 0u64;
        for (word, addend_word) in words.iter_mut().zip(addend) {
            let shifted = (*word << 32) | (below >> 32);
            below = *word;
            carry += u128::from(shifted) + u128::from(addend_word);
            *word = carry as u64;
            carry >>= 64;
        }
    }
    let negative = words[3] >> 63 == 1;
    if negative {
        let mut carry = true;
        for word in &mut words {
            (*word, carry) = (!*word).overflowing_add(u64::from(carry));
        }
    }
    signed(negative, &words)
}

/// The field element congruent to `value`.
pub fn from_i64(value: i64) -> F {
    from_i128(i128::from(value))
}

/// 64 uniform bytes to a field element, with a bias below 2⁻²⁵⁶.
pub fn from_wide(bytes: &[u8; 64]) -> F {
    F::from_uniform_bytes(bytes)
}

/// `1, base, base², …` (`count` of them).
pub fn powers(base: F, count: usize) -> Vec<F> {
    std::iter::successors(Some(F::ONE), |power| Some(*power * base)).take(count).collect()
}

/// `⟨a, b⟩`. The shorter vector is taken as extended with zeros.
pub fn inner_product(a: &[F], b: &[F]) -> F {
    a.iter().zip(b).map(|(x, y)| *x * y).sum()
}

/// An unreduced sum `Σ sᵢ·vᵢ` of small integers `sᵢ` times field elements `vᵢ`.
///
/// Each limb's accumulator holds a sum of products below 2³¹·2⁶⁴ = 2⁹⁵ in magnitude. An `i128`
/// takes 2³² of them, which is more than any vector has (`manifest::MAX_DIM`).
#[derive(Clone, Copy, Default)]
pub struct SmallSum([i128; 4]);

impl SmallSum {
    /// Adds `small · value`.
    #[inline(always)]
    pub fn add(&mut self, small: i32, value: &Limbs) {
        for (acc, limb) in self.0.iter_mut().zip(value) {
            // The product fits (95 bits) and so does the sum (see the type's comment).
            *acc = acc.wrapping_add(i128::from(small).wrapping_mul(i128::from(*limb)));
        }
    }

    /// The sum, reduced modulo p.
    pub fn reduce(&self) -> F {
        let shift = signed(false, &[0, 1, 0, 0]);
        self.0.iter().rev().fold(F::ZERO, |high, limb| high * shift + from_i128(*limb))
    }
}

/// `⟨small, values⟩`. The shorter vector is taken as extended with zeros.
pub fn small_inner_product(small: &[i32], values: &[Limbs]) -> F {
    let mut sum = SmallSum::default();
    for (s, v) in small.iter().zip(values) {
        sum.add(*s, v);
    }
    sum.reduce()
}

/// Overwrites secret field elements. `black_box` keeps the compiler from removing the writes.
pub fn wipe(values: &mut [F]) {
    for value in values.iter_mut() {
        *value = F::ZERO;
    }
    std::hint::black_box(values);
}

/// A vector of secret field elements, overwritten when dropped.
#[derive(Default)]
pub struct Secret(pub Vec<F>);

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl std::ops::Deref for Secret {
    type Target = Vec<F>;
    fn deref(&self) -> &Vec<F> {
        &self.0
    }
}

impl std::ops::DerefMut for Secret {
    fn deref_mut(&mut self) -> &mut Vec<F> {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use ff::PrimeField;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn small_sums_equal_field_sums(small in prop::collection::vec(any::<i32>(), 0..40), wide in prop::collection::vec(any::<[u8; 32]>(), 40)) {
            let values: Vec<F> = wide.iter().map(|w| { let mut b = [0u8; 64]; b[..32].copy_from_slice(w); from_wide(&b) }).collect();
            let expected: F = small.iter().zip(&values).map(|(s, v)| from_i64(i64::from(*s)) * v).sum();
            prop_assert_eq!(small_inner_product(&small, &all_limbs(&values)), expected);
        }
    }

    proptest! {
        #[test]
        fn parts_of_32_bits_are_put_together(parts in any::<[i128; 4]>()) {
            let parts = parts.map(|p| p / 2);
            let shift = F::from(1 << 32);
            let expected = parts.iter().rev().fold(F::ZERO, |high, part| high * shift + from_i128(*part));
            prop_assert_eq!(from_parts_of_32_bits(&parts), expected);
            prop_assert_eq!(from_i128(parts[0]) + F::from_u128(parts[0].unsigned_abs()) * if parts[0] < 0 { F::ONE } else { -F::ONE }, F::ZERO);
        }
    }

    #[test]
    fn small_sums_hold_a_million_extreme_terms() {
        let value = -F::ONE;
        let count = 1 << 20;
        let sum = small_inner_product(&vec![i32::MIN; count], &vec![limbs(&value); count]);
        assert_eq!(sum, from_i128(i128::from(i32::MIN) * count as i128) * value);
    }
}
