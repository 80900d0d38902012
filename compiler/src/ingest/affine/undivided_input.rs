//! An input whose buffer is not divided into rows and features yet: its first use decides how.
//!
//! Knows where atoms start and end in a buffer; each operator decides which division it needs.

use tract_onnx::tract_core::internal::TDim;

use super::{
    axes::{Atom, Axes, Space, concrete, concrete_extent, order_from, product, tile},
    chain::{Chain, ChainStart, multiply},
    expression::{Affine, check_width},
};
use crate::ingest::error::Reason;

/// Most scalar factors that are kept separate.
const MAX_FACTORS: usize = 1 << 4;

/// An undivided input, at most reshaped and scaled.
#[derive(Clone, Debug)]
pub(in crate::ingest) struct UndividedInput {
    pub input: usize,
    pub axes: Axes,
    /// Constant scalar factors: scaling does not determine where rows are.
    pub factors: Vec<f64>,
    /// Whether convolutions take the whole image as one row, even where its positions could be
    /// rows.
    pub whole: bool,
}

impl UndividedInput {
    /// Multiplies every value by a constant.
    pub fn scaled(mut self, factor: f64) -> Self {
        match self.factors.get_mut(MAX_FACTORS - 1) {
            Some(last) if factor.abs() != 1.0 => *last *= factor,
            _ => multiply(&mut self.factors, factor),
        }
        self
    }

    /// Divides the buffer into rows of `width` features each, the features being the last part of
    /// the buffer.
    pub fn divided(&self, width: usize) -> Result<Affine, Reason> {
        self.divided_at(1, width)
    }

    /// Divides the buffer into rows whose features are those along `axes`; the values after them in
    /// the buffer are positions.
    pub fn divided_by_axes(&self, axes: &[usize]) -> Result<Affine, Reason> {
        let symbolic = || {
            Reason::new("its channels or positions have a symbolic size; export with fixed ones")
        };
        let features: Vec<Atom> =
            axes.iter().flat_map(|axis| self.axes.axis(*axis)).cloned().collect();
        let width = concrete_extent(&features).ok_or_else(symbolic)?;
        let strides =
            features.iter().map(|atom| concrete(&atom.stride)).collect::<Option<Vec<_>>>();
        self.divided_at(strides.ok_or_else(symbolic)?.into_iter().min().unwrap_or(1), width)
    }

    /// Divides the buffer, seen as `[…, width, positions]`, into rows of `width`.
    fn divided_at(&self, positions: usize, width: usize) -> Result<Affine, Reason> {
        check_width(width)?;
        let uneven = || {
            Reason::new(format!(
                "its input cannot be divided into rows of {width} neighbouring values"
            ))
        };
        let end = positions
            .checked_mul(width)
            .and_then(|end| i64::try_from(end).ok())
            .ok_or_else(uneven)?;
        let start = TDim::from(i64::try_from(positions).map_err(|_| uneven())?);
        // An axis of a flat buffer may cross the end of a row, or start before its features.
        let axes = self.axes.split_at(positions).split_at(positions.saturating_mul(width));
        // The end of an atom in the buffer decides its space; symbolic ends are beyond the
        // features.
        let ends_by = |atom: &Atom, limit: i64| {
            product(&atom.stride, &atom.extent).as_i64().is_some_and(|e| e <= limit)
        };
        let is_position = |atom: &Atom| ends_by(atom, positions as i64);
        let is_feature = |atom: &Atom| ends_by(atom, end) && !is_position(atom);
        let (features, rows): (Vec<Atom>, Vec<Atom>) =
            axes.flat_atoms().partition(|atom| is_feature(atom));
        let (inner, outer): (Vec<Atom>, Vec<Atom>) =
            rows.into_iter().partition(|atom| is_position(atom));
        let fits =
            order_from(&features, &start).is_some() && concrete_extent(&features) == Some(width);
        if !fits || !tile(&inner, positions) {
            return Err(uneven());
        }
        let mut strides = vec![];
        let mut stride = start;
        for row in order_from(&outer, &TDim::from(end)).ok_or_else(uneven)? {
            strides.push((row.stride, stride.clone()));
            stride = product(&stride, &row.extent);
        }
        let axes = axes.map(|atom| match strides.iter().find(|(old, _)| *old == atom.stride) {
            _ if is_position(atom) => Atom { space: Space::Row, ..atom.clone() },
            Some((_, stride)) if !is_feature(atom) => {
                Atom { space: Space::Row, stride: stride.clone(), extent: atom.extent.clone() }
            }
            _ => {
                let stride = (atom.stride.clone() / positions).simplify();
                Atom { space: Space::Feature, stride, extent: atom.extent.clone() }
            }
        });
        let start = ChainStart::Input { input: self.input, dim: width, positions, joined: 1 };
        Ok(Affine {
            axes,
            width,
            terms: vec![Chain { start, factors: self.factors.clone(), links: vec![] }],
        })
    }

    /// Divides the buffer so that rows and features are the same as in `other`, if that is
    /// possible.
    pub fn divided_like(&self, other: &Affine) -> Result<Affine, Reason> {
        let plain = self.divided(other.width);
        let is_like = |affine: &Affine| affine.axes == other.axes;
        if !plain.as_ref().is_ok_and(is_like) {
            let by_axis =
                (0..self.axes.rank()).filter_map(|axis| self.divided_by_axes(&[axis]).ok());
            let by_axis: Vec<Affine> = by_axis.collect();
            // A single feature (for example the mean of a row) is broadcast over all features of
            // its row.
            let has_its_rows =
                |affine: &Affine| other.width == 1 && affine.axes.rows() == other.axes.rows();
            let alike = by_axis.iter().find(|affine| is_like(affine));
            if let Some(alike) =
                alike.or_else(|| by_axis.iter().find(|affine| has_its_rows(affine)))
            {
                return Ok(alike.clone());
            }
        }
        plain
    }

    /// Divides the buffer along its last axis that is longer than 1.
    pub fn divided_by_last_axis(&self) -> Result<Affine, Reason> {
        let last: Vec<Atom> = self
            .axes
            .iter()
            .filter(|axis| !axis.is_empty())
            .last()
            .map_or(vec![], <[Atom]>::to_vec);
        let symbolic = || {
            Reason::new(
                "the last axis of its input has no fixed length; export with a fixed feature size",
            )
        };
        self.divided(concrete_extent(&last).ok_or_else(symbolic)?)
    }
}
