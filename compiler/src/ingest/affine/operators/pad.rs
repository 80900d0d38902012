//! Pad along the features: further columns of zeros, or a bias where the padding is another number.

use tract_onnx::tract_core::ops::array::{Pad, PadMode};

use super::{elementwise::divided, slice::features, supported::Supported};
use crate::ingest::{
    affine::{
        axes::{Space, concrete_extent},
        constant::Constant,
        expression::check_width,
        value::Value,
    },
    error::Reason,
};

pub(super) const SUPPORTED: &[Supported] = &[Supported {
    operators: "Pad",
    when: "constant padding along the features",
    becomes: "columns of zeros, and a bias if the padding is not zero; negative pads crop",
}];

pub(super) fn pad(op: &Pad, input: &Value) -> Result<Value, Reason> {
    let PadMode::Constant(value) = &op.mode else {
        return Err(Reason::new("it pads with reflected or repeated values; pad with a constant"));
    };
    let value = Constant::read(value, 0)?
        .uniform()
        .ok_or_else(|| Reason::new("it pads with several values"))?;
    let affine = divided(input)?;
    let mut padded = op.pads.iter().enumerate().filter(|(_, pads)| **pads != (0, 0));
    let Some((axis, (before, after))) = padded.next() else { return Ok(Value::Affine(affine)) };
    let atoms = affine.axes.axis(axis);
    let whole = atoms.len() <= 1 && atoms.iter().all(|atom| atom.space == Space::Feature);
    if padded.next().is_some() || !whole || concrete_extent(atoms) != Some(affine.width) {
        return Err(Reason::new("it pads rows or heads; only features can be padded"));
    }
    let width = affine.width;
    let total = before.checked_add(width).and_then(|sum| sum.checked_add(*after));
    let total = total.ok_or_else(|| Reason::new("it cuts features off, or pads to too many"))?;
    check_width(total)?;
    let columns: Vec<_> =
        (0..total).map(|k| k.checked_sub(*before).filter(|column| *column < width)).collect();
    let axes = affine.axes.with_axis(axis, features(total));
    let row = columns.iter().map(|column| if column.is_some() { 0.0 } else { value }).collect();
    let wide = affine.selected(columns)?.with_axes(axes);
    Ok(Value::Affine(if value == 0.0 { wide } else { wide.plus_row(row)? }))
}
