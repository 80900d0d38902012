//! ReduceSum (and ReduceMean, which arrives as a sum and a factor): a contraction with ones.

use std::sync::Arc;

use tract_onnx::tract_core::ops::nn::{Reduce, Reducer};

use super::{arity::unsupported, supported::Supported};
use crate::{
    ingest::{
        affine::{
            axes::{Atom, Axes, Space, concrete_extent, tile},
            chain::Link,
            expression::Affine,
            value::Value,
        },
        error::Reason,
    },
    matrix::Matrix,
};

pub(super) const SUPPORTED: &[Supported] = &[Supported {
    operators: "ReduceSum, ReduceMean",
    when: "over all features, or over all features and rows if the number of rows is fixed",
    becomes: "a matrix of ones; rows that are summed over become one long row (with a warning)",
}];

pub(super) fn sum(op: &Reduce, input: &Value) -> Result<Value, Reason> {
    if op.reducer != Reducer::Sum {
        return Err(unsupported());
    }
    let reduced = |axes: &Axes| -> Vec<Atom> {
        op.axes.iter().flat_map(|axis| axes.axis(*axis).to_vec()).collect()
    };
    let mut affine = match input {
        Value::Input(view) => {
            let width = concrete_extent(&reduced(&view.axes));
            view.divided(
                width.ok_or_else(|| Reason::new("it sums over an axis of symbolic length"))?,
            )?
        }
        Value::Affine(affine) => affine.clone(),
        Value::Constant(_) | Value::Filled(..) => {
            return Err(Reason::new("a constant was not folded"));
        }
    };
    if reduced(&affine.axes).iter().any(|atom| atom.space == Space::Row) {
        affine = affine.with_rows_as_features()?;
    }
    if !tile(&reduced(&affine.axes), affine.width) {
        return Err(Reason::new(
            "it sums over part of the features or of the rows, which is not supported",
        ));
    }
    let axes = op.axes.iter().fold(affine.axes.clone(), |axes, axis| axes.with_axis(*axis, vec![]));
    let ones = Matrix::new(affine.width, 1, vec![1.0; affine.width])?;
    Ok(Value::Affine(Affine::times(affine, Link::Dense(Arc::new(ones)), 1, axes)))
}
