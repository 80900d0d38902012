//! Affine expressions of the inputs: sums of chains, with the meaning of their axes.
//!
//! Each term is an input (or the constant 1) times a chain of matrices that are not multiplied out
//! here, so low rank survives. Knows how expressions combine, not which ONNX operators combine
//! them.

use std::sync::Arc;

use tract_onnx::tract_core::internal::TDim;

use super::{
    axes::{Atom, Axes, Space, concrete_extent, product},
    chain::{Chain, Link, Selection, multiply},
};
use crate::{ingest::error::Reason, matrix::Matrix};

/// Most terms of one expression. Adding a value to itself doubles their number each time.
const MAX_TERMS: usize = 1 << 10;

/// Most elements of all matrices over joined rows.
const MAX_JOINED: usize = 1 << 27;

/// Most features of a row: one constant for each costs no more than a weight matrix.
const MAX_WIDTH: usize = 1 << 22;

/// A sum of terms over rows and features.
#[derive(Clone, Debug)]
pub(in crate::ingest) struct Affine {
    pub axes: Axes,
    /// Features per row.
    pub width: usize,
    pub terms: Vec<Chain>,
}

impl Affine {
    /// Multiplies every row by `link` from the right; the result has `axes`.
    pub fn times(mut self, link: Link, width: usize, axes: Axes) -> Self {
        self.terms.iter_mut().for_each(|term| term.links.push(link.clone()));
        Self { axes, width, terms: self.terms }
    }

    /// The same expression with other axes.
    pub fn with_axes(self, axes: Axes) -> Self {
        Self { axes, ..self }
    }

    /// Multiplies every term by a constant.
    pub fn scaled(mut self, factor: f64) -> Self {
        self.terms.iter_mut().for_each(|term| multiply(&mut term.factors, factor));
        self
    }

    /// The expression whose feature `k` is feature `columns[k]` of this one, or zero. The caller
    /// sets its axes.
    pub fn selected(mut self, columns: Vec<Option<usize>>) -> Result<Self, Reason> {
        let width = columns.len();
        let selection = Arc::new(Selection { from: self.width, columns });
        self.terms.iter_mut().try_for_each(|term| term.select(&selection))?;
        Ok(Self { width, ..self })
    }

    /// Multiplies feature `k` by `factors[k]`.
    pub fn times_elements(self, factors: Vec<f64>) -> Self {
        let (width, axes) = (self.width, self.axes.clone());
        self.times(Link::Diagonal(Arc::new(factors)), width, axes)
    }

    /// Adds a constant row, given as one value per feature. It is added to a constant row that has
    /// no factors yet, if there is one.
    pub fn plus_row(mut self, row: Vec<f64>) -> Result<Self, Reason> {
        let row = Matrix::new(1, self.width, row)?;
        match self.terms.iter_mut().find_map(Chain::as_row) {
            Some(known) => {
                let known = Arc::make_mut(known);
                known.data.iter_mut().zip(row.data).for_each(|(sum, value)| *sum += value);
            }
            None => self.terms.push(Chain::row(row)),
        }
        check_terms(self.terms.len())?;
        Ok(self)
    }

    /// The sum of two expressions, after their rows and features are made equal where that is
    /// possible.
    pub fn plus(self, other: Affine) -> Result<Self, Reason> {
        let (mut left, mut right) = (self, other);
        if left.axes != right.axes
            && left.spread_over(&right.axes)?.is_none()
            && right.spread_over(&left.axes)?.is_none()
        {
            // One side mixes rows (for example by a mean over all of them): treat all rows of the
            // other side as one long row.
            (left, right) = (left.with_rows_as_features()?, right.with_rows_as_features()?);
        }
        if left.axes != right.axes {
            if let Some(spread) = left.spread_over(&right.axes)? {
                left = spread;
            } else if let Some(spread) = right.spread_over(&left.axes)? {
                right = spread;
            }
        }
        if left.axes != right.axes {
            return Err(Reason::new(
                "its two operands do not have the same rows and features in the same order",
            ));
        }
        check_terms(left.terms.len() + right.terms.len())?;
        left.terms.extend(right.terms);
        Ok(left)
    }

    /// A single feature repeated over the features of `axes`, if the rows are the same.
    fn spread_over(&self, axes: &Axes) -> Result<Option<Self>, Reason> {
        if self.width != 1 || self.axes.rank() != axes.rank() || self.axes.rows() != axes.rows() {
            return Ok(None);
        }
        let features: Vec<Atom> =
            axes.flat_atoms().filter(|atom| atom.space == Space::Feature).collect();
        let Some(width) = concrete_extent(&features) else { return Ok(None) };
        let ones = Link::Dense(Arc::new(Matrix::new(1, width, vec![1.0; width])?));
        Ok(Some(self.clone().times(ones, width, axes.clone())))
    }

    /// The same expression as a map of all rows at once: `I_rows ⊗ link` for every link, and no
    /// rows.
    pub fn with_rows_as_features(self) -> Result<Self, Reason> {
        let rows: Vec<Atom> =
            self.axes.flat_atoms().filter(|atom| atom.space == Space::Row).collect();
        let copies = concrete_extent(&rows).ok_or_else(|| {
            Reason::new("it mixes rows whose number is symbolic; export with a fixed shape or without sums over rows")
        })?;
        if copies == 1 {
            return Ok(self);
        }
        let overflow = || Reason::new("all rows together are too long");
        // Block matrices over all rows grow with the square of the number of rows.
        let elements = self.terms.iter().flat_map(|term| &term.links).try_fold(
            0usize,
            |sum, link| match link {
                Link::Dense(matrix) => {
                    matrix.data.len().checked_mul(copies)?.checked_mul(copies)?.checked_add(sum)
                }
                Link::Diagonal(factors) => factors.len().checked_mul(copies)?.checked_add(sum),
                Link::Select(selection) => {
                    selection.columns.len().checked_mul(copies)?.checked_add(sum)
                }
            },
        );
        if elements.is_none_or(|elements| elements > MAX_JOINED) {
            return Err(Reason::new(format!(
                "it mixes {copies} rows, and matrices over all of them have more than {MAX_JOINED} elements; export for fewer \
                 rows, or without sums over rows"
            )));
        }
        let width = self.width.checked_mul(copies).ok_or_else(overflow)?;
        check_width(width)?;
        let step = TDim::from(i64::try_from(self.width).map_err(|_| overflow())?);
        let axes = self.axes.map(|atom| match atom.space {
            Space::Row => Atom {
                space: Space::Feature,
                stride: product(&atom.stride, &step),
                extent: atom.extent.clone(),
            },
            _ => atom.clone(),
        });
        let terms =
            self.terms.into_iter().map(|term| term.repeated(copies)).collect::<Result<_, _>>()?;
        Ok(Self { axes, width, terms })
    }
}

/// Refuses rows with too many features.
pub(in crate::ingest) fn check_width(width: usize) -> Result<(), Reason> {
    if width <= MAX_WIDTH {
        return Ok(());
    }
    Err(Reason::too_much(format!(
        "it makes rows of {width} features, above the limit of {MAX_WIDTH}; export it for fewer rows or features at once"
    )))
}

fn check_terms(terms: usize) -> Result<(), Reason> {
    if terms <= MAX_TERMS {
        return Ok(());
    }
    Err(Reason::too_much(format!(
        "it is a sum of more than {MAX_TERMS} terms; add weights before exporting"
    )))
}
