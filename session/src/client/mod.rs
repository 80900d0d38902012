//! The base-model user's side of a session: rows to a contributor, deltas back, an own record of
//! both, and a verified proof.
//!
//! ```text
//! connection (TLS, token) → remote: the described and pinned adapter → session: log, send, check, remember → finish: proof, verdict
//! ```
//!
//! Each session has a folder. Its log holds every row and delta; memory holds a few bytes a row,
//! and what came last.
//!
//! Nothing that arrives is trusted: the manifest is held to the pin, answers to the manifest's
//! bounds, the proof to the own record.

mod connection;
mod exchange;
mod finish;
mod known;
mod log_writer;
mod patience;
mod recent;
mod record;
mod remote;
mod session;

pub use connection::{ClientTls, ContributorOptions, Network};
pub use finish::{Finished, Progress};
pub use remote::Remote;
pub use session::{Statistics, UserSession};
