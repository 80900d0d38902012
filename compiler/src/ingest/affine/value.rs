//! The abstract value of a tensor: a constant, an input that is not divided yet, or an affine
//! expression of the inputs.
//!
//! Knows what a value can be, not how operators change it.

use std::sync::Arc;

use tract_onnx::tract_core::internal::{TDim, Tensor};

use super::{expression::Affine, undivided_input::UndividedInput};

/// The value of one tensor of the graph.
#[derive(Clone, Debug)]
pub(in crate::ingest) enum Value {
    /// A tensor that does not depend on the inputs.
    Constant(Arc<Tensor>),
    /// One number everywhere, in a shape that depends on symbolic sizes.
    Filled(f64, Vec<TDim>),
    /// One of the inputs, reshaped or scaled at most.
    Input(UndividedInput),
    /// An affine expression of the inputs.
    Affine(Affine),
}
