//! The compiler of zklora: from an ONNX file to integers with a certified bound.
//!
//! [`mod@ingest`] reads an ONNX file through tract and checks that the graph is affine in its
//! inputs, which gives a [`LinearMap`]. [`mod@quantize`] turns the map into integer matrices with a
//! certified bound on every delta. [`mod@compile`] does both for all modules of an adapter. This
//! crate knows the manifest of a proof, but neither commitments nor artifact files.

pub mod calibrate;
pub mod compile;
pub mod explain;
pub mod ingest;
pub mod layout;
pub mod linear_map;
pub mod matrix;
pub mod quantize;
pub mod sources;
pub mod supported;

pub use compile::CompileError;
pub use explain::{Explanation, explain};
pub use ingest::{IngestError, Ingested, ingest, ingest_file, ingest_in};
pub use layout::Layout;
pub use linear_map::{InputSpec, LinearMap, Term};
pub use matrix::Matrix;
pub use quantize::{Quantized, QuantizedTerm, quantize};
pub use sources::SourceError;
