//! Results of a private adapter on a buyer's units, signed before they are paid for and checked
//! after.
//!
//! ```text
//! identity ─ offer (signed)
//! lines → units, groups → request ─ price → spending (the charge, on disk)
//! request + scores ─ values → answer (signed)
//! answer ─ draw → sample → proof
//! answer ─ delivery (encrypted, signed) → settlement, evidence
//! ```
//!
//! | module | concept |
//! |---|---|
//! | [`digest`], [`canonical`], [`merkle`] | digests, JSON with one encoding, roots of units |
//! | [`signing_key`], [`envelope`] | Ed25519 keys, signed statements |
//! | [`offer`], [`request`], [`answer`], [`delivery`] | the four messages |
//! | [`unit_bytes`], [`unit_lines`] | units as bytes, and as a buyer writes them |
//! | [`metric`], [`unit_scores`], [`values`] | what is asked, scores, and what they add up to |
//! | [`identity`], [`spending`] | the contributor's folder, and its budget in bits |
//! | [`answering`], [`checkpoint`] | charging, scoring and signing, over crashes |
//! | [`sample`], [`sample_values`], [`proving`] | the draw of a sample, its values, its proof |
//! | [`archive`], [`evidence`] | files in one file; what convinces a third party |
//!
//! docs/evaluation.md is the specification. This crate must not know how scores are computed, or
//! how messages travel.

pub mod answer;
pub mod answering;
pub mod archive;
pub mod canonical;
pub mod checkpoint;
pub mod delivery;
pub mod digest;
pub mod envelope;
pub mod error;
pub mod evidence;
pub mod identity;
pub mod merkle;
pub mod metric;
pub mod offer;
pub mod proving;
pub mod request;
pub mod sample;
pub mod sample_values;
pub mod signing_key;
pub mod spending;
pub mod unit_bytes;
pub mod unit_lines;
pub mod unit_scores;
pub mod values;

pub use error::Error;
