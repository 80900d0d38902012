//! Detects forks. A forked child has none of its parent's threads, and a call that waits for one
//! would wait forever.

use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::prelude::*;

use crate::error::Failure;

/// The process that first started a thread; 0: none yet.
static STARTED_IN: AtomicU32 = AtomicU32::new(0);

/// Fails in a child that was forked after threads were started.
///
/// # Errors
/// `ZkloraError`, which says what to do instead.
#[pyfunction]
pub fn check_process() -> Result<(), Failure> {
    let process = std::process::id();
    match STARTED_IN.compare_exchange(0, process, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => Ok(()),
        Err(started) if started == process => Ok(()),
        Err(_) => Err(Failure::Forked),
    }
}

/// Descriptors that a child must not keep after a fork: locked files, and a server's sockets.
#[pyfunction]
pub fn not_inherited() -> Vec<i32> {
    zklora_session::close_in_child::descriptors()
}

/// Whether this process was forked after threads were started. Such a child must not even drop
/// objects that belong to the parent's threads.
pub fn is_forked() -> bool {
    let started = STARTED_IN.load(Ordering::Relaxed);
    started != 0 && started != std::process::id()
}
