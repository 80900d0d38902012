//! Measurements: the proof, the network, the functions that cost most, and the comparison with
//! EZKL.
//!
//! Nothing here is needed to prove, verify or serve.

mod compared;
pub mod error;
pub mod ezkl_comparison;
pub mod hot_functions;
mod integer_vs_float;
pub mod network_bench;
pub mod proof_bench;

pub use error::Error;
