//! The messages and services of `proto`, as tonic generates them.
#![allow(missing_docs, clippy::doc_markdown)]

include!(concat!(env!("OUT_DIR"), "/zklora.v1.rs"));

pub use crate::bounded_messages::{Batch, Call, InferResponse, Rows};

impl std::fmt::Debug for SessionRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionRef({} bytes of id, key not shown)", self.id.len())
    }
}

/// The compiled descriptors, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
/// Version of the wire format that serves rows.
pub const VERSION: u32 = 1;

/// Version 2 of the wire format: evaluations.
pub mod evaluation {
    include!(concat!(env!("OUT_DIR"), "/zklora.v2.rs"));

    /// Version of the wire format that evaluates.
    pub const VERSION: u32 = 2;
    /// Longest part of units or of an answer, in bytes.
    pub const PART: usize = 256 << 10;
}
