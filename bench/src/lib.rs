//! Measures the proof, the network and the functions that cost most, and compares with EZKL.
//!
//! Proving, verifying and serving do not need this crate.

mod compared;
pub mod error;
#[cfg(feature = "ezkl")]
pub mod ezkl_comparison;
pub mod hot_functions;
mod integer_vs_float;
pub mod network_bench;
pub mod proof_bench;

pub use error::Error;
