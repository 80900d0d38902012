//! Reads constant tensors as finite `f64` numbers with a shape.
//!
//! Weights leave tract only here.

use tract_onnx::tract_core::internal::{DatumType, Tensor};

use super::axes::{Axes, Space, offsets};
use crate::ingest::error::Reason;

/// A constant, row-major.
#[derive(Clone, Debug)]
pub(in crate::ingest) struct Constant {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Constant {
    /// Reads a tensor, which is input `slot` of a node.
    pub fn read(tensor: &Tensor, slot: usize) -> Result<Self, Reason> {
        if !(tensor.datum_type().is_float() || tensor.datum_type().is_integer()) {
            return Err(Reason::new(format!(
                "its constant has type {:?}, which is not a number",
                tensor.datum_type()
            )));
        }
        let unreadable = |error| Reason::new(format!("its constant cannot be read: {error:#}"));
        let widened = tensor.cast_to::<f64>().map_err(unreadable)?;
        let view = widened.to_plain_array_view::<f64>().map_err(unreadable)?;
        let data: Vec<f64> = view.iter().copied().collect();
        if data.iter().any(|value| !value.is_finite()) {
            return Err(Reason::NonFinite(slot));
        }
        if data.is_empty() {
            return Err(Reason::new("its constant has no elements"));
        }
        Ok(Self { shape: tensor.shape().to_vec(), data })
    }

    /// The value of all elements, if they are equal.
    pub fn uniform(&self) -> Option<f64> {
        self.data.first().copied().filter(|first| self.data.iter().all(|value| value == first))
    }

    /// The constant as one value per feature, for an elementwise operation with a tensor that has
    /// these axes.
    pub fn per_feature(&self, axes: &Axes, width: usize) -> Result<Vec<f64>, Reason> {
        if let Some(value) = self.uniform() {
            return Ok(vec![value; width]);
        }
        if self.shape.len() != axes.rank() {
            return Err(Reason::new("its operands have different ranks"));
        }
        // Pairs of an offset into the constant and the feature that it applies to.
        let mut pairs: Vec<(usize, usize)> = vec![(0, 0)];
        let mut stride = self.data.len();
        for (atoms, extent) in axes.iter().zip(&self.shape) {
            stride /= extent;
            if *extent == 1 {
                let features: Vec<_> =
                    atoms.iter().filter(|atom| atom.space == Space::Feature).cloned().collect();
                let spread = offsets(&features).ok_or_else(too_long)?;
                pairs = cross(&pairs, spread.iter().map(|feature| (0, *feature)));
            } else if atoms.iter().all(|atom| atom.space == Space::Feature) {
                let along =
                    offsets(atoms).filter(|along| along.len() == *extent).ok_or_else(broadcast)?;
                pairs = cross(
                    &pairs,
                    along.iter().enumerate().map(|(i, feature)| (i * stride, *feature)),
                );
            } else {
                return Err(Reason::new(
                    "its constant differs from row to row; only constants that are the same for all rows are linear maps of a row",
                ));
            }
            if pairs.len() > width {
                return Err(broadcast());
            }
        }
        let mut values = vec![0.0; width];
        for (offset, feature) in pairs {
            *values.get_mut(feature).ok_or_else(broadcast)? = self.data[offset];
        }
        Ok(values)
    }
}

/// Whether a cast to this type is the identity on real numbers, up to rounding.
pub(in crate::ingest) fn keeps_reals(to: DatumType) -> bool {
    to.is_float()
}

/// Every pair plus every pair along a further axis.
fn cross(
    pairs: &[(usize, usize)],
    along: impl Iterator<Item = (usize, usize)> + Clone,
) -> Vec<(usize, usize)> {
    pairs
        .iter()
        .flat_map(|(offset, feature)| along.clone().map(move |(o, f)| (offset + o, feature + f)))
        .collect()
}

fn broadcast() -> Reason {
    Reason::new("its constant would repeat the other operand along a new axis")
}

fn too_long() -> Reason {
    Reason::new("an axis of features is symbolic or too long")
}
