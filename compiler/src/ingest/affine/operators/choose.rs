//! Where with a constant condition: takes some features from one value and the others from another.

use tract_onnx::tract_core::internal::{DatumType, Tensor};

use super::{arity::unsupported, elementwise::divided, supported::Supported};
use crate::ingest::{
    affine::{constant::Constant, expression::Affine, value::Value},
    error::Reason,
};

pub(super) const SUPPORTED: &[Supported] = &[Supported {
    operators: "Where",
    when: "its condition is constant and the same for all rows",
    becomes: "factors of 1 and 0 per feature, and a bias where a constant is chosen",
}];

pub(super) fn choose(inputs: &[Value]) -> Result<Value, Reason> {
    let [condition, yes, no] = inputs else { return Err(unsupported()) };
    let Value::Constant(condition) = condition else {
        return Err(Reason::new("its condition depends on the input"));
    };
    let mask = mask(condition)?;
    let parts = [(yes, 1, 1.0), (no, 2, 0.0)];
    // The side that depends on the input determines rows and features.
    let frame = parts.iter().find(|(value, ..)| !matches!(value, Value::Constant(_)));
    let frame = divided(frame.ok_or_else(unsupported)?.0)?;
    let chosen = mask.per_feature(&frame.axes, frame.width)?;
    let mut sum: Option<Affine> = None;
    let mut row = vec![0.0; frame.width];
    for (value, slot, when) in parts {
        let keep: Vec<f64> =
            chosen.iter().map(|chosen| if *chosen == when { 1.0 } else { 0.0 }).collect();
        if let Value::Constant(constant) = value {
            let constant = Constant::read(constant, slot)?.per_feature(&frame.axes, frame.width)?;
            row.iter_mut()
                .zip(constant.iter().zip(&keep))
                .for_each(|(row, (value, keep))| *row += value * keep);
            continue;
        }
        let part = divided(value)?;
        if part.axes != frame.axes {
            return Err(Reason::new(
                "its two sides do not have the same rows and features in the same order",
            ));
        }
        let part =
            if keep.iter().all(|keep| *keep == 1.0) { part } else { part.times_elements(keep) };
        sum = Some(match sum {
            Some(sum) => sum.plus(part)?,
            None => part,
        });
    }
    let sum = sum.ok_or_else(unsupported)?;
    Ok(Value::Affine(if row.iter().any(|value| *value != 0.0) { sum.plus_row(row)? } else { sum }))
}

/// The condition as ones and zeros.
fn mask(condition: &Tensor) -> Result<Constant, Reason> {
    if condition.datum_type() != DatumType::Bool {
        return Err(Reason::new("its condition is not a list of true and false"));
    }
    let condition = condition.to_plain_array_view::<bool>();
    let condition = condition
        .map_err(|error| Reason::new(format!("its condition cannot be read: {error:#}")))?;
    let data: Vec<f64> = condition.iter().map(|value| f64::from(u8::from(*value))).collect();
    if data.is_empty() {
        return Err(Reason::new("its condition has no elements"));
    }
    Ok(Constant { shape: condition.shape().to_vec(), data })
}
