//! The proof itself: what a contributor commits to, how a session is proven, how a proof is
//! verified.
//!
//! This crate works on values in memory. It knows no files, no network, no ONNX and no floats but
//! the public scales it carries in the manifest. `docs/protocol.md` is the specification; each
//! module names the section that it implements. The modules, in the order in which a reader (or the
//! data) meets them:
//!
//! | module | concept | protocol |
//! |---|---|---|
//! | [`field`] | the scalar field, and sums of small integers times field elements | 2 |
//! | [`srs`] | the structured reference string and whose ceremony it is | 2, 9 |
//! | [`msm`] | multi-exponentiation | 2 |
//! | [`manifest`] | what is published about an adapter; its canonical bytes; the adapter id | 4 |
//! | [`pairs`] | the pairs (A, B) of an adapter and the groups of their public vectors | 5 |
//! | [`layout`], [`settings`] | which columns a session has; the rows of a column | 4, 5.1 |
//! | [`weights`] | the private integers and their certified bound | 3 |
//! | [`masks`] | seeds, mask keys and masks | 4 |
//! | [`commit`] | weights and masks to commitments; the audit | 4 |
//! | [`source`] | where the rows of a session are, and one reading of them | 5.1 |
//! | [`trace`] | the rows of a session, range-checked and digested | 5.1 |
//! | [`transcript`] | the outer Fiat-Shamir transcript, one method a step | 5 |
//! | [`randomness`] | the randomness of one proof attempt | 5.9 |
//! | [`projection`] | the only pass over the trace | 5.2 |
//! | [`fold`] | the sumcheck that folds the groups | 5.5 |
//! | [`span`] | the proof that re-randomisation stays on the mask rows | 5.6 |
//! | [`relations`] | the relations as weight columns | 5.7 |
//! | [`gate`], [`keys`], [`argument`] | the halo2 circuit, its keys, its proof | 5.8 |
//! | [`proof`] | the proof as bytes | 5 |
//! | [`cost`] | what it will cost, before doing it | |
//! | [`prover`], [`verifier`] | the two parties | 5.9 |

pub mod argument;
pub mod checked_manifest;
pub mod commit;
pub mod cost;
pub mod error;
pub mod field;
pub mod fold;
pub mod gate;
pub mod keys;
pub mod layout;
pub mod manifest;
pub mod masks;
pub mod msm;
pub mod pairs;
pub mod projection;
pub mod proof;
pub mod prover;
pub mod randomness;
pub mod relations;
pub mod row_source;
mod row_sums;
pub mod rows;
pub mod settings;
mod simd;
pub mod span;
pub mod srs;
pub mod statement;
mod stripe;
pub mod trace;
pub mod transcript;
pub mod verifier;
pub mod weights;

pub use error::Error;

/// Version of the protocol: absorbed first into every transcript, and part of every file's header.
pub const PROTOCOL_VERSION: u32 = 1;

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod testing;
