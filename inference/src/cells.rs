//! Hidden field elements, and linear expressions in them (docs/inference-proof.md, "Symbols").

use ff::Field;
use zklora_proof::field::F;

/// A hidden field element that a message of the proof commits to: its number, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell(pub usize);

/// `Σ coefficient·cell + constant`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Expression {
    /// Coefficients; a cell may occur several times.
    pub terms: Vec<(Cell, F)>,
    /// The constant.
    pub constant: F,
}

impl Expression {
    /// A public value.
    pub fn constant(value: F) -> Expression {
        Expression { terms: Vec::new(), constant: value }
    }

    /// A cell.
    pub fn of(cell: Cell) -> Expression {
        Expression { terms: vec![(cell, F::ONE)], constant: F::ZERO }
    }

    /// Multiplies by a public factor.
    #[must_use]
    pub fn times(mut self, factor: F) -> Expression {
        self.terms.iter_mut().for_each(|(_, coefficient)| *coefficient *= factor);
        self.constant *= factor;
        self
    }

    /// Adds `factor·other`.
    pub fn add(&mut self, other: &Expression, factor: F) {
        self.terms.extend(other.terms.iter().map(|(cell, c)| (*cell, *c * factor)));
        self.constant += other.constant * factor;
    }

    /// `self + factor·other`
    #[must_use]
    pub fn plus(mut self, other: &Expression, factor: F) -> Expression {
        self.add(other, factor);
        self
    }

    /// The value, for who knows the cells.
    pub fn value(&self, cells: &[F]) -> F {
        let at = |cell: &Cell| cells.get(cell.0).copied().unwrap_or_default();
        self.constant + self.terms.iter().map(|(cell, c)| at(cell) * c).sum::<F>()
    }
}
