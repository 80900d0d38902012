//! The process that started the threads. A forked child has none of them: whoever waits for one
//! there waits for ever.

use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::prelude::*;

use crate::error::Failure;

/// The process that first used a thread; 0: none yet.
static STARTED_IN: AtomicU32 = AtomicU32::new(0);

/// Refuses to go on in a child that was forked after the threads were started.
///
/// # Errors
/// `ZkloraError`, with what to do instead.
#[pyfunction]
pub fn check_process() -> Result<(), Failure> {
    let own = std::process::id();
    match STARTED_IN.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => Ok(()),
        Err(started) if started == own => Ok(()),
        Err(_) => Err(Failure::Forked),
    }
}

/// Descriptors that a child must not keep after a fork: files with a lock, and a server's sockets.
#[pyfunction]
pub fn not_inherited() -> Vec<i32> {
    zklora_session::close_in_child::descriptors()
}

/// Whether this process is such a child. What belongs to the parent's threads must not even be
/// dropped there.
pub fn is_forked() -> bool {
    let started = STARTED_IN.load(Ordering::Relaxed);
    started != 0 && started != std::process::id()
}
