//! Whether the inner loops use wide vector instructions. Results do not depend on it.

use std::sync::atomic::{AtomicBool, Ordering};

static LEFT_OUT: AtomicBool = AtomicBool::new(false);

/// Leaves them out in this process, to measure what they save.
pub fn leave_out() {
    LEFT_OUT.store(true, Ordering::Relaxed);
}

/// Whether the processor has AVX2, and it was not left out.
pub(crate) fn are_there() -> bool {
    #[cfg(target_arch = "x86_64")]
    return !LEFT_OUT.load(Ordering::Relaxed) && std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}
