//! One term of an affine expression: an input, or the constant 1, times factors that are not
//! multiplied out yet.
//!
//! Knows the parts of a chain and how it is repeated for joined rows, not the operators that make
//! chains, nor the terms of a map that they become.

use std::sync::Arc;

use crate::{ingest::error::Reason, matrix::Matrix};

/// `factors · start · links[0] · links[1] · …`, applied to every row.
#[derive(Clone, Debug)]
pub(in crate::ingest) struct Chain {
    pub start: ChainStart,
    /// Constant scalar factors, kept apart so that the public scaling can be told from the private
    /// weights.
    pub factors: Vec<f64>,
    pub links: Vec<Link>,
}

/// The first factor of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingest) enum ChainStart {
    /// A row of an input.
    Input {
        input: usize,
        /// Its length.
        dim: usize,
        /// How many neighbouring values of the input's buffer belong to the same feature (of
        /// different rows); usually 1.
        positions: usize,
        /// How many rows are joined to this one; usually 1.
        joined: usize,
    },
    /// The constant 1, of length 1.
    One,
}

/// One factor of a chain, multiplied from the right.
#[derive(Clone, Debug)]
pub(in crate::ingest) enum Link {
    Dense(Arc<Matrix>),
    Diagonal(Arc<Vec<f64>>),
    /// Moves features, and omits or repeats some. As a matrix it would cost as much as a dense one.
    Select(Arc<Selection>),
}

/// Feature `k` of the result is feature `columns[k]` of `from` features, or zero.
#[derive(Clone, Debug)]
pub(in crate::ingest) struct Selection {
    pub from: usize,
    pub columns: Vec<Option<usize>>,
}

/// Adds a constant factor to the list of scalar factors. Signs cancel, so thousands of negations
/// leave no factor.
pub(in crate::ingest) fn multiply(factors: &mut Vec<f64>, factor: f64) {
    match factors.iter().position(|known| *known == -1.0) {
        _ if factor == 1.0 => {}
        Some(sign) if factor == -1.0 => {
            factors.remove(sign);
        }
        _ => factors.push(factor),
    }
}

impl Chain {
    /// A constant row.
    pub fn row(row: Matrix) -> Self {
        Self { start: ChainStart::One, factors: vec![], links: vec![Link::Dense(Arc::new(row))] }
    }

    /// The constant row, if the chain is one.
    pub fn as_row(&mut self) -> Option<&mut Arc<Matrix>> {
        match (self.start, &self.factors[..], &mut self.links[..]) {
            (ChainStart::One, [], [Link::Dense(row)]) => Some(row),
            _ => None,
        }
    }

    /// Selects features of the result. A constant row stays a row.
    pub fn select(&mut self, selection: &Arc<Selection>) -> Result<(), Reason> {
        match (self.start, &mut self.links[..]) {
            (ChainStart::One, [Link::Dense(row)]) => {
                *row = Arc::new(row.gather_columns(&selection.columns)?)
            }
            _ => self.links.push(Link::Select(selection.clone())),
        }
        Ok(())
    }

    /// The same for `copies` rows joined to one: `I_copies ⊗ link` for every link.
    pub fn repeated(self, copies: usize) -> Result<Self, Reason> {
        let mut links = Vec::with_capacity(self.links.len());
        for (index, link) in self.links.iter().enumerate() {
            links.push(match link {
                Link::Dense(row) if self.start == ChainStart::One && index == 0 => {
                    let columns: Vec<_> =
                        (0..copies).flat_map(|_| (0..row.cols).map(Some)).collect();
                    Link::Dense(Arc::new(row.gather_columns(&columns)?))
                }
                Link::Dense(matrix) => Link::Dense(Arc::new(matrix.block_diagonal(copies)?)),
                Link::Diagonal(factors) => Link::Diagonal(Arc::new(factors.repeat(copies))),
                Link::Select(selection) => Link::Select(Arc::new(selection.repeated(copies))),
            });
        }
        let start = match self.start {
            ChainStart::Input { positions, .. } if positions > 1 => {
                return Err(Reason::new(
                    "it mixes positions of an image after a convolution that has them as rows",
                ));
            }
            ChainStart::Input { input, dim, positions, joined } => ChainStart::Input {
                input,
                positions,
                joined: joined * copies,
                dim: dim
                    .checked_mul(copies)
                    .ok_or_else(|| Reason::new("all rows together are too long"))?,
            },
            ChainStart::One => ChainStart::One,
        };
        Ok(Self { start, factors: self.factors, links })
    }
}

impl Link {
    /// Identifies the link among those that are alive.
    pub fn address(&self) -> usize {
        match self {
            Self::Dense(matrix) => Arc::as_ptr(matrix) as usize,
            Self::Diagonal(factors) => Arc::as_ptr(factors) as usize,
            Self::Select(selection) => Arc::as_ptr(selection) as usize,
        }
    }
}

impl Selection {
    fn repeated(&self, copies: usize) -> Self {
        let columns = (0..copies).flat_map(|copy| {
            self.columns.iter().map(move |column| column.map(|c| copy * self.from + c))
        });
        Self { from: self.from * copies, columns: columns.collect() }
    }
}
