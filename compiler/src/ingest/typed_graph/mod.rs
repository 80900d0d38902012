//! Stage 2: tract infers types and shapes and folds constants, within limits.
//!
//! The only stage that runs tract's inference; knows nothing of linear maps.

pub(super) mod budget;
pub(super) mod builders;
pub(super) mod dimensions;
pub(super) mod graph;
mod inference;
pub(super) mod integer_ranges;
pub(super) mod origins;
pub(super) mod symbolic_sizes;
pub(super) mod withheld;
