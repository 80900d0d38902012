//! Limits the length of the formulas of symbolic sizes.
//!
//! A graph may compute with the sizes of its input, and tract expands products of sums: a few nodes
//! that square a size and add it give a formula of millions of parts. So formulas are checked after
//! every node. Knows sizes, not operators.

use tract_onnx::tract_core::internal::{DatumType, TDim, Tensor};

/// Most symbols, numbers and operations of one size; `batch * sequence / 8` has five.
const MAX_PARTS: usize = 64;

/// Refuses a size with a long formula.
pub(in crate::ingest) fn check_sizes<'a>(
    sizes: impl IntoIterator<Item = &'a TDim>,
) -> Result<(), String> {
    if sizes.into_iter().all(|size| remaining(size, MAX_PARTS).is_some()) {
        return Ok(());
    }
    Err(format!(
        "it computes a size from symbolic ones by a formula of more than {MAX_PARTS} parts; export with fixed sizes"
    ))
}

/// As [`check_sizes`], for the values of a tensor, if they are sizes.
pub(in crate::ingest) fn check_tensor(tensor: &Tensor) -> Result<(), String> {
    match tensor.to_plain_array_view::<TDim>() {
        Ok(sizes) if tensor.datum_type() == DatumType::TDim => check_sizes(sizes.iter()),
        _ => Ok(()),
    }
}

/// `parts` minus the parts of this formula, if the result is not negative.
fn remaining(size: &TDim, parts: usize) -> Option<usize> {
    let left = parts.checked_sub(1)?;
    match size {
        TDim::Val(_) | TDim::Sym(_) => Some(left),
        TDim::Add(of) | TDim::Mul(of) | TDim::Broadcast(of) | TDim::Min(of) | TDim::Max(of) => {
            of.iter().try_fold(left, |left, part| remaining(part, left))
        }
        TDim::MulInt(_, of) | TDim::Div(of, _) => remaining(of, left),
        TDim::Ge(a, b) | TDim::Eq(a, b) => remaining(a, left).and_then(|left| remaining(b, left)),
    }
}
