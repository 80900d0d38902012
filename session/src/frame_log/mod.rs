//! An append-only log of records with checksums. A crash at any moment loses at most the last
//! record, which is then torn.
//!
//! ```text
//! magic (8 bytes)  version: u8
//! per record:  length: u32 LE   check of the length: 4 bytes   checksum: 16 bytes   payload
//! ```
//!
//! The checksum is the first half of BLAKE3 over the checksum before it (zeros at the beginning),
//! the length and the payload. A record that is changed, left out or moved breaks the chain. The
//! length has its own check, because a wrong length would look like a torn end, and all that
//! follows would be cut.
//!
//! This module must not know what the records are.

mod format;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use format::MAX_RECORD;
pub(crate) use format::{FRAME, HEADER};
pub use reader::{first, lacks_first_record, read};
pub use writer::FrameLog;
