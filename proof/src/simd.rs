//! The inner loop of the projection, compiled for the vector instructions of the processor that
//! runs it.
#![allow(unsafe_code)]

use crate::row_sums::{self, LIMBS, Parts, Stripe, Weight};

/// [`row_sums::stripe`] with the widest instructions at hand; the sums are the same with any.
pub fn stripe<T: Parts<P>, const P: usize>(
    weights: &[Weight],
    values: &[T],
    stripe: Stripe,
) -> Vec<[i128; LIMBS]> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: `with_avx2` is a safe function whose only demand on its caller is a processor
        // with AVX2, which has just been found.
        return unsafe { with_avx2(weights, values, stripe) };
    }
    row_sums::stripe(weights, values, stripe)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2<T: Parts<P>, const P: usize>(
    weights: &[Weight],
    values: &[T],
    stripe: Stripe,
) -> Vec<[i128; LIMBS]> {
    row_sums::stripe(weights, values, stripe)
}
