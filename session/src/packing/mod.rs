//! Packed rows and deltas: the same integers in fewer bytes on the wire.
//!
//! Activations have fewer bits than 32, most of them far fewer than the largest of their row.
//! Deltas of a module are a matrix of low rank, which is the product of two small ones. Digests,
//! logs and traces are over the integers: nothing beyond the two ends of a stream knows that a
//! message was packed. docs/protocol.md, "Packed messages", specifies the bytes.
//!
//! | Where | What |
//! |---|---|
//! | [`integers`] | integers in blocks, each as wide as its largest one |
//! | [`factors`] | a matrix of low rank as a product |
//! | `messages` | batches and answers |

pub mod factors;
pub mod integers;
mod messages;

pub use messages::{
    max_packed_deltas, pack_answer, pack_batch, unpack_answer, unpack_batch, unpacked_bytes,
};

/// The version of the packing that Describe states. Zero there means none.
pub const VERSION: u32 = 1;
