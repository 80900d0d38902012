//! Slice and Split along the features: a selection of columns.

use tract_onnx::tract_core::{internal::TDim, ops::array::Slice};

use super::{elementwise::divided, supported::Supported};
use crate::ingest::{
    affine::{
        axes::{Atom, Space, concrete, concrete_extent},
        value::Value,
    },
    error::Reason,
};

pub(super) const SUPPORTED: &[Supported] = &[Supported {
    operators: "Slice, Split",
    when: "along the features, in any steps",
    becomes: "a selection of columns",
}];

pub(super) fn slice(op: &Slice, input: &Value) -> Result<Value, Reason> {
    let affine = divided(input)?;
    let only_features = || {
        Reason::new("it slices rows, heads or a symbolic range; only the features can be sliced")
    };
    let (start, end) = concrete(&op.start).zip(concrete(&op.end)).ok_or_else(only_features)?;
    let axis = affine.axes.axis(op.axis);
    let whole = axis.iter().all(|atom| atom.space == Space::Feature) && axis.len() == 1;
    if !whole || concrete_extent(axis) != Some(affine.width) || start >= end || end > affine.width {
        return Err(only_features());
    }
    let columns: Vec<_> = (start..end).map(Some).collect();
    let axes = affine.axes.with_axis(op.axis, features(end - start));
    Ok(Value::Affine(affine.selected(columns)?.with_axes(axes)))
}

/// The axis made of `width` features.
pub(super) fn features(width: usize) -> Vec<Atom> {
    let extent = TDim::from(i64::try_from(width).unwrap_or(i64::MAX));
    vec![Atom { space: Space::Feature, stride: TDim::from(1), extent }]
}
