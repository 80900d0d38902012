//! The refusals that operators of all families share.

use crate::ingest::{affine::value::Value, error::Reason};

/// The only input of an operator.
pub(super) fn single(inputs: &[Value]) -> Result<&Value, Reason> {
    match inputs {
        [input] => Ok(input),
        _ => Err(Reason::new(format!("it has {} inputs where one is expected", inputs.len()))),
    }
}

/// The operator is none of those that are supported.
pub(super) fn unsupported() -> Reason {
    Reason::new(
        "it is not linear in the input, or not supported; an adapter module is MatMul/Gemm/Einsum chains with \
         constant weights, scaling, bias and reshapes: export the delta of one LoRA layer in eval mode",
    )
}
