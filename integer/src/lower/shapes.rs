//! Operators that only move cells: changes of shape, slices, look-ups by constants.

use tract_onnx::{
    prelude::*,
    tract_core::ops::{
        array::{GatherNd, Slice, StridedSlice},
        change_axes::AxisOp,
    },
    tract_hir::internal::DimLike,
};

use super::{
    meaning::{Meaning, Outcome, tract},
    view::{Axis, View},
};

fn mixed() -> String {
    "a change of shape that mixes tokens and features".into()
}

fn some_tokens() -> String {
    "only some tokens go on; export all of them".into()
}

/// A view in another shape, `axes`.
pub(super) fn reshaped(view: &View, axis: &AxisOp, axes: Vec<Axis>) -> Outcome<View> {
    if let AxisOp::Move(from, to) = axis {
        return view.moved(*from, *to).ok_or_else(mixed);
    }
    // The order of the cells stays; tokens must stay one axis, with the same cells before and
    // after.
    let before = |axes: &[Axis]| {
        let tokens = axes.iter().position(|axis| *axis == Axis::Tokens);
        tokens.map(|at| axes[..at].iter().map(|axis| axis.cells()).product::<usize>())
    };
    let count: usize = axes.iter().map(|axis| axis.cells()).product();
    if before(&axes) != before(&view.axes) || count != view.cells.len() {
        return Err(mixed());
    }
    Ok(View { axes, cells: view.cells.clone() })
}

/// Whether a change of shape leaves the last two axes of attention's scores, and the order of the
/// heads before them.
pub(super) fn keeps_scores(axis: &AxisOp, before: &[Axis], after: &[Axis]) -> bool {
    let heads = |axes: &[Axis]| match axes {
        [heads @ .., Axis::Tokens, Axis::Tokens] => {
            Some(heads.iter().map(|axis| axis.cells()).product::<usize>())
        }
        _ => None,
    };
    !matches!(axis, AxisOp::Move(..)) && heads(before).is_some() && heads(before) == heads(after)
}

/// A part of an axis.
pub(super) fn sliced(view: &View, slice: &Slice) -> Outcome<View> {
    let ends = slice.start.to_usize().ok().zip(slice.end.to_usize().ok());
    let (start, end) = ends.ok_or_else(mixed)?;
    if view.axes.get(slice.axis) == Some(&Axis::Tokens) {
        return Err(some_tokens());
    }
    view.stepped(slice.axis, start, 1, end.saturating_sub(start)).ok_or_else(mixed)
}

/// The cells that constant indices of the first axis name.
pub(super) fn looked_up_nd(view: &View, gather: &GatherNd, index: &Tensor) -> Outcome<View> {
    match index.shape() {
        [outer @ .., 1] if gather.batch_dims == 0 => looked_up(view, 0, index, outer),
        _ => Err("a look-up by indices of several axes".into()),
    }
}

/// The cells along an axis of fixed size that a constant `index` names; axes of the sizes `shape`
/// replace it.
pub(super) fn looked_up(
    view: &View,
    axis: usize,
    index: &Tensor,
    shape: &[usize],
) -> Outcome<View> {
    let what = || "a look-up by something else than stored indices of features".to_string();
    let Some(Axis::Size(size)) = view.axes.get(axis).copied() else { return Err(what()) };
    let numbers = integers(index)?;
    let numbers: Vec<usize> = numbers
        .iter()
        .map(|at| usize::try_from(if *at < 0 { at + size as i64 } else { *at }).ok())
        .map(|at| at.filter(|at| *at < size))
        .collect::<Option<_>>()
        .ok_or_else(what)?;
    let flat = Axis::Size(numbers.len());
    let mut axes = view.axes.clone();
    axes[axis] = flat;
    let found = view
        .gathered(axes, |at| {
            let mut at = at.to_vec();
            at[axis] = numbers[at[axis]];
            at
        })
        .ok_or_else(what)?;
    let mut axes = view.axes.clone();
    axes.splice(axis..=axis, shape.iter().copied().map(Axis::Size));
    Ok(View { axes, cells: found.cells })
}

