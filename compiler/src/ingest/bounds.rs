//! Starts and ends of Slice that tract 0.23 would read wrongly: it keeps 32 bits of them.
//!
//! Knows tract's operator and its constant inputs, not the tensor that is sliced.

use std::sync::Arc;
use tract_onnx::tract_hir::internal::{Datum, Tensor};

/// What tract itself takes for "to the end", besides what fits in 32 bits.
const ENDS: [i64; 3] = [i64::MAX, i64::MIN, i64::MIN + 1];

/// Says what is wrong with the starts or ends (inputs 1 and 2) of a slice, if anything is.
pub(super) fn readable(operator: &str, inputs: &[Option<Arc<Tensor>>]) -> Result<(), String> {
    if operator != "StridedSlice" {
        return Ok(());
    }
    for (at, exceptions) in [(1, &[][..]), (2, &ENDS[..])] {
        let Some(tensor) = inputs.get(at).and_then(Option::as_ref) else { continue };
        // Dimensions are exact, and tract has no other wide type.
        if tensor.datum_type() != i64::datum_type() {
            continue;
        }
        let values = tensor.to_plain_array_view::<i64>().map_err(|error| format!("{error:#}"))?;
        let far = values.iter().find(|value| i32::try_from(**value).is_err() && !exceptions.contains(value));
        if let Some(far) = far {
            return Err(format!(
                "it slices from or to {far}; write starts and ends within 32 bits, or {} for the end",
                i64::MAX
            ));
        }
    }
    Ok(())
}
