//! Limits the memory and work of all expressions of a graph.
//!
//! One small tensor may be the matrix of thousands of nodes, and one node may copy thousands of
//! terms. Everything that is created is counted, and nothing is subtracted when it is dropped, so
//! time is limited as well. Knows expressions, not the graph.

use std::collections::HashSet;

use super::{
    chain::{Chain, ChainStart, Link},
    value::Value,
};
use crate::ingest::error::Reason;

/// Most elements of all matrices together (2 GiB).
const MAX_MATRICES: usize = 1 << 28;
/// Most elements of all rows, diagonals and selections together (256 MiB); adapters have a few for
/// each feature.
pub(in crate::ingest) const MAX_VECTORS: usize = 1 << 25;
/// Most parts of all terms together.
const MAX_PARTS: usize = 1 << 24;

/// An entry of a selection takes twice the memory of a number.
pub(in crate::ingest) const SELECTED: usize = 2;
/// A term without factors and links takes the memory of this many parts.
const TERM: usize = 8;

/// The totals of everything that has been created.
#[derive(Default)]
pub(in crate::ingest) struct ExpressionSize {
    matrices: usize,
    vectors: usize,
    parts: usize,
}

impl ExpressionSize {
    /// Counts the outputs of a node: all of their terms, and their links except those that the
    /// inputs share.
    pub fn add(&mut self, outputs: &[Value], inputs: &[Value]) -> Result<(), Reason> {
        let mut seen: HashSet<usize> =
            terms(inputs).flat_map(|term| &term.links).map(Link::address).collect();
        for term in terms(outputs) {
            self.parts = self.parts.saturating_add(TERM + term.factors.len() + term.links.len());
            for link in term.links.iter().filter(|link| seen.insert(link.address())) {
                let (kind, elements) = match link {
                    Link::Dense(row) if row.rows == 1 && term.start == ChainStart::One => {
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
