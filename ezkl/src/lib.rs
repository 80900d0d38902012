//! EZKL as a second backend: the `ezkl` package from PyPI, driven as a subprocess, behind the same
//! commands.
//!
//! EZKL proves one row at a time and checks nothing about who made the keys. What ties a session
//! together is here: a manifest that the user pins ([`manifest`]), public values that are taken
//! from the user's own trace ([`verify`]), and digests that are compared before a file is used.
//! What EZKL can and cannot show is in `docs/ezkl.md`.
//!
//! ```text
//! ONNX ─ compile::compile → manifest, settings, vk (public/), compiled circuit, pk (private/)
//! activations ─ record::record → trace ─ prove::prove → one proof a row ─ verify::verify → verdict
//! ```

pub mod child;
pub mod circuit;
pub mod circuit_options;
pub mod compile;
pub mod error;
mod felt;
pub mod folder;
pub mod interface;
pub mod limits;
pub mod manifest;
mod proof_file;
pub mod prove;
pub mod record;
mod row_verifier;
pub mod rows;
pub mod settings;
mod srs_file;
pub mod verify;
pub mod witness;

pub use error::{Check, Error, EzklError};
pub use limits::{Cancel, Python};

/// The version of the `ezkl` package that this build drives. Another one has other formats and
/// other circuits.
pub const VERSION: &str = "23.0.5";
