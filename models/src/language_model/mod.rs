//! Runs a causal language model from an ONNX file, and adds deltas that an [`Injector`] computes.
//!
//! `tract` runs the model. At each module of an adapter the graph is cut: the activations go to the
//! injector, and its answer takes the place of the layer's output or input. This module must not
//! know how the deltas are computed, or that anything is proven about them.
//!
//! ```text
//! model.onnx ─ file → protobuf ─ layers, scopes, find → a layer per point
//!            ─ insert_nodes → graph with injections
//!            ─ graph, operator → plan of tract ─ logits, sequence → rows of logits
//!            ─ generate, loss
//! ```
//!
//! Damaged files are errors, never panics, and no file outside the model's folder is opened. A
//! malicious base model can still take any amount of time and memory: the user chooses it.

mod cache_branch;
mod exact_constants;
mod file;
mod find;
mod generate;
mod graph;
mod hide_ranges;
mod injector;
mod insert_nodes;
mod interface;
mod layer_graph;
mod layers;
mod loss;
mod mark_layers;
mod model;
mod operator;
mod padding;
mod pass;
mod point;
mod sampling;
mod scopes;
mod sequence;
mod tokenizer;

pub use generate::{StopReason, generate};
pub use injector::{Activations, Identity, InjectionCall, Injector};
pub use interface::Input;
pub use layer_graph::LayerGraph;
pub use loss::{Window, loss, negative_log_likelihood};
pub use model::{LanguageModel, Logits};
pub use pass::Pass;
pub use point::{FoundPoint, InjectionPoint};
pub use sampling::Sampling;
pub use sequence::Sequence;
pub use tokenizer::Tokenizer;
