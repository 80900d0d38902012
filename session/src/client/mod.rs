//! The user's side of a session: rows to a contributor, deltas back, a log of both, and a verified
//! proof.
//!
//! ```text
//! connection (TLS, token) → remote (the adapter that is served, checked against the pin)
//! open → request_deltas → in_flight → exchange (log, send, check, index; retry)
//!      → finish (proof, verdict)
//! ```
//!
//! Each session has a folder. Its log holds every row and delta. Memory holds a few bytes a row and
//! the latest deltas.
//!
//! The client trusts nothing that it receives. It checks the manifest against the pin, answers
//! against the bounds of the manifest, and the proof against its own log.

mod answered_rows;
mod connection;
mod delta_cache;
mod evaluation;
mod exchange;
mod finish;
mod in_flight;
mod log_index;
mod log_writer;
mod open;
mod remote;
mod request_deltas;
mod retry;
mod stream;
mod user_session;

pub use connection::{ClientTls, ContributorOptions, Network};
pub use evaluation::{Evaluator, Offered, Step};
pub use finish::{Finished, Progress};
pub use remote::Remote;
pub use request_deltas::{DeltaRequest, DeltaStep};
pub use stream::Waiter;
pub use user_session::{CallFigures, MAX_CALLS, Statistics, UserSession};
