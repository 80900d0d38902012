//! The integer model: a language model with an adapter as an exact function on integers.
//!
//! ```text
//! model.onnx ─ lower → graph ─ rounding → graph with roundings
//!     ─ calibration, calibrate → ranges ─ scales (by rules) → IntegerModel, integer-model.json
//! IntegerModel + adapter ─ program → fractional bits, bounds, tables
//! units ─ evaluate (operators, products) → hidden rows ─ logits ─ score → log-probabilities
//! ```
//!
//! | module | concept |
//! |---|---|
//! | [`graph`], [`weight`] | operators and public weights, without scales |
//! | [`lower`] | reading them from an ONNX file |
//! | [`rounding`], [`rules`], [`scales`], [`scaled_graph`] | where and to how many bits integers are rounded |
//! | [`calibration`], [`calibrate`] | the texts that ranges are measured on, and the measurement |
//! | [`model`] | the model and its file |
//! | [`adapter`] | an adapter's integers |
//! | [`program`] | operators with numbers, and the bounds that exclude overflow |
//! | [`operators`], [`products`], [`whole`], [`fixed`], [`tables`] | the exact arithmetic; tables |
//! | [`evaluate`], [`matrix`] | running a program on units |
//! | [`mod@unit`], [`score`] | what is scored, and scores |
//!
//! docs/integer-model.md is the specification: two implementations of it give the same bits. This
//! crate must not know commitments, proofs or the network.

pub mod adapter;
pub mod calibrate;
pub mod calibration;
pub mod error;
pub mod evaluate;
pub mod fixed;
pub mod graph;
pub mod lower;
pub mod matrix;
pub mod model;
pub mod operators;
pub mod products;
pub mod program;
pub mod rounding;
pub mod rules;
pub mod scaled_graph;
pub mod scales;
pub mod score;
pub mod tables;
pub mod unit;
pub mod weight;
pub mod whole;

pub use error::Error;
