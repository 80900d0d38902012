//! The contributor's server: deltas over gRPC. Each row is counted and on disk before it is
//! answered. Proofs are made beside inference.
//!
//! ```text
//! accept → connection_stream → middleware (client, body limits) → service
//!
//! Infer   → infer_stream → serve_batch: check, count, compute, log, answer
//! Finish  → serve_batch → proof_queue → prover (its own thread): log → trace → ledger → proof
//!
//! Evaluate → evaluation: check, charge, store, score (its own thread), sign
//! ```
//!
//! Secrets stay in [`zklora_artifacts::folder::Artifacts`]. The server never logs rows, deltas,
//! tokens or keys.

mod accept;
mod active_sessions;
mod available_memory;
mod batch_limits;
mod blocking_pool;
mod connection_stream;
mod connections;
mod context;
mod evaluation;
mod fair_queue;
mod fetch_proof;
mod file_descriptors;
mod identity;
mod infer_stream;
mod limits;
mod listening;
mod log_rate;
mod memory_budget;
mod message_limits;
mod metrics;
mod middleware;
mod options;
mod proof_progress;
mod proof_queue;
mod prover;
mod recovery;
mod refusals;
mod request_body;
mod response_body;
mod row_counter;
mod row_service;
mod serve_batch;
mod service;
mod session;
mod session_trace;
mod sessions;
mod start;
mod state;
mod unlisted_logs;

pub use identity::{ANONYMOUS, Tokens};
pub use limits::Limits;
pub use listening::Listening;
pub use options::{ServerOptions, ServerTls};
pub use recovery::Restored;
pub use row_service::RowService;
pub use start::{start, start_with_evaluations};

pub use crate::session_files::default_data;

/// The memory that this process can have, in bytes: that of the machine, of its container or of its
/// address space.
pub fn available_memory() -> u64 {
    available_memory::AvailableMemory::of_this_process().bytes
}
