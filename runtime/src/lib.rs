//! Files and sessions around the proof: artifact folders, activations, traces, proving and
//! verifying them.
//!
//! Everything that touches the disk is here; the mathematics is in `zklora-proof`, the compiler
//! in `zklora-compiler`. Nothing here prints.
//!
//! ```text
//! PEFT folder ─ pipeline::export ─ compile::compile → artifacts (public/, private/)
//! activations ─ record::record → trace ─ session::prove → proof ─ session::verify → verdict
//! delivered adapter + opening ─ audit::audit → which modules differ
//! ```

pub mod activation_commitment;
pub mod activations;
pub mod artifacts;
pub mod audit;
pub mod batch;
pub mod client;
pub mod compile;
pub mod deltas;
pub mod effect_report;
pub mod error;
pub mod ezkl;
pub mod files;
pub mod frame_log;
pub mod infer;
pub mod kernels;
mod known_manifests;
pub mod leak;
pub mod ledger;
pub mod lock;
pub mod network_bench;
pub mod not_inherited;
pub mod npy;
pub mod parts;
pub mod pipeline;
pub mod precision;
pub mod proof_bench;
pub mod record;
pub mod report_page;
pub mod secrets;
pub mod served;
pub mod server;
pub mod session;
pub mod session_log;
pub mod srs_store;
pub mod stored_sessions;
pub mod synthetic;
pub mod trace_file;
pub mod trace_reader;
pub mod trace_writer;
pub mod weights_file;
pub mod wire;

pub use error::Error;
