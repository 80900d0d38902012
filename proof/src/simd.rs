//! The inner loop of the projection, compiled for the vector instructions of the processor that
//! runs it.
#![allow(unsafe_code)]

use crate::stripe::{self, LIMBS, Parts, RowWeight, Stripe};

/// [`stripe::sum_stripe`] with the widest instructions at hand; the sums are the same with any.
pub fn sum_stripe<T: Parts<P>, const P: usize>(
    weights: &[RowWeight],
    values: &[T],
    stripe: Stripe,
) -> Vec<[i128; LIMBS]> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: `with_avx2` is a safe function whose only demand on its caller is a processor
        // with AVX2, which has just been found.
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
