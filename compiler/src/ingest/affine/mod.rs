//! Stage 3: abstract interpretation of the typed graph, whose result is an affine expression of the
//! graph's inputs.
//!
//! Matrices are not multiplied here, because a product would lose the low-rank factors.

pub(super) mod axes;
pub(super) mod chain;
mod constant;
mod describe;
pub(super) mod expression;
mod expression_size;
pub(super) mod interpret;
pub(super) mod operators;
mod undivided_input;
mod value;
