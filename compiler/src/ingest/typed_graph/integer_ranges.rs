//! Refuses integers that tract 0.23 reads differently from other runtimes: starts and ends of
//! Slice, of which tract keeps 32 bits, and casts to an integer type that cannot hold the number,
//! whose result ONNX does not define.
//!
//! Knows tract's operators and their constant inputs, not the tensor that is sliced.

use std::sync::Arc;

use tract_onnx::tract_hir::internal::{Datum, DatumType, Tensor};

/// The value beyond 32 bits that tract reads as "to the last" for any step.
const LAST: i64 = i64::MAX;

/// The values that tract reads as "to the first" for a negative step. For a positive step it would
/// read them as "to the last".
const FIRST: [i64; 2] = [i64::MIN, i64::MIN + 1];

/// Checks the starts and ends (inputs 1 and 2) of a slice.
pub(in crate::ingest) fn check_slice(
    operator: &str,
    inputs: &[Option<Arc<Tensor>>],
) -> Result<(), String> {
    if operator != "StridedSlice" {
        return Ok(());
    }
    // With four inputs the last one may be axes or steps; then no step is known to be negative.
    let steps = wide(inputs.get(4))?.unwrap_or_default();
    for (at, starts) in [(1, true), (2, false)] {
        for (index, value) in wide(inputs.get(at))?.unwrap_or_default().into_iter().enumerate() {
            let backwards = steps.get(index).is_some_and(|step| *step < 0);
            let known = !starts && (value == LAST || backwards && FIRST.contains(&value));
            if i32::try_from(value).is_err() && !known {
                return Err(format!(
                    "it slices from or to {value}; write starts and ends within 32 bits, or {LAST} for the end"
                ));
            }
        }
    }
    Ok(())
}

/// Checks a cast of these constants.
pub(in crate::ingest) fn check_cast(
    operator: &str,
    tensor: &Tensor,
    to: DatumType,
) -> Result<(), String> {
    let bits = 8 * to.size_of();
    if !operator.contains("Cast")
        || !tensor.datum_type().is_float()
        || !to.is_integer()
        || bits > 64
    {
        return Ok(());
    }
    let (low, high) = match to.is_unsigned() {
        true => (0.0, 2f64.powi(bits as i32)),
        false => (-(2f64.powi(bits as i32 - 1)), 2f64.powi(bits as i32 - 1)),
    };
    let values = tensor.cast_to::<f64>().map_err(|error| format!("{error:#}"))?;
    let values = values.to_plain_array_view::<f64>().map_err(|error| format!("{error:#}"))?;
    match values.iter().find(|value| !(low..high).contains(&value.trunc())) {
        None => Ok(()),
        Some(value) => Err(format!(
            "it casts {value} to {to:?}, which cannot hold it: runtimes disagree on what becomes of it"
        )),
    }
}

/// The values of an i64 constant, which tract would cut to 32 bits. Dimensions are exact, and tract
/// has no other wide type.
fn wide(input: Option<&Option<Arc<Tensor>>>) -> Result<Option<Vec<i64>>, String> {
    let Some(tensor) =
        input.and_then(Option::as_ref).filter(|tensor| tensor.datum_type() == i64::datum_type())
    else {
        return Ok(None);
    };
    let values = tensor.to_plain_array_view::<i64>().map_err(|error| format!("{error:#}"))?;
    Ok(Some(values.iter().copied().collect()))
}

#[cfg(test)]
mod tests {
    use tract_onnx::tract_hir::internal::{IntoArcTensor, tensor1};

    use super::*;

    #[test]
    fn casts_that_lose_the_number_are_refused() {
        let cast = |value: f32, to: DatumType| check_cast("Cast", &tensor1(&[0.5, value]), to);
        for (value, to) in
            [(127.9, i8::datum_type()), (-128.0, i8::datum_type()), (255.0, u8::datum_type())]
        {
            assert_eq!(cast(value, to), Ok(()));
        }
        for (value, to) in [
            (128.0, i8::datum_type()),
            (-129.0, i8::datum_type()),
            (-1.0, u8::datum_type()),
            (3e9, i32::datum_type()),
            (f32::NAN, i64::datum_type()),
        ] {
            assert!(cast(value, to).is_err(), "{value}");
        }
        assert_eq!(cast(1e30, f32::datum_type()), Ok(()));
    }

    #[test]
    fn ends_that_tract_reads_differently_are_refused() {
        let slice = |start: i64, end: i64, step: i64| {
            let list = |value: i64| Some(tensor1(&[value]).into_arc_tensor());
            check_slice("StridedSlice", &[None, list(start), list(end), list(0), list(step)])
        };
        assert_eq!(slice(0, i64::MAX, 1), Ok(()));
        assert_eq!(slice(-1, i64::MIN, -1), Ok(()));
        assert!(
            slice(0, i64::MIN, 1).is_err(),
            "with a positive step, nothing is before the first"
        );
        assert!(slice(0, 1 << 40, 1).is_err() && slice(i64::MIN, 2, 1).is_err());
    }
}
