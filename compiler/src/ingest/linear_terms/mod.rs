//! Stage 4: an affine expression becomes the terms of a [`LinearMap`](crate::LinearMap).
//!
//! Knows expressions and layouts, not the graph that they come from.

mod absorb;
pub(super) mod linear_map;
mod products;
mod terms;
pub(super) mod warnings;
