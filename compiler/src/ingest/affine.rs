//! The abstract value of a tensor: a constant, an untouched input, or an affine expression of the inputs.
//!
//! An affine expression is a sum of terms, each an input (or the constant 1) times a chain of matrices that are never
//! multiplied out here, so that low rank survives. Knows how expressions combine, not which ONNX operators combine them.

use super::{
    axes::{Atom, Axes, Space, concrete_extent, product},
    error::Reason,
    view::View,
};
use crate::matrix::Matrix;
use std::sync::Arc;
use tract_onnx::tract_core::internal::{TDim, Tensor};

/// The most terms of one expression: adding a value to itself again and again doubles their number each time.
const MAX_TERMS: usize = 1 << 10;

/// The most elements of all matrices over joined rows.
const MAX_JOINED: usize = 1 << 27;

/// What is known about one tensor of the graph.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// It does not depend on the inputs.
    Constant(Arc<Tensor>),
    /// It is this number everywhere, in a shape that depends on symbolic sizes.
    Filled(f64, Vec<TDim>),
    /// It is one of the inputs, at most reshaped.
    Input(View),
    /// It is affine in the inputs.
    Affine(Affine),
}

/// A sum of terms over rows and features.
#[derive(Clone, Debug)]
pub(super) struct Affine {
    pub axes: Axes,
    /// Features per row.
    pub width: usize,
    pub terms: Vec<Chain>,
}

/// `factors · source · links[0] · links[1] · …`, applied to every row.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub source: Source,
    /// Constant scalar factors, kept apart so that the public scaling can be told from the private weights.
    pub factors: Vec<f64>,
    pub links: Vec<Link>,
}

/// What a chain begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A row of an input.
    Input {
        input: usize,
        /// Its length.
        dim: usize,
        /// How many neighbouring values of the input's buffer are of the same feature (of different rows); mostly 1.
        positions: usize,
        /// How many rows were joined to this one; mostly 1.
        joined: usize,
    },
    /// The constant 1, of length 1.
    One,
}

/// One factor of a chain, multiplied from the right.
#[derive(Clone, Debug)]
pub(super) enum Link {
    Dense(Arc<Matrix>),
    Diagonal(Arc<Vec<f64>>),
}

impl Affine {
    /// Multiplies every row by `link` from the right; the result has `axes`.
    pub fn times(mut self, link: Link, width: usize, axes: Axes) -> Self {
        self.terms.iter_mut().for_each(|term| term.links.push(link.clone()));
        Self { axes, width, terms: self.terms }
    }

    /// The same expression with its features seen through other axes.
    pub fn with_axes(self, axes: Axes) -> Self {
        Self { axes, ..self }
    }

    /// Multiplies every term by a constant.
    pub fn scaled(mut self, factor: f64) -> Self {
        self.terms.iter_mut().for_each(|term| term.factors.push(factor));
        self
    }

    /// Multiplies feature `k` by `factors[k]`.
    pub fn times_elements(self, factors: Vec<f64>) -> Self {
        let (width, axes) = (self.width, self.axes.clone());
        self.times(Link::Diagonal(Arc::new(factors)), width, axes)
    }

    /// Adds a constant row, given as one value per feature.
    pub fn plus_row(mut self, row: Vec<f64>) -> Result<Self, Reason> {
        let row = Matrix::new(1, self.width, row)?;
        self.terms.push(Chain { source: Source::One, factors: vec![], links: vec![Link::Dense(Arc::new(row))] });
        Ok(self)
    }

    /// The sum of two expressions, after making their rows and features the same where that is possible.
    pub fn plus(self, other: Affine) -> Result<Self, Reason> {
        let (mut left, mut right) = (self, other);
        if left.axes != right.axes
            && left.spread_over(&right.axes)?.is_none()
            && right.spread_over(&left.axes)?.is_none()
        {
            // One side mixes rows (a mean over all of them, say): take all rows of the other as one long row.
            (left, right) = (left.with_rows_as_features()?, right.with_rows_as_features()?);
        }
        if let Some(spread) = left.spread_over(&right.axes)? {
            left = spread;
        } else if let Some(spread) = right.spread_over(&left.axes)? {
            right = spread;
        }
        if left.axes != right.axes {
            return Err(Reason::new("its two operands do not have the same rows and features in the same order"));
        }
        if left.terms.len() + right.terms.len() > MAX_TERMS {
            return Err(Reason::new(format!("it is a sum of more than {MAX_TERMS} terms")));
        }
        left.terms.extend(right.terms);
        Ok(left)
    }