fn integers(tensor: &Tensor) -> Outcome<Vec<i64>> {
    let numbers = tensor.cast_to::<i64>().map_err(tract)?;
    Ok(numbers.try_as_plain_ram().map_err(tract)?.as_slice::<i64>().map_err(tract)?.to_vec())
}

/// Every so many cells along axes. `rest` are the operator's inputs after the view.
pub(super) fn strided(view: &View, slice: &StridedSlice, rest: &[Meaning]) -> Outcome<View> {
    let what = || "a slice by numbers that are not stored".to_string();
    let numbers = |at: usize| match rest.get(at) {
        Some(Meaning::Constant(tensor)) => integers(tensor),
        _ => Err(what()),
    };
    if slice.begin_mask != 0 || slice.end_mask != 0 || slice.shrink_axis_mask != 0 {
        return Err(what());
    }
    let (begins, ends) = (numbers(0)?, numbers(1)?);
    let axes = match slice.optional_axes_input {
        Some(at) => numbers(at - 1)?,
        None => (0..begins.len() as i64).collect(),
    };
    let steps = match slice.optional_steps_input {
        Some(at) => numbers(at - 1)?,
        None => vec![1; begins.len()],
    };
    if [axes.len(), ends.len(), steps.len()] != [begins.len(); 3] {
        return Err(what());
    }
    let mut view = view.clone();
    for (at, axis) in axes.iter().enumerate() {
        let (begin, end, step) = (begins[at], ends[at], steps[at]);
        let rank = view.axes.len() as i64;
        let axis = usize::try_from(if *axis < 0 { axis + rank } else { *axis }).ok();
        let axis = axis.filter(|axis| *axis < view.axes.len()).ok_or_else(what)?;
        match view.axes[axis] {
            Axis::Tokens if begin == 0 && end >= i64::from(i32::MAX) && step == 1 => {}
            Axis::Tokens => return Err(some_tokens()),
            Axis::Size(size) => {
                let (first, count) = run(size as i64, begin, end, step).ok_or_else(what)?;
                view = view.stepped(axis, first, step, count).ok_or_else(what)?;
            }
        }
    }
    Ok(view)
}

/// The first index of a slice of an axis of `size`, and how many it has.
fn run(size: i64, begin: i64, end: i64, step: i64) -> Option<(usize, usize)> {
    let place = |at: i64, low: i64, high: i64| {
        let at = if at < 0 { at.saturating_add(size) } else { at };
        at.clamp(low, high)
    };
    let distance = match step {
        1.. => place(end, 0, size) - place(begin, 0, size),
        0 => return None,
        _ => place(begin, -1, size - 1) - place(end, -1, size - 1),
    };
    let first = if step > 0 { place(begin, 0, size) } else { place(begin, -1, size - 1) };
    let count = distance.max(0).unsigned_abs().div_ceil(step.unsigned_abs());
    let count = usize::try_from(count).ok()?;
    Some((usize::try_from(first.max(0)).ok()?, count))
}

#[cfg(test)]
mod tests {
    use super::run;

    #[test]
    fn slices_run_as_in_numpy() {
        let far = i64::MAX;
        assert_eq!(run(8, 0, far, 1), Some((0, 8)));
        assert_eq!(run(8, 1, far, 2), Some((1, 4)));
        assert_eq!(run(7, 0, far, 2), Some((0, 4)));
        assert_eq!(run(8, -3, -1, 1), Some((5, 2)));
        assert_eq!(run(8, -1, i64::MIN, -1), Some((7, 8)));
        assert_eq!(run(8, 6, 0, -4), Some((6, 2)));
        assert_eq!(run(8, 5, 2, 1), Some((5, 0)));
        assert_eq!(run(8, 0, 8, 0), None);
    }
}
