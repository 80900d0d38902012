//! EZKL as a second backend: runs the `ezkl` package from PyPI as a subprocess, behind the same
//! commands.
//!
//! EZKL proves one row at a time and does not check the origin of the keys. This crate ties a
//! session together: the user pins a manifest ([`manifest`]), public values come from the user's
//! own trace ([`verify`]), and digests are compared before a file is used. `docs/ezkl.md` says what
//! EZKL can and cannot show.
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

/// The version of the `ezkl` package that this build runs. Other versions have other formats and
/// other circuits.
pub const VERSION: &str = "23.0.5";
