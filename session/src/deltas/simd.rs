//! The kernel, compiled for the vector instructions of this processor.
#![allow(unsafe_code)]

use super::kernel::{self, Shape};

/// [`kernel::low_rank`] with the widest available instructions. They do not change the result.
pub(super) fn low_rank(shape: Shape, x: &[i32], a: &[f64], b: &[f64], out: &mut [i64]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the only requirement of `with_avx2` is a processor with AVX2 and FMA, which was
        // just checked.
        return unsafe { with_avx2(shape, x, a, b, out) };
    }
    kernel::low_rank::<false>(shape, x, a, b, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2(shape: Shape, x: &[i32], a: &[f64], b: &[f64], out: &mut [i64]) {
    kernel::low_rank::<true>(shape, x, a, b, out);
}
