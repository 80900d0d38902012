//! Where proofs are made and verified.

/// Does work on a thread of the pool. A proof has many short parallel loops: from a thread that is
/// not the pool's, each of them would sleep until others have woken up.
#[cfg(not(test))]
pub fn on_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| work())
}

/// On this thread: a test says to its own thread which rule a prover breaks.
#[cfg(test)]
pub fn on_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    work()
}
