//! Transpose, Reshape, Squeeze, Unsqueeze, Flatten, and Expand without a change of shape.

use tract_onnx::tract_core::internal::{AxisOp, ShapeFact, TDim};

use super::supported::Supported;
use crate::ingest::{
    affine::{
        axes::{Axes, extent},
        expression::Affine,
        undivided_input::UndividedInput,
        value::Value,
    },
    error::Reason,
};

pub(super) const SUPPORTED: &[Supported] = &[
    Supported {
        operators: "Transpose, Reshape, Flatten, Squeeze, Unsqueeze",
        when: "rows stay whole, and the output has rows in the order of the input, each with all its features together",
        becomes: "nothing: the order of features is followed exactly",
    },
    Supported { operators: "Expand", when: "it repeats nothing", becomes: "nothing" },
];

pub(super) fn change(change: &AxisOp, input: &Value) -> Result<Value, Reason> {
    with_axes(input, |axes| axes.changed(change))
}

pub(super) fn broadcast(shape: &ShapeFact, input: &Value) -> Result<Value, Reason> {
    with_axes(input, |axes| {
        let extents: Vec<TDim> = axes.iter().map(extent).collect();
        if extents == shape.dims() {
            Ok(axes.clone())
        } else {
            Err(Reason::new(
                "it repeats values that depend on the input; export without Expand or broadcasting",
            ))
        }
    })
}

fn with_axes(
    input: &Value,
    change: impl Fn(&Axes) -> Result<Axes, Reason>,
) -> Result<Value, Reason> {
    match input {
        Value::Constant(_) | Value::Filled(..) => Err(Reason::new("a constant was not folded")),
        Value::Input(view) => {
            Ok(Value::Input(UndividedInput { axes: change(&view.axes)?, ..view.clone() }))
        }
        Value::Affine(affine) => {
            Ok(Value::Affine(Affine { axes: change(&affine.axes)?, ..affine.clone() }))
        }
    }
}
