//! Stage 1: the bytes of a file become a `ModelProto` whose sizes are bounded, whose data are
//! complete, and in which everything is written in a form that tract reads as ONNX defines it.
//!
//! Knows the file format, not the meaning of the graph.

pub(super) mod bfloat16;
pub(super) mod decode;
pub(super) mod einsum_ellipsis;
pub(super) mod einsum_pairs;
pub(super) mod empty_reductions;
pub(super) mod external_data;
mod function_defaults;
pub(super) mod functions;
pub(super) mod node_names;
mod operator_versions;
pub(super) mod screen;
mod screen_tensor;
