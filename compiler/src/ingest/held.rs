//! How much memory the expressions of a graph hold together.
//!
//! One small tensor may be the matrix of thousands of nodes. Knows expressions, not the graph.

use super::{
    affine::{Link, Value},
    error::Reason,
};
use std::{collections::HashSet, sync::Arc};

/// The most elements of all matrices together (2 GiB).
const MAX_HELD: usize = 1 << 28;

/// The matrices counted so far, by address: values keep them alive while a graph is walked.
pub(super) struct Held {
    seen: HashSet<usize>,
    elements: usize,
}

impl Held {
    pub fn new() -> Self {
        Self { seen: HashSet::new(), elements: 0 }
    }

    /// Counts the matrices of a value that are new.
    pub fn hold(&mut self, value: &Value) -> Result<(), Reason> {
        let Value::Affine(affine) = value else { return Ok(()) };
        for link in affine.terms.iter().flat_map(|term| &term.links) {
            let (address, elements) = match link {
                Link::Dense(matrix) => (Arc::as_ptr(matrix) as usize, matrix.data.len()),
                Link::Diagonal(factors) => (Arc::as_ptr(factors) as usize, factors.len()),
            };
            if self.seen.insert(address) {
                self.elements = self.elements.saturating_add(elements);
            }
        }
        if self.elements > MAX_HELD {
            return Err(Reason::new(format!(
                "all matrices up to here have more than {MAX_HELD} elements; multiply them together before exporting"
            )));
        }
        Ok(())
    }
}
