//! The two-party protocol: rows to a contributor, deltas back, each counted before it leaves, and a
//! proof at the end.
//!
//! ```text
//! client ─ wire (batch) → server → deltas → session_log, ledger → prove
//! ```
//!
//! This crate must not know how an adapter is compiled, or what model a row comes from. Without the
//! feature `network`, what is left needs neither tonic nor tokio: recording and proving in one
//! process, and the files of both parties.

// Without the network, some functions of the logs have no caller.
#![cfg_attr(not(feature = "network"), allow(dead_code))]

pub mod adapter;
pub mod batch;
pub mod bounded_messages;
#[cfg(feature = "network")]
pub mod client;
pub mod close_in_child;
pub mod deltas;
pub mod error;
pub mod frame_log;
pub mod ledger;
pub mod prove;
pub mod record;
pub mod served;
#[cfg(feature = "network")]
pub mod server;
pub mod session_log;
#[cfg(feature = "network")]
pub mod stored_sessions;
pub mod wire;

pub use error::Error;
