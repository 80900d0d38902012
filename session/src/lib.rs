//! The two-party protocol: rows to a contributor, deltas back, each row counted before its delta
//! leaves, and a proof at the end.
//!
//! ```text
//! client ─ wire → server → batch (check) → row_totals (count) → deltas (compute)
//!                        → session_log, ledger → prove
//! ```
//!
//! | Where | What |
//! |---|---|
//! | [`wire`], [`bounded_messages`] | the messages, with bounded lists |
//! | [`batch`] | checking, encoding and digesting a batch |
//! | [`packing`] | batches and answers in fewer bytes |
//! | [`deltas`], [`adapter`] | computing deltas |
//! | [`row_totals`], [`ledger`] | counting rows, over all sessions |
//! | [`frame_log`], [`session_log`] | the append-only log of one session |
//! | `server`, `client` | the two parties, with the feature `network` |
//! | `stored_sessions` | sessions on the disk, for their operator |
//! | [`record`], [`prove`] | a session in one process, and the proof of one |
//! | `proof_attempts` | attempts at a proof, on disk |
//! | `session_files` | names of the files of a session |
//! | [`close_in_child`] | file descriptors that a forked child has to close |
//!
//! This crate must not know how an adapter is compiled, or what model a row comes from. Without the
//! feature `network`, it needs neither tonic nor tokio, and holds recording and proving in one
//! process and the files of both parties.

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
pub mod packing;
#[cfg(feature = "network")]
pub(crate) mod proof_attempts;
pub mod prove;
pub mod record;
pub mod row_totals;
#[cfg(feature = "network")]
pub mod server;
#[cfg(feature = "network")]
pub(crate) mod session_files;
pub mod session_log;
#[cfg(feature = "network")]
pub mod stored_sessions;
pub mod wire;

pub use error::Error;
