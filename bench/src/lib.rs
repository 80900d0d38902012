//! Measurements: the proof, the network, the functions that cost most, and the comparison with
//! EZKL.
//!
//! Nothing here is needed to prove, verify or serve.

pub mod against;
pub mod error;
pub mod kernels;
pub mod network_bench;
pub mod proof_bench;

pub use error::Error;
