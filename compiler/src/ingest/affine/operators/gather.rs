//! Gather along the features: a selection of columns in any order, with repetitions.

use tract_onnx::tract_core::internal::AxisOp;

use super::{elementwise::divided, slice::features, supported::Supported};
use crate::ingest::{
    affine::{
        axes::{Space, offsets, tile},
        value::Value,
    },
    error::Reason,
};

pub(super) const SUPPORTED: &[Supported] = &[Supported {
    operators: "Gather",
    when: "along the features, with a constant list of at most as many indices as there are features",
    becomes: "a selection of columns",
}];

pub(super) fn gather(axis: usize, inputs: &[Value]) -> Result<Value, Reason> {
    let only_features = || {
        Reason::new(
            "it picks rows, or features by more than one index; only features can be picked",
        )
    };
    let [data, Value::Constant(indices)] = inputs else { return Err(only_features()) };
    let affine = divided(data)?;
    let atoms = affine.axes.axis(axis);
    if indices.rank() > 1
        || atoms.iter().any(|atom| atom.space != Space::Feature)
        || !tile(atoms, affine.width)
    {
        return Err(only_features());
    }
    let along = offsets(atoms).ok_or_else(only_features)?;
    let indices = indices.cast_to::<i64>().map_err(|_| only_features())?;
    let picked = indices.to_plain_array_view::<i64>().map_err(|_| only_features())?;
    if picked.is_empty() || picked.len() > affine.width {
        return Err(Reason::new(format!("it picks {} of {} features", picked.len(), affine.width)));
    }
    let columns = picked.iter().map(|index| {
        // Negative indices count from the end.
        let index =
            if *index < 0 { index.checked_add_unsigned(along.len() as u64)? } else { *index };
        along.get(usize::try_from(index).ok()?).copied()
    });
    let columns: Option<Vec<_>> = columns.map(|column| column.map(Some)).collect();
    let columns = columns.ok_or_else(|| Reason::new("it picks a feature that does not exist"))?;
    let scalar = indices.rank() == 0;
    let axes = affine.axes.with_axis(axis, if scalar { vec![] } else { features(columns.len()) });
    let axes = if scalar { axes.changed(&AxisOp::Rm(axis))? } else { axes };
    Ok(Value::Affine(affine.selected(columns)?.with_axes(axes)))
}
