//! The log of a session, which each party keeps while the session runs: an append-only log of
//! batches, so that no row is lost when a process dies.
//!
//! The contributor writes a batch, with a digest of its deltas, before the deltas leave. The user
//! writes a batch before it is sent, and its deltas when they arrive.

mod event;
mod file;
mod header;
mod summary;

pub use event::Event;
pub use file::{SessionLog, header, read};
pub use header::Header;
pub use summary::{Contents, Sent, contents, sent};
