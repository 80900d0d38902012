//! Sums of rows of integers, each row times a 128-bit weight.

use crate::simd;
pub use crate::stripe::{LIMBS, RowWeight, STRIPE, Stripe, TWO_PARTS};

/// `Σ_r weight_r·x_r` for integers below 2^23 in magnitude, limb by limb.
pub fn of_inputs(weights: &[RowWeight], x: &[i32], stripe: Stripe) -> Vec<[i128; LIMBS]> {
    simd::sum_stripe::<i32, 1>(weights, x, stripe)
}

/// `Σ_r weight_r·d_r` for 64-bit integers below 2^`bits` in magnitude, limb by limb.
pub fn of_deltas(
    weights: &[RowWeight],
    d: &[i64],
    bits: u32,
    stripe: Stripe,
) -> Vec<[i128; LIMBS]> {
    if bits <= TWO_PARTS {
        simd::sum_stripe::<i64, 2>(weights, d, stripe)
    } else {
        simd::sum_stripe::<i64, 3>(weights, d, stripe)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stripe::sum_stripe;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// With any instructions of the processor, the sums are those of the definition.
        #[test]
        fn sums_are_the_same_with_any_instructions(
            rows in 0usize..300,
            dim in 1usize..40,
            seed in any::<u64>(),
        ) {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state ^ (state >> 29)) as i64
            };
            let weights: Vec<RowWeight> = (0..rows).map(|_| std::array::from_fn(|_| next() as u32)).collect();
            let d: Vec<i64> = (0..rows * dim).map(|_| next() >> 1).collect();
            let x: Vec<i32> = d.iter().map(|d| (d >> 39) as i32).collect();
            let small: Vec<i64> = d.iter().map(|d| d >> (62 - TWO_PARTS)).collect();
            let expected = |values: &[i64]| -> Vec<[i128; LIMBS]> {
                let sum = |i: usize, k: usize| -> i128 {
                    let rows = weights.iter().zip(values.chunks_exact(dim));
                    rows.map(|(weight, row)| i128::from(weight[k]) * i128::from(row[i])).sum()
                };
                (0..dim).map(|i| std::array::from_fn(|k| sum(i, k))).collect()
            };
            let whole = Stripe { dim, first: 0, width: dim };
            let wide: Vec<i64> = x.iter().map(|x| i64::from(*x)).collect();
            prop_assert_eq!(of_inputs(&weights, &x, whole), expected(&wide));
            prop_assert_eq!(sum_stripe::<i32, 1>(&weights, &x, whole), expected(&wide));
            prop_assert_eq!(of_deltas(&weights, &d, 63, whole), expected(&d));
            prop_assert_eq!(sum_stripe::<i64, 3>(&weights, &d, whole), expected(&d));
            prop_assert_eq!(of_deltas(&weights, &small, TWO_PARTS, whole), expected(&small));
            prop_assert_eq!(sum_stripe::<i64, 2>(&weights, &small, whole), expected(&small));
            let end = Stripe { dim, first: dim / 3, width: dim - dim / 3 };
            prop_assert_eq!(of_inputs(&weights, &x, end), expected(&wide)[end.first..].to_vec());
        }
    }
}
