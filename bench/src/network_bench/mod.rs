//! Measures what two-party inference costs on this machine, over loopback, as ratios within one
//! run.
//!
//! * a forward pass with remote deltas, against the same graph without (merging an adapter would
//!   change the numbers of that graph, but no shapes);
//! * a call of a contributor, against a gRPC echo of the same numbers of bytes;
//! * the integer deltas of a call, against the same products in `f32` by `ndarray`.

mod echo;
mod measure;

pub use measure::{Measured, Options, measure};

pub use crate::compared::Compared;
