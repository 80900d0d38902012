//! The EZKL backend through the `zklora` binary, with the real package.
//!
//! The tests make a Python environment with the pinned package in the target folder, once, with
//! whatever package index pip is configured for. Without Python or an index they say so on stderr
//! and pass, unless `CI` is set: then they fail.

mod attacks;
mod failures;
mod interoperability;
mod onnx_file;
mod python;
mod sessions;
