//! Proves in zero knowledge what a language model with a private adapter scores.
//!
//! ```text
//! program, sequences, bounds ─ plan → tensors, lookups
//! evaluation ─ witness → hidden integers ─ columns → commitments
//! lookups (tree) → claims ─ reduce (operators, last to first) → openings ─ fold → relations
//! relations ─ finish → one halo2 proof
//! ```
//!
//! docs/inference-proof.md is the specification; the modules, with its headings:
//!
//! | module | concept | heading |
//! |---|---|---|
//! | [`axis`], [`cells`], [`claims`], [`values`] | axes, hidden cells, claims on values | Symbols |
//! | [`statement`] | what is proven | What is claimed |
//! | [`tensors`], [`channel`] | committed matrices; messages and challenges | Commitments |
//! | [`lookups`], [`tree`] | all lookups in one tree of fractions | Lookups |
//! | [`schedule`], [`plan`] | what is committed and looked up, from public shapes | Operators |
//! | [`answers`] | whether the likeliest choices are right | Operators |
//! | `witness`, [`integers`] | the hidden integers | Operators |
//! | `reduce` | claims on results become claims on what operators read | Operators |
//! | [`sumcheck`] | sumchecks with committed rounds | Sumcheck |
//! | [`openings`] | weighted sums over committed columns | Openings |
//! | [`relations`], `finish` | what must hold between cells, as one halo2 proof | Relations |
//! | `argument` | the steps of every proof, for both parties | The order of messages |
//! | [`proof`], [`prover`], [`verifier`] | the bytes, the two parties | The order of messages |
//! | [`fe`], `fractions`, `lanes`, [`vectors`], `exact`, `fixed_base`, `pool` | fast forms of simple sums, threads | |
//! | [`sums`], [`squares`] | bounds of sums of results that other proofs committed to | Sums |
//! | [`registration`] | every committed weight has 16 bits | Registration |
//!
//! The crate knows no files, no network and no floats.

pub mod answers;
mod argument;
pub mod axis;
pub mod cells;
pub mod channel;
pub mod claims;
pub mod error;
mod exact;
pub mod fe;
mod finish;
mod fixed_base;
mod fractions;
pub mod integers;
mod lanes;
pub mod lookups;
pub mod openings;
pub mod plan;
mod pool;
pub mod proof;
pub mod prover;
mod reduce;
pub mod registration;
pub mod relations;
pub mod schedule;
pub mod squares;
pub mod statement;
pub mod sumcheck;
pub mod sums;
pub mod tensors;
pub mod tree;
pub mod values;
pub mod vectors;
pub mod verifier;
mod witness;

pub use error::Error;

/// Version of the protocol. Every transcript absorbs it.
pub const PROTOCOL_VERSION: u32 = 2;

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod testing;
