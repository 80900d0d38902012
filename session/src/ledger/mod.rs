//! The ledger of an adapter folder: what it has served. Rows are counted before their deltas leave,
//! and only counted rows are proven (docs/protocol.md, "Before a proof is published" and "The
//! network").
//!
//! One JSON object a line, appended and synced. A torn last line (a crash while writing) is cut.
//! Any other line that is not of this format is an error.
//!
//! A session over the network has two lines. The first is written when it is opened, and names the
//! log that holds its rows. The second is written when it has ended, with the same log and the
//! number of rows. **Sessions are told apart by their log and trace, never by the session id
//! alone**: the user chooses the id. The ledger refuses an id that it has ([`Ledger::append`]), so
//! no second session can hide behind the lines of a first one.

mod entry;
mod index;
mod reader;
mod writer;

pub use entry::{Entry, LOCAL, Rows};
pub use index::{LedgerIndex, LedgerSession, digest_of, was_served};
pub use reader::{index, is_locked, read};
pub use writer::Ledger;
