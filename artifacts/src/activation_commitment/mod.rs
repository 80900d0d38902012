//! Hiding commitments to activations: one Merkle root over the values of a JSON file, and the nonce
//! that opens it.
//!
//! The bytes are those of `commit_activations` of the original ZKLoRA, so each program can check
//! the commitments of the other. What a commitment and a row proof show and do not show:
//! `docs/security.md`, "Commitments to activations".

mod commitment;
mod row_proof;
pub mod tree;
mod values;

pub use commitment::{Commitment, hex32};
pub use row_proof::RowProof;
pub use values::{MAX_NESTING, MAX_VALUES, MAX_VALUES_FILE, Values};
