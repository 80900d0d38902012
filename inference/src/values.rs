//! Virtual values: numbers that a proof computes and nobody commits to (docs/inference-proof.md,
//! "Operators").

use std::collections::BTreeMap;

use crate::integers::Grid;

/// A virtual value: of an operator, but for the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Its result.
    Result(usize),
    /// The result of a linear operator before it is rounded.
    Accumulator(usize),
    /// y·R of a norm.
    Scaled(usize),
    /// R²·v of a norm.
    Lower(usize),
    /// (R + 2)²·v of a norm.
    Upper(usize),
    /// Scores of attention: a feature for each head and key.
    Scores(usize),
    /// Σ P over live keys, a feature for each head.
    Weights(usize),
    /// Σ (P + Δ) over live keys.
    WeightsBefore(usize),
    /// The sum of squares of a proof of sums.
    Squares,
}

/// Virtual values, for who knows them.
pub struct Values {
    grids: BTreeMap<Value, Grid>,
    none: Grid,
}

impl Default for Values {
    fn default() -> Values {
        Values { grids: BTreeMap::new(), none: Grid::small(0, Vec::new()) }
    }
}

impl Values {
    /// Adds a value.
    pub fn insert(&mut self, value: Value, grid: Grid) {
        self.grids.insert(value, grid);
    }

    /// A value; without rows if it is not known.
    pub fn grid(&self, value: Value) -> &Grid {
        self.grids.get(&value).unwrap_or(&self.none)
    }
}
