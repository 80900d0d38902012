//! From an ONNX file to certified integers: the compiler of zklora.
//!
//! The data flows one way. [`mod@ingest`] reads an ONNX file through tract and proves to itself
//! that the graph is linear in its inputs, which gives a [`LinearMap`]; [`mod@quantize`] turns that
//! map into integer matrices with a certified bound on every product. Neither knows anything about
//! proofs, columns or files on the proof's side.

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
