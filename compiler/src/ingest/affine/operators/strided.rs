//! Slice with starts, ends, axes and steps as inputs: a selection of columns in any steps, forwards
//! or backwards.

use tract_onnx::tract_core::{
    internal::{Datum, TDim, Tensor},
    ops::array::StridedSlice,
};

use super::{elementwise::divided, slice::features};
use crate::ingest::{
    affine::{
        axes::{Space, concrete, extent, offsets, tile},
        value::Value,
    },
    error::Reason,
};

/// Ends of at least this value mean the end of the axis; exporters write them where the length of
/// the axis is symbolic.
const FAR: i64 = i32::MAX as i64;

pub(super) fn slice(op: &StridedSlice, inputs: &[Value]) -> Result<Value, Reason> {
    let unknown = || {
        Reason::new(
            "where it slices depends on the input; export with fixed starts, ends, axes and steps",
        )
    };
    let list = |input: Option<usize>| -> Result<Option<Vec<TDim>>, Reason> {
        let Some(input) = input else { return Ok(None) };
        let Some(Value::Constant(tensor)) = inputs.get(input) else { return Err(unknown()) };
        dims(tensor).map(Some).ok_or_else(unknown)
    };
    if op.begin_mask != 0 || op.end_mask != 0 || op.shrink_axis_mask != 0 {
        return Err(unknown());
    }
    let mut affine = divided(inputs.first().ok_or_else(unknown)?)?;
    let rank = affine.axes.rank();
    let starts = list(Some(1))?.ok_or_else(unknown)?;
    let ends = list(Some(2))?.ok_or_else(unknown)?;
    let axes = list(op.optional_axes_input)?
        .unwrap_or_else(|| (0..starts.len()).map(|axis| (axis as i64).into()).collect());
    let steps = list(op.optional_steps_input)?.unwrap_or_else(|| vec![1.into(); starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err(unknown());
    }
    for ((start, end), (axis, step)) in starts.iter().zip(&ends).zip(axes.iter().zip(&steps)) {
        let axis = axis.as_i64().ok_or_else(unknown)?;
        let axis = if axis < 0 { axis + rank as i64 } else { axis };
        let axis = usize::try_from(axis).ok().filter(|axis| *axis < rank).ok_or_else(unknown)?;
        let atoms = affine.axes.axis(axis);
        let length = extent(atoms);
        let picked = concrete(&length).and_then(|length| indices(length, start, end, step));
        let is_whole = match &picked {
            Some(picked) => {
                concrete(&length) == Some(picked.len())
                    && picked.iter().enumerate().all(|(at, i)| at == *i)
            }
            None => {
                let reaches = *end == length || end.as_i64().is_some_and(|end| end >= FAR);
                start.as_i64() == Some(0) && reaches && step.as_i64() == Some(1)
            }
        };
        if is_whole {
            continue;
        }
        let only_features = || {
            Reason::new(
                "it slices rows, heads or a symbolic range; only the features can be sliced",
            )
        };
        if atoms.iter().any(|atom| atom.space != Space::Feature) || !tile(atoms, affine.width) {
            return Err(only_features());
        }
        let along = offsets(atoms).ok_or_else(only_features)?;
        let picked = picked
            .filter(|picked| !picked.is_empty())
            .ok_or_else(|| Reason::new("it leaves no features"))?;
        let columns: Option<Vec<_>> =
            picked.iter().map(|index| along.get(*index).copied().map(Some)).collect();
        let columns = columns.ok_or_else(only_features)?;
        let axes = affine.axes.with_axis(axis, features(columns.len()));
        affine = affine.selected(columns)?.with_axes(axes);
    }
    Ok(Value::Affine(affine))
}

fn dims(tensor: &Tensor) -> Option<Vec<TDim>> {
    if tensor.datum_type() == TDim::datum_type() {
        return Some(tensor.to_plain_array_view::<TDim>().ok()?.iter().cloned().collect());
    }
    // Via i64: tract's own cast to dimensions keeps 32 bits.
    let integers = tensor.cast_to::<i64>().ok()?;
    Some(
        integers
            .to_plain_array_view::<i64>()
            .ok()?
            .iter()
            .map(|value| TDim::from(*value))
            .collect(),
    )
}

/// The selected indices of an axis, as ONNX defines them; none if start, end or step are symbolic.
fn indices(length: usize, start: &TDim, end: &TDim, step: &TDim) -> Option<Vec<usize>> {
    let (start, end, step) =
        (start.as_i64()?, end.as_i64()?, step.as_i64().filter(|step| *step != 0)?);
    let length = i64::try_from(length).ok()?;
    if length == 0 {
        return Some(vec![]);
    }
    let from_first = |index: i64| if index < 0 { index.saturating_add(length) } else { index };
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let (start, end) =
        (from_first(start).clamp(low.max(0), high), from_first(end).clamp(low, high));
    let mut picked = vec![];
    let mut at = start;
    while (step > 0 && at < end) || (step < 0 && at > end) {
        picked.push(usize::try_from(at).ok()?);
        at = at.checked_add(step)?;
    }
    Some(picked)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn picked(start: i64, end: i64, step: i64) -> Vec<usize> {
        indices(5, &start.into(), &end.into(), &step.into()).unwrap()
    }

    #[test]
    fn indices_are_those_of_onnx() {
        assert_eq!(picked(0, i64::MAX, 2), [0, 2, 4]);
        assert_eq!(picked(-2, 9, 1), [3, 4]);
        assert_eq!(picked(-1, i64::MIN, -2), [4, 2, 0]);
        assert_eq!(picked(9, 0, -1), [4, 3, 2, 1]);
        assert!(picked(3, 3, 1).is_empty() && picked(0, 9, -1).is_empty());
        // With a negative step, a start is clamped to the first index, as in onnxruntime.
        assert_eq!(picked(-9, -9, -1), [0]);
    }
}
