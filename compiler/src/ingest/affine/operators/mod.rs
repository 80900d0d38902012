//! What each ONNX operator does to affine expressions: one file per family of operators.
//!
//! An operator takes the abstract values of its inputs and returns that of its output, or the
//! reason why it cannot. It knows neither the graph around it nor its own name there. Adding an
//! operator is a file here and a line in `dispatch`.

mod arity;
mod axes;
mod choose;
mod concat;
mod conv;
mod dispatch;
mod einsum;
mod elementwise;
mod gather;
mod pad;
mod reduce;
mod slice;
mod strided;
mod supported;

pub(in crate::ingest) use dispatch::apply;
pub use dispatch::supported_operators;
pub use supported::Supported;
