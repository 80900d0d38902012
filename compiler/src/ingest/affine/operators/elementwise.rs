//! Add, Sub, Mul, Div, Neg and Cast: sums of expressions, constant rows, scalar factors and
//! constant factors per feature.

use tract_onnx::tract_core::internal::DatumType;

use super::{
    arity::{single, unsupported},
    supported::Supported,
};
use crate::ingest::{
    affine::{
        constant::{Constant, keeps_reals},
        expression::Affine,
        value::Value,
    },
    error::Reason,
    typed_graph::builders::cast::NAME,
};

pub(super) const SUPPORTED: &[Supported] = &[
    Supported {
        operators: "Add, Sub, Sum",
        when: "both operands have the same rows, or one is a constant that is the same for all rows",
        becomes: "a sum of terms, or a bias",
    },
    Supported {
        operators: "Mul, Div",
        when: "by a constant; if it is not one number, the same for all rows",
        becomes: "a scalar factor, or a factor per feature",
    },
    Supported { operators: "Neg", when: "always", becomes: "the factor -1" },
    Supported { operators: "Mean", when: "as Add", becomes: "a sum and a factor" },
    Supported {
        operators: "Cast",
        when: "to a floating-point type",
        becomes: "nothing (rounding in half precision is not imitated)",
    },
];

pub(super) fn cast(to: DatumType, input: &Value) -> Result<Value, Reason> {
    if keeps_reals(to) {
        Ok(input.clone())
    } else {
        Err(Reason::new(format!("it rounds values that depend on the input to {to:?}")))
    }
}

pub(super) fn unary(name: &str, input: &Value) -> Result<Value, Reason> {
    match name {
        "Neg" => scaled(input, -1.0),
        NAME => Err(Reason::new("it rounds values that depend on the input to integers")),
        _ => Err(unsupported()),
    }
}

pub(super) fn binary(name: &str, inputs: &[Value]) -> Result<Value, Reason> {
    let [left, right] = inputs else { return single(inputs).cloned() };
    let affine = match (name, left, right) {
        ("Add", Value::Constant(row), value) => {
            plus_constant(divided(value)?, Constant::read(row, 0)?, 1.0)?
        }
        ("Add", value, Value::Constant(row)) => {
            plus_constant(divided(value)?, Constant::read(row, 1)?, 1.0)?
        }
        ("Sub", Value::Constant(row), value) => {
            plus_constant(divided(value)?.scaled(-1.0), Constant::read(row, 0)?, 1.0)?
        }
        ("Sub", value, Value::Constant(row)) => {
            plus_constant(divided(value)?, Constant::read(row, 1)?, -1.0)?
        }
        ("Add", left, right) => {
            let (left, right) = both_divided(left, right)?;
            left.plus(right)?
        }
        ("Sub", left, right) => {
            let (left, right) = both_divided(left, right)?;
            left.plus(right.scaled(-1.0))?
        }
        ("Mul", Value::Constant(factor), value) => {
            return times_constant(value, Constant::read(factor, 0)?);
        }
        ("Mul", value, Value::Constant(factor)) => {
            return times_constant(value, Constant::read(factor, 1)?);
        }
        ("Mul", ..) => {
            return Err(Reason::Product);
        }
        ("Div", value, Value::Constant(divisor)) => {
            let mut divisor = Constant::read(divisor, 1)?;
            divisor.data.iter_mut().for_each(|value| *value = 1.0 / *value);
            if divisor.data.iter().any(|value| !value.is_finite()) {
                return Err(Reason::new("it divides by zero or by a number too close to it"));
            }
            return times_constant(value, divisor);
        }
        ("Div", ..) => return Err(Reason::new("it divides by a value that depends on the input")),
        _ => return Err(unsupported()),
    };
    Ok(Value::Affine(affine))
}

/// A value as an expression; an undivided input is divided along its last axis.
pub(super) fn divided(value: &Value) -> Result<Affine, Reason> {
    match value {
        Value::Affine(affine) => Ok(affine.clone()),
        Value::Input(view) => view.divided_by_last_axis(),
        Value::Constant(_) | Value::Filled(..) => Err(Reason::new("a constant was not folded")),
    }
}

/// Two values as expressions; an undivided input is divided like the other operand.
fn both_divided(left: &Value, right: &Value) -> Result<(Affine, Affine), Reason> {
    match (left, right) {
        (Value::Affine(left), Value::Input(view)) => Ok((left.clone(), view.divided_like(left)?)),
        (Value::Input(view), Value::Affine(right)) => {
            Ok((view.divided_like(right)?, right.clone()))
        }
        _ => Ok((divided(left)?, divided(right)?)),
    }
}

fn plus_constant(affine: Affine, constant: Constant, sign: f64) -> Result<Affine, Reason> {
    let row = constant.per_feature(&affine.axes, affine.width)?;
    affine.plus_row(row.into_iter().map(|value| sign * value).collect())
}

/// A value times a number; an undivided input stays undivided.
fn scaled(value: &Value, factor: f64) -> Result<Value, Reason> {
    Ok(match value {
        Value::Input(view) => Value::Input(view.clone().scaled(factor)),
        _ => Value::Affine(divided(value)?.scaled(factor)),
    })
}

fn times_constant(value: &Value, constant: Constant) -> Result<Value, Reason> {
    if let Some(factor) = constant.uniform() {
        return scaled(value, factor);
    }
    let affine = divided(value)?;
    let factors = constant.per_feature(&affine.axes, affine.width)?;
    Ok(Value::Affine(affine.times_elements(factors)))
}
