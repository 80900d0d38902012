//! Reads, writes and verifies the files around a proof: artifact folders, traces, activations and
//! secrets.
//!
//! ```text
//! activations → module_quantizer (row_quantizer) → session_rows → trace_writer → trace file
//! trace file → trace_reader → own_session (id and activations are the user's) → verify → verdict
//! public/ and private/ → folder (manifest_cache, weights_file, secret_files) → Artifacts
//! ```
//!
//! | Where | What |
//! |---|---|
//! | [`activation_source`]: [`activations`], [`activation_file`] (`npy`, `json_floats`, `float_type`), [`synthetic`] | activations as floats, in pieces: from memory, from files, or made for a dry run |
//! | [`module_quantizer`], [`row_quantizer`], [`powers_of_two`] | activations to integer rows, and integer deltas to real numbers |
//! | [`module_rows`], [`session_rows`] | rows in memory: of a module, of a session |
//! | [`trace_writer`], [`trace_reader`], `trace_format`, `tensor_header` | trace files, written and read in pieces |
//! | [`own_session`], [`verify`] | the user's checks of a trace, then of its proof |
//! | [`folder`], [`weights_file`], [`secret_files`], [`lock_file`] | artifact folders |
//! | [`manifest_cache`], [`srs_file`] | manifests and SRS that load fast or from a file |
//! | [`activation_commitment`] | hiding commitments to activations, for `trace commit` |
//!
//! A verifier needs only this crate, `zklora-files` and `zklora-proof`. The crate must not depend
//! on ONNX, the network or the compiler, and it prints nothing.

pub mod activation_commitment;
pub mod activation_file;
pub mod activation_source;
pub mod activations;
pub mod error;
mod float_type;
pub mod folder;
mod json_floats;
pub mod lock_file;
pub mod manifest_cache;
pub mod module_quantizer;
pub mod module_rows;
mod npy;
pub mod own_session;
pub mod powers_of_two;
pub mod row_quantizer;
pub mod secret_files;
pub mod session_rows;
pub mod srs_file;
pub mod synthetic;
mod tensor_header;
mod trace_format;
pub mod trace_reader;
pub mod trace_writer;
pub mod verify;
pub mod weights_file;

pub use error::Error;
