//! The inner loop of the projection, compiled once for any processor and once for AVX2. The
//! processor that runs it decides which is used.
#![allow(unsafe_code)]

use crate::stripe::{self, LIMBS, Parts, RowWeight, Stripe};

/// [`stripe::sum_stripe`] with AVX2 where the processor has it. The sums do not depend on it.
pub fn sum_stripe<T: Parts<P>, const P: usize>(
    weights: &[RowWeight],
    values: &[T],
    stripe: Stripe,
) -> Vec<[i128; LIMBS]> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: `with_avx2` is a safe function that requires a processor with AVX2, which the
        // line above detected.
        return unsafe { with_avx2(weights, values, stripe) };
    }
    stripe::sum_stripe(weights, values, stripe)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2<T: Parts<P>, const P: usize>(
    weights: &[RowWeight],
    values: &[T],
    stripe: Stripe,
) -> Vec<[i128; LIMBS]> {
    stripe::sum_stripe(weights, values, stripe)
}
