//! The proof system of zklora: commits to an adapter, proves a session, verifies a proof.
//!
//! This crate works on values in memory. It knows no files, no network, no ONNX, and no floats but
//! the public scales in the manifest. `docs/protocol.md` is the specification. The modules, in the
//! order in which the data meets them, with the headings of that page:
//!
//! | module | concept | heading |
//! |---|---|---|
//! | [`field`] | the scalar field, and sums of small integers times field elements | Field and commitments |
//! | [`msm`] | multi-exponentiation (`windows`, with points of `affine`) | Field and commitments |
//! | [`column_msm`] | the same for many columns over the same bases | Field and commitments |
//! | [`srs`] | the structured reference string and its ceremony | Structured reference string |
//! | [`layout`] | the columns of a session and the rows of a column | Rows of a column |
//! | [`manifest`] | the published description of an adapter; the adapter id | Manifest and adapter id |
//! | [`pairs`] | the pairs (A, B) of an adapter and the groups of their public vectors | Pairs and groups |
//! | [`settings`] | the settings of the circuit, from shapes and k | Circuit |
//! | [`checked_manifest`] | a parsed manifest that obeys every rule | Manifest and adapter id |
//! | [`weights`] | the private integers and their certified bound | Quantisation |
//! | [`masks`] | seeds, mask keys and masks | Masks |
//! | [`commit`] | commitments to weights under masks; the audit | Commitments, Audit |
//! | [`row_source`] | one reading of a session's rows, in pieces | Reading a trace |
//! | [`rows`] | rows in memory; shapes and ranges of rows | Statement |
//! | [`trace`] | the checked and digested rows of a session | Statement |
//! | [`statement`] | the values that both parties know before the first message | Statement |
//! | [`framed`] | a hash of labelled messages and challenges | Transcript |
//! | [`transcript`] | the outer Fiat-Shamir transcript, one method for each step | Transcript |
//! | [`randomness`] | the randomness of one proof attempt | Randomness of a proof |
//! | [`projection`] | random combinations of the rows (inner loop: `row_sums`, `simd`, `stripe`) | Steps |
//! | [`fold`] | the sumcheck that folds the groups | Steps |
//! | [`span`] | the proof that re-randomisation stays on the mask rows | Mask span |
//! | [`relations`] | the relations as weights on columns | Relations |
//! | [`gate`], [`keys`], [`argument`] | the halo2 circuit, its keys, its proof (`scheme`: the prover's commitments) | Circuit |
//! | [`proof`] | the proof as bytes | |
//! | [`prover`], [`verifier`] | the two parties | Steps |
//! | [`cost`] | estimates of what all this costs | |

mod affine;
pub mod argument;
pub mod checked_manifest;
pub mod column_msm;
pub mod commit;
pub mod cost;
pub mod error;
pub mod field;
pub mod fold;
pub mod framed;
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
mod scheme;
pub mod settings;
mod simd;
pub mod span;
pub mod srs;
pub mod statement;
mod stripe;
mod subgroup;
pub mod trace;
pub mod transcript;
pub mod verifier;
pub mod weights;
mod windows;

pub use error::Error;

/// Version of the protocol. The transcript absorbs it first, and settings contain it.
pub const PROTOCOL_VERSION: u32 = 1;

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod testing;
