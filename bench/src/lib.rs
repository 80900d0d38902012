//! Measures the proof, the network and the functions that cost most, and compares with EZKL.
//!
//! ```text
//! proof_bench: profile → synthetic_adapter → task (a stage in its own process) → figures
//!              figures → targets, scaling, markdown
//! long_session: one part of a session of very many rows in its own process → peak memory
//! network_bench: a server and a user's model in one process → times as ratios
//! evaluation_bench: base model, adapter, text → scoring against tract, bytes and time around it
//! inference_bench: the figures of proofs that `zklora integer prove` makes → page, curve
//! ezkl_comparison: one module → native_side, ezkl_side → comparison → page
//! hot_functions → `cargo bench`, and the test `instructions`
//! ```
//!
//! Proving, verifying and serving do not need this crate.

mod compared;
pub mod error;
pub mod evaluation_bench;
#[cfg(feature = "ezkl")]
pub mod ezkl_comparison;
pub mod hot_functions;
pub mod inference_bench;
mod integer_vs_float;
pub mod long_session;
pub mod network_bench;
pub mod proof_bench;

pub use error::Error;
