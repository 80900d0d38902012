//! Concat along the features: pads each part with zero columns and adds the parts.

use tract_onnx::tract_core::internal::TDim;

use super::{elementwise::divided, slice::features, supported::Supported};
use crate::ingest::{
    affine::{
        axes::{Atom, Space, concrete},
        constant::Constant,
        expression::{Affine, check_width},
        expression_size::{MAX_VECTORS, SELECTED},
        value::Value,
    },
    error::Reason,
};

pub(super) const SUPPORTED: &[Supported] = &[Supported {
    operators: "Concat",
    when: "along the features, or along a new axis (a stack); also with constants",
    becomes: "columns side by side",
}];

pub(super) fn concat(axis: usize, inputs: &[Value]) -> Result<Value, Reason> {
    let rest = || {
        Reason::new(
            "it joins rows or heads, or parts whose rows differ; only features can be joined",
        )
    };
    let parts: Vec<Option<Affine>> = inputs
        .iter()
        .map(|input| match input {
            Value::Constant(_) | Value::Filled(..) => Ok(None),
            _ => divided(input).map(Some),
        })
        .collect::<Result<_, _>>()?;
    let first = parts.iter().flatten().next().ok_or_else(rest)?;
    if first.axes.axis(axis).is_empty() && first.width > 1 {
        return stack(axis, first.clone(), inputs, parts);
    }
    let frame = first.axes.clone();
    let mut widths = Vec::with_capacity(inputs.len());
    for (input, part) in inputs.iter().zip(&parts) {
        widths.push(match (input, part) {
            (_, Some(part)) => part.width,
            (Value::Constant(tensor), None) => *tensor.shape().get(axis).ok_or_else(rest)?,
            (Value::Filled(_, dims), None) => dims.get(axis).and_then(concrete).ok_or_else(rest)?,
            _ => return Err(rest()),
        });
    }
    let total =
        widths.iter().try_fold(0usize, |sum, width| sum.checked_add(*width)).ok_or_else(rest)?;
    check_joined(inputs.len(), total)?;
    let joined_axes = frame.with_axis(axis, features(total));
    let mut joined: Option<Affine> = None;
    let mut row = vec![0.0; total];
    let mut start = 0;
    for (slot, ((input, part), width)) in inputs.iter().zip(parts).zip(widths).enumerate() {
        if width == 0 {
            // A part of width 0: exporters write it where nothing is padded.
            continue;
        }
        if let Value::Constant(tensor) = input {
            let part_axes = frame.with_axis(axis, features(width));
            row[start..start + width]
                .copy_from_slice(&Constant::read(tensor, slot)?.per_feature(&part_axes, width)?);
        } else if let Value::Filled(number, _) = input {
            row[start..start + width].fill(*number);
        } else if let Some(part) = part {
            if part.axes.with_axis(axis, features(total)) != joined_axes
                || part.axes.axis(axis) != features_or_unit(width)
            {
                return Err(rest());
            }
            let columns: Vec<_> =
                (0..total).map(|k| k.checked_sub(start).filter(|column| *column < width)).collect();
            let padded = part.selected(columns)?.with_axes(joined_axes.clone());
            joined = Some(match joined {
                Some(sum) => sum.plus(padded)?,
                None => padded,
            });
        }
        start += width;
    }
    let mut joined = joined.ok_or_else(rest)?;
    if row.iter().any(|value| *value != 0.0) {
        joined = joined.plus_row(row)?;
    }
    Ok(Value::Affine(joined))
}

/// Refuses too many features; every part becomes a selection of that length.
fn check_joined(parts: usize, total: usize) -> Result<(), Reason> {
    check_width(total)?;
    if parts.saturating_mul(total) <= MAX_VECTORS / SELECTED {
        return Ok(());
    }
    Err(Reason::too_much(format!(
        "it joins {parts} parts to {total} features, which are too many; export fewer modules in one graph"
    )))
}

/// Joins parts along an axis of length 1 in each: features are numbered part by part.
fn stack(
    axis: usize,
    frame: Affine,
    inputs: &[Value],
    parts: Vec<Option<Affine>>,
) -> Result<Value, Reason> {
    let unlike = || Reason::new("it stacks parts whose rows or features differ");
    let (width, count) = (frame.width, parts.len());
    let total = width.checked_mul(count).ok_or_else(unlike)?;
    check_joined(count, total)?;
    let dim = |value: usize| i64::try_from(value).map(TDim::from).map_err(|_| unlike());
    let parts_axis = vec![Atom { space: Space::Feature, stride: dim(width)?, extent: dim(count)? }];
    let axes = frame.axes.with_axis(axis, parts_axis);
    let mut stacked: Option<Affine> = None;
    let mut row = vec![0.0; total];
    for (slot, (input, part)) in inputs.iter().zip(parts).enumerate() {
        let start = slot * width;
        if let Value::Constant(tensor) = input {
            let constant = Constant::read(tensor, slot)?;
            if constant.shape.get(axis) != Some(&1) {
                return Err(unlike());
            }
            row[start..start + width].copy_from_slice(&constant.per_feature(&frame.axes, width)?);
            continue;
        }
        if let Value::Filled(number, dims) = input {
            if dims.get(axis).and_then(concrete) != Some(1) {
                return Err(unlike());
            }
            row[start..start + width].fill(*number);
            continue;
        }
        let part = part
            .filter(|part| part.axes == frame.axes && part.width == width)
            .ok_or_else(unlike)?;
        let columns: Vec<_> =
            (0..total).map(|k| k.checked_sub(start).filter(|column| *column < width)).collect();
        let placed = part.selected(columns)?.with_axes(axes.clone());
        stacked = Some(match stacked {
            Some(sum) => sum.plus(placed)?,
            None => placed,
        });
    }
    let stacked = stacked.ok_or_else(unlike)?;
    Ok(Value::Affine(if row.iter().any(|value| *value != 0.0) {
        stacked.plus_row(row)?
    } else {
        stacked
    }))
}

/// The axis of a part with this many features; an axis of length 1 has no atoms.
fn features_or_unit(width: usize) -> Vec<Atom> {
    if width == 1 { vec![] } else { features(width) }
}
