//! Reads, writes and verifies the files around a proof: artifact folders, traces, activations and
//! secrets.
//!
//! A verifier needs only this crate and `zklora-proof`. The crate must not depend on ONNX, the
//! network or the compiler, and it prints nothing.

pub mod activation_commitment;
pub mod activations;
pub mod error;
pub mod folder;
pub mod lock_file;
pub mod manifest_cache;
pub mod module_quantizer;
pub mod module_rows;
pub mod npy;
pub mod own_session;
pub mod powers_of_two;
pub mod row_quantizer;
pub mod secret_files;
pub mod session_rows;
pub mod srs_file;
pub mod synthetic;
mod trace_format;
pub mod trace_reader;
pub mod trace_writer;
pub mod verify;
pub mod weights_file;

pub use error::Error;
