//! The EZKL backend through the `zklora` binary, with the real package.
//!
//! The tests create a Python environment with the pinned package in the target folder, once, from
//! pip's configured package index. Without Python or an index, they say so on stderr and pass; if
//! `CI` is set, they fail.

mod attacks;
mod failures;
mod interoperability;
mod onnx_file;
mod python;
mod sessions;
