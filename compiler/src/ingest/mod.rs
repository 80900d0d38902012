//! ONNX → [`LinearMap`](crate::LinearMap): reads a LoRA module exported to ONNX and finds out which
//! affine map it computes.
//!
//! A file passes through four folders, one per stage; `stages` calls them in this order.
//!
//! 1. `protobuf`: bytes → a `ModelProto` that tract reads as ONNX means it. `decode` counts the
//!    fields before it decodes; `functions` replaces calls of local functions by their nodes (with
//!    `function_defaults` and `operator_versions`); `screen` and `screen_tensor` check sizes, names
//!    and order; `node_names` makes names unique; `external_data` reads tensors in other files;
//!    `bfloat16`, `einsum_ellipsis`, `einsum_pairs` and `empty_reductions` rewrite forms that tract
//!    does not read.
//! 2. `typed_graph`: `ModelProto` → tract's typed graph. `graph` drives tract, with `builders` for
//!    operators that tract reads differently from ONNX; `dimensions` names the open dimensions of
//!    inputs; `inference` infers shapes and folds constants node by node, within the limits of
//!    `budget`, `symbolic_sizes` and `integer_ranges`; `withheld` takes out the constants that
//!    tract would round differently on different machines; `origins` maps nodes back to the names
//!    of the file.
//! 3. `affine`: typed graph → one affine expression of the inputs. `interpret` evaluates the graph
//!    over abstract values (`value`): constants (`constant`), inputs that are not divided into rows
//!    yet (`undivided_input`), and sums (`expression`) of products (`chain`). `axes` says which
//!    digits of an index are rows and which are features; `operators` holds what each operator
//!    does; `expression_size` limits memory; `describe` puts a value into words.
//! 4. `linear_terms`: affine expression → `LinearMap`. `linear_map` checks the layout of rows,
//!    `terms` turns chains into low-rank terms, biases and element scales (with `products` and
//!    `absorb`), and `warnings` says what the owner of the adapter should know about the result.
//!
//! No stage knows a later one, and none knows quantisation or proofs. To add an operator, add a
//! file to `affine/operators` and a line to its `dispatch`.

mod affine;
mod error;
mod linear_terms;
mod protobuf;
mod stages;
mod typed_graph;

pub use affine::operators::{Supported, supported_operators};
pub use error::IngestError;
pub use protobuf::{
    decode::MAX_FILE_BYTES,
    external_data::{MAX_EXTERNAL_BYTES, embedded, external_files},
};
pub use stages::{Ingested, ingest, ingest_file, ingest_in};
pub use typed_graph::origins::NodeOutcome;
