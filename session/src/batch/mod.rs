//! Batches: checking one from the network against the manifest, encoding rows and deltas, digests.
//!
//! Bytes on the wire are little-endian. The checks are all that a contributor needs before it
//! computes: shapes, ranges, and that no length exceeds the bytes that were sent.

mod check;
mod digest;
mod encode;

pub use check::{Call, parse, parse_answer};
pub use digest::{answer_digest, digest};
pub use encode::{deltas_to_wire, to_wire};
