//! The contributor's server: deltas over gRPC, each row counted and on disk before it is answered,
//! proofs beside inference.
//!
//! ```text
//! connections → door: identity, what is held → service (tonic) ─ Infer → sessions → session: check, count, compute, log, answer
//!                                                              ─ Finish → prover (a thread with its own pool): log → trace → ledger → proof
//! ```
//!
//! Secrets stay in [`zklora_artifacts::folder::Artifacts`]; nothing here logs rows, deltas, tokens
//! or keys.

mod answers;
pub(crate) mod attempts;
mod connections;
mod descriptors;
mod door;
mod guarded;
mod held;
mod identity;
mod limits;
mod log_rate;
mod memory;
mod metrics;
mod places;
mod prover;
mod queue;
mod requests;
mod run;
mod service;
mod session;
mod sessions;
mod trouble;
mod workers;

pub use identity::{ANONYMOUS, Tokens};
pub use limits::Limits;
pub use run::{Listening, ServerOptions, ServerTls, default_data, start};
pub use sessions::Restored;
