//! Sums, products and quotients of views.

use super::{
    expression::{Binary, Expression},
    meaning::{Entry, Interpreter, Outcome},
    view::{Cell, MAX_TERMS, Source, Term, View},
};
use crate::graph::{Operator, ValueId};

impl Interpreter<'_> {
    /// Two views of the same shape.
    pub fn views(&mut self, operator: Binary, left: &View, right: &View) -> Outcome<View> {
        match operator {
            Binary::Add => self.sum(left, right, 1.0),
            Binary::Subtract => self.sum(left, right, -1.0),
            Binary::Multiply => {
                if let Some(product) = distributed(left, right) {
                    return Ok(product);
                }
                if let Some(norm) = self.norm(left, right, Expression::as_inverse_root)? {
                    return Ok(norm);
                }
                if let Some(norm) = self.norm(right, left, Expression::as_inverse_root)? {
                    return Ok(norm);
                }
                self.joined(operator, left, right).map_or_else(|| self.product(left, right), Ok)
            }
            Binary::Divide => {
                let inverse: Option<Vec<f64>> = right
                    .cells
                    .iter()
                    .map(|cell| constant(cell).filter(|by| *by != 0.0).map(|by| 1.0 / by))
                    .collect();
                if let Some(inverse) = inverse {
                    return Ok(left.scaled(&inverse));
                }
                if let Some(norm) = self.norm(left, right, Expression::as_root)? {
                    return Ok(norm);
                }
                self.joined(operator, left, right)
                    .ok_or_else(|| "a quotient that is neither a norm nor an activation".into())
            }
            Binary::Power | Binary::Maximum => self
                .joined(operator, left, right)
                .ok_or_else(|| "a power or maximum that is no part of an activation".into()),
        }
    }

    fn sum(&mut self, left: &View, right: &View, sign: f64) -> Outcome<View> {
        let only_ones =
            |view: &View| view.cells.iter().flatten().all(|term| term.source == Source::One);
        let waves = |view: &View| view.cells.iter().flatten().any(|term| term.wave.is_some());
        let related = || match (self.root_of(left), self.root_of(right)) {
            (Some(left), Some(right)) => left == right,
            _ => false,
        };
        let keeps = only_ones(left) || only_ones(right) || waves(left) || waves(right) || related();
        if !keeps {
            if sign < 0.0 {
                return Err("a difference of two values".into());
            }
            let mut terms = vec![self.value(left)?, self.value(right)?];
            // Exporters write either summand first.
            let rank = |value: &ValueId| {
                (matches!(self.operators[*value], Operator::Positions { .. }), *value)
            };
            terms.sort_by_key(rank);
            let value = self.push(Operator::Sum { terms });
            return self.whole_value(left.axes.clone(), value);
        }
        let view = left.plus(right, sign);
        if let Some(centred) = self.centred(&view) {
            return Ok(centred);
        }
        Ok(self.with_bias(&view)?.unwrap_or(view))
    }

    /// The one entry that all terms of a view are made of, totals and functions seen through.
    fn root_of(&self, view: &View) -> Option<usize> {
        let mut root = None;
        for term in view.cells.iter().flatten() {
            if term.source == Source::One {
                continue;
            }
            let (mut at, mut entry) = self.entry(term.source)?;
            while let Entry::Function(of, _) | Entry::Total { of, .. } | Entry::Centred(of) = entry
            {
                at = *of;
                entry = &self.entries[at];
            }
            if root.is_some_and(|root| root != at) {
                return None;
            }
            root = Some(at);
        }
        root
    }

    fn product(&mut self, left: &View, right: &View) -> Outcome<View> {
        let (left_value, right_value) = (self.value(left)?, self.value(right)?);
        let is_activation =
            |value: ValueId| matches!(self.operators[value], Operator::Activation { .. });
        let (x, y) = match (is_activation(left_value), is_activation(right_value)) {
            (true, _) => (left_value, right_value),
            (false, true) => (right_value, left_value),
            _ => return Err("a product of two values, neither of which is an activation".into()),
        };
        let value = self.push(Operator::Product { x, y });
        self.whole_value(left.axes.clone(), value)
    }

    /// The operator whose result a view is.
    pub fn value(&mut self, view: &View) -> Outcome<ValueId> {
        if let Some((_, Entry::Value(value))) = self.whole(view) {
            return Ok(*value);
        }
        if let Some((base, features, expression)) = self.univariate(view)
            && let Entry::Value(of) = self.entries[base]
        {
            let from = features.first().copied().unwrap_or(0);
            let consecutive =
                features.iter().enumerate().all(|(at, feature)| *feature == from + at);
            if consecutive {
                let selected = self.select(of, from, features.len());
                if expression == Expression::Argument {
                    return Ok(selected);
                }
                let function = expression
                    .as_function()
                    .ok_or("a function that is none of silu, gelu, gelu_tanh, quick_gelu, relu")?;
                return Ok(self.push(Operator::Activation { x: selected, function }));
            }
        }
        Err("numbers that are no operator's result: scaled, shifted, mixed or in another order"
            .into())
    }

    pub fn select(&mut self, x: ValueId, from: usize, count: usize) -> ValueId {
        if from == 0 && self.width(x) == count {
            return x;
        }
        self.push(Operator::Select { x, from, count })
    }
}

/// The product of a view with a view of constants and waves.
pub(super) fn distributed(left: &View, right: &View) -> Option<View> {
    let cells = left.cells.iter().zip(&right.cells).map(|(left, right)| {
        if left.len() * right.len() > MAX_TERMS {
            return None;
        }
        let mut product = Vec::with_capacity(left.len() * right.len());
        for (left, right) in left.iter().flat_map(|left| right.iter().map(move |r| (left, r))) {
            let term = match (left.source, right.source) {
                (_, Source::One) => Term { factor: left.factor * right.factor, ..*left },
                (Source::One, _) => Term { factor: left.factor * right.factor, ..*right },
                _ => return None,
            };
            let wave = match (left.wave, right.wave) {
                (Some(_), Some(_)) => return None,
                (wave, None) | (None, wave) => wave,
            };
            product.push(Term { wave, ..term });
        }
        Some(product)
    });
    Some(View { axes: left.axes.clone(), cells: cells.collect::<Option<_>>()? })
}

/// The number that a cell is, if it is a constant.
pub(super) fn constant(cell: &Cell) -> Option<f64> {
    let constants = cell.iter().all(|term| term.source == Source::One && term.wave.is_none());
    constants.then(|| cell.iter().map(|term| term.factor).sum())
}
