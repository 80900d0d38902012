//! How much memory and work the expressions of a graph are.
//!
//! One small tensor may be the matrix of thousands of nodes, and one node may copy thousands of
//! terms. What is made is counted and never discounted: that bounds the time as well. Knows
//! expressions, not the graph.

use std::collections::HashSet;

use super::{
    chain::{Chain, ChainStart, Link},
    value::Value,
};
use crate::ingest::error::Reason;

/// The most elements of all matrices together (2 GiB).
const MAX_MATRICES: usize = 1 << 28;
/// The most elements of all rows, diagonals and selections together (256 MiB): adapters have a few
/// for each feature.
pub(in crate::ingest) const MAX_VECTORS: usize = 1 << 25;
/// The most parts that all terms together consist of.
const MAX_PARTS: usize = 1 << 24;

/// A place in a selection is twice as large as a number.
pub(in crate::ingest) const SELECTED: usize = 2;
/// A term without factors and links takes as much memory as so many of them.
const TERM: usize = 8;

/// What has been made so far.
#[derive(Default)]
pub(in crate::ingest) struct ExpressionSize {
    matrices: usize,
    vectors: usize,
    parts: usize,
}

impl ExpressionSize {
    /// Counts what a node made: all terms of its outputs, and the links that its inputs, which are
    /// still alive, do not have.
    pub fn add(&mut self, outputs: &[Value], inputs: &[Value]) -> Result<(), Reason> {
        let mut seen: HashSet<usize> =
            terms(inputs).flat_map(|term| &term.links).map(Link::address).collect();
        for term in terms(outputs) {
            self.parts = self.parts.saturating_add(TERM + term.factors.len() + term.links.len());
            for link in term.links.iter().filter(|link| seen.insert(link.address())) {
                let (kind, elements) = match link {
                    Link::Dense(row) if row.rows == 1 && term.source == ChainStart::One => {
                        (&mut self.vectors, row.cols)
                    }
                    Link::Dense(matrix) => (&mut self.matrices, matrix.data.len()),
                    Link::Diagonal(factors) => (&mut self.vectors, factors.len()),
                    Link::Select(selection) => {
                        (&mut self.vectors, SELECTED * selection.columns.len())
                    }
                };
                *kind = kind.saturating_add(elements);
            }
        }
        let refuse = |what: String| Err(Reason::too_much(what));
        if self.matrices > MAX_MATRICES {
            return refuse(format!(
                "all matrices up to here have more than {MAX_MATRICES} elements; multiply them together before exporting"
            ));
        }
        if self.vectors > MAX_VECTORS {
            return refuse(format!(
                "all biases, factors per feature and selections up to here have more than {MAX_VECTORS} elements; join them \
                 before exporting"
            ));
        }
        if self.parts > MAX_PARTS {
            return refuse(format!(
                "all terms up to here have more than {MAX_PARTS} parts; add and multiply constants before exporting"
            ));
        }
        Ok(())
    }
}

fn terms(values: &[Value]) -> impl Iterator<Item = &Chain> {
    values
        .iter()
        .flat_map(|value| if let Value::Affine(affine) = value { &affine.terms[..] } else { &[] })
}
