//! The messages and services of `proto/contributor.proto`, as tonic generates them.
#![allow(missing_docs, clippy::doc_markdown)]

include!(concat!(env!("OUT_DIR"), "/zklora.v1.rs"));

pub use crate::bounded_messages::{Batch, Call, InferResponse, Rows};

impl std::fmt::Debug for SessionRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionRef({} bytes of id, key not shown)", self.id.len())
    }
}

/// The compiled descriptors, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/contributor.bin"));
/// Version of the wire format.
pub const VERSION: u32 = 1;