    /// A single feature repeated over the features of `axes`, if the rows are the same.
    fn spread_over(&self, axes: &Axes) -> Result<Option<Self>, Reason> {
        if self.width != 1 || self.axes.rank() != axes.rank() || self.axes.rows() != axes.rows() {
            return Ok(None);
        }
        let features: Vec<Atom> = axes.flat_atoms().filter(|atom| atom.space == Space::Feature).collect();
        let Some(width) = concrete_extent(&features) else { return Ok(None) };
        let ones = Link::Dense(Arc::new(Matrix::new(1, width, vec![1.0; width])?));
        Ok(Some(self.clone().times(ones, width, axes.clone())))
    }

    /// The same expression as a map of all rows at once: `I_rows ⊗ link` for every link, no rows left.
    pub fn with_rows_as_features(self) -> Result<Self, Reason> {
        let rows: Vec<Atom> = self.axes.flat_atoms().filter(|atom| atom.space == Space::Row).collect();
        let copies = concrete_extent(&rows).ok_or_else(|| {
            Reason::new("it mixes rows whose number is symbolic; export with a fixed shape or without sums over rows")
        })?;
        if copies == 1 {
            return Ok(self);
        }
        let overflow = || Reason::new("all rows together are too long");
        // Block matrices of all rows grow with the square of their number.
        let elements = self.terms.iter().flat_map(|term| &term.links).try_fold(0usize, |sum, link| match link {
            Link::Dense(matrix) => matrix.data.len().checked_mul(copies)?.checked_mul(copies)?.checked_add(sum),
            Link::Diagonal(factors) => factors.len().checked_mul(copies)?.checked_add(sum),
        });
        if elements.is_none_or(|elements| elements > MAX_JOINED) {
            return Err(Reason::new(format!(
                "it mixes {copies} rows, and matrices over all of them have more than {MAX_JOINED} elements; export for fewer \
                 rows, or without sums over rows"
            )));
        }
        let width = self.width.checked_mul(copies).ok_or_else(overflow)?;
        let step = TDim::from(i64::try_from(self.width).map_err(|_| overflow())?);
        let axes = self.axes.map(|atom| match atom.space {
            Space::Row => {
                Atom { space: Space::Feature, stride: product(&atom.stride, &step), extent: atom.extent.clone() }
            }
            _ => atom.clone(),
        });
        let terms = self.terms.into_iter().map(|term| term.repeated(copies)).collect::<Result<_, _>>()?;
        Ok(Self { axes, width, terms })
    }
}

impl Chain {
    fn repeated(self, copies: usize) -> Result<Self, Reason> {
        let mut links = Vec::with_capacity(self.links.len());
        for (index, link) in self.links.iter().enumerate() {
            links.push(match link {
                Link::Dense(row) if self.source == Source::One && index == 0 => {
                    let columns: Vec<_> = (0..copies).flat_map(|_| (0..row.cols).map(Some)).collect();
                    Link::Dense(Arc::new(row.gather_columns(&columns)?))
                }
                Link::Dense(matrix) => Link::Dense(Arc::new(matrix.block_diagonal(copies)?)),
                Link::Diagonal(factors) => Link::Diagonal(Arc::new(factors.repeat(copies))),
            });
        }
        let source = match self.source {
            Source::Input { positions, .. } if positions > 1 => {
                return Err(Reason::new("it mixes positions of an image after a convolution that has them as rows"));
            }
            Source::Input { input, dim, positions, joined } => Source::Input {
                input,
                positions,
                joined: joined * copies,
                dim: dim.checked_mul(copies).ok_or_else(|| Reason::new("all rows together are too long"))?,
            },
            Source::One => Source::One,
        };
        Ok(Self { source, factors: self.factors, links })
    }
}
