//! The abstract value of a tensor: a constant, an untouched input, or an affine expression of the inputs.
//!
//! An affine expression is a sum of terms, each an input (or the constant 1) times a chain of matrices that are never
//! multiplied out here, so that low rank survives. Knows how expressions combine, not which ONNX operators combine them.

use super::{
    axes::{Atom, Axes, Space, concrete, concrete_extent, order_from, product, tile},
    error::Reason,
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
    /// It is one of the inputs, at most reshaped.
    Input(View),
    /// It is affine in the inputs.
    Affine(Affine),
}

/// An input whose buffer has not yet been divided into rows and features: its first use decides.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub input: usize,
    pub axes: Axes,
    /// Convolutions take the whole image as one row, even where its positions could be rows.
    pub whole: bool,
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

impl View {
    /// Divides the buffer into rows of `width` features each, the features being the last part of the buffer.
    pub fn divided(&self, width: usize) -> Result<Affine, Reason> {
        self.divided_at(1, width)
    }

    /// Divides the buffer into rows whose features are those along `axis`; what follows them in the buffer are positions.
    pub fn divided_by_axis(&self, axis: usize) -> Result<Affine, Reason> {
        let symbolic = || Reason::new("its channels or positions have a symbolic size; export with fixed ones");
        let features = self.axes.axis(axis);
        let width = concrete_extent(features).ok_or_else(symbolic)?;
        let strides = features.iter().map(|atom| concrete(&atom.stride)).collect::<Option<Vec<_>>>();
        self.divided_at(strides.ok_or_else(symbolic)?.into_iter().min().unwrap_or(1), width)
    }

    /// Divides the buffer, seen as `[…, width, positions]`, into rows of `width`.
    fn divided_at(&self, positions: usize, width: usize) -> Result<Affine, Reason> {
        let uneven = || Reason::new(format!("its input cannot be divided into rows of {width} neighbouring values"));
        let end = positions.checked_mul(width).and_then(|end| i64::try_from(end).ok()).ok_or_else(uneven)?;
        let start = TDim::from(i64::try_from(positions).map_err(|_| uneven())?);
        // Where an atom ends in the buffer decides what it is: symbolic ends are beyond the features.
        let ends_by =
            |atom: &Atom, limit: i64| product(&atom.stride, &atom.extent).as_i64().is_some_and(|e| e <= limit);
        let is_position = |atom: &Atom| ends_by(atom, positions as i64);
        let is_feature = |atom: &Atom| ends_by(atom, end) && !is_position(atom);
        let (features, rows): (Vec<Atom>, Vec<Atom>) = self.axes.flat_atoms().partition(|atom| is_feature(atom));
        let (inner, outer): (Vec<Atom>, Vec<Atom>) = rows.into_iter().partition(|atom| is_position(atom));
        let fits = order_from(&features, &start).is_some() && concrete_extent(&features) == Some(width);
        if !fits || !tile(&inner, positions) {
            return Err(uneven());
        }
        let mut strides = vec![];
        let mut stride = start;
        for row in order_from(&outer, &TDim::from(end)).ok_or_else(uneven)? {
            strides.push((row.stride, stride.clone()));
            stride = product(&stride, &row.extent);
        }
        let axes = self.axes.map(|atom| match strides.iter().find(|(old, _)| *old == atom.stride) {
            _ if is_position(atom) => Atom { space: Space::Row, ..atom.clone() },
            Some((_, stride)) if !is_feature(atom) => {
                Atom { space: Space::Row, stride: stride.clone(), extent: atom.extent.clone() }
            }
            _ => {
                let stride = (atom.stride.clone() / positions).simplify();
                Atom { space: Space::Feature, stride, extent: atom.extent.clone() }
            }
        });
        let source = Source::Input { input: self.input, dim: width, positions, joined: 1 };
        Ok(Affine { axes, width, terms: vec![Chain { source, factors: vec![], links: vec![] }] })
    }

    /// Divides the buffer so that rows and features are where they are in `other`, if that is possible.
    pub fn divided_like(&self, other: &Affine) -> Result<Affine, Reason> {
        let plain = self.divided(other.width);
        let is_like = |affine: &Affine| affine.axes == other.axes;
        if !plain.as_ref().is_ok_and(is_like) {
            let by_axis = (0..self.axes.rank()).filter_map(|axis| self.divided_by_axis(axis).ok());
            if let Some(alike) = by_axis.into_iter().find(is_like) {
                return Ok(alike);
            }
        }
        plain
    }

    /// Divides the buffer along its last axis that is longer than 1.
    pub fn divided_by_last_axis(&self) -> Result<Affine, Reason> {
        let last: Vec<Atom> = self.axes.iter().filter(|axis| !axis.is_empty()).last().map_or(vec![], <[Atom]>::to_vec);
        let symbolic =
            || Reason::new("the last axis of its input has no fixed length; export with a fixed feature size");
        self.divided(concrete_extent(&last).ok_or_else(symbolic)?)
    }
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
        let rows_only = |axes: &Axes| -> Vec<Vec<Atom>> {
            axes.iter().map(|axis| axis.iter().filter(|atom| atom.space == Space::Row).cloned().collect()).collect()
        };
        if self.width != 1 || self.axes.rank() != axes.rank() || rows_only(&self.axes) != rows_only(axes) {
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
