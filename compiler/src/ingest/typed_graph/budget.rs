//! Limits the memory and the work of folding a graph's constants.
//!
//! tract folds constants during inference; the interpreter folds those that are withheld from
//! tract. Each has a budget of this kind. Knows sizes and names of operators, not the graph.

use std::sync::Arc;

use tract_onnx::{
    tract_core::ops::einsum::EinSum,
    tract_hir::internal::{Tensor, TypedOp},
};

/// Most elements of one constant that the graph computes.
const MAX_FOLDED: usize = 1 << 26;
/// Most elements of all constants that the graph computes: `FREE_FOLDED`, plus `PER_STORED` for
/// each element that the file stores, and at most `MAX_FOLDED_TOTAL`.
const FREE_FOLDED: usize = 1 << 25;
const PER_STORED: usize = 8;
const MAX_FOLDED_TOTAL: usize = 1 << 28;
/// Most multiplications for computing constants, which take seconds.
const MAX_WORK: usize = 1 << 34;

/// Why a constant cannot be folded: its size is not known.
pub(in crate::ingest) const UNKNOWN_SIZE: &str = "how many elements its result has is not known beforehand: that depends on a symbolic dimension or on \
     values, or is far too many; export with fixed sizes, or store the result instead";

/// The elements and multiplications that remain.
pub(in crate::ingest) struct FoldingBudget {
    limit: usize,
    elements: usize,
    work: usize,
}

impl FoldingBudget {
    /// The budget of a file that stores `stored` elements of tensors.
    pub fn new(stored: usize) -> Self {
        let limit =
            stored.saturating_mul(PER_STORED).saturating_add(FREE_FOLDED).min(MAX_FOLDED_TOTAL);
        Self { limit, elements: limit, work: MAX_WORK }
    }

    /// Pays for constants of `elements` elements that take `work` multiplications. The error says
    /// which limit is exceeded.
    pub fn pay(&mut self, elements: Option<usize>, work: Option<usize>) -> Result<(), String> {
        let elements = elements.ok_or(UNKNOWN_SIZE)?;
        if elements > MAX_FOLDED {
            return Err(format!("it makes a constant of more than {MAX_FOLDED} elements"));
        }
        self.elements = self.elements.checked_sub(elements).ok_or_else(|| {
            format!("the constants computed up to here have more than {} elements", self.limit)
        })?;
        self.work = work.and_then(|work| self.work.checked_sub(work)).ok_or(
            "computing the constants of this graph takes too long; store the result instead",
        )?;
        Ok(())
    }
}

/// An upper bound on the multiplications of an operator on constants, given the elements of its
/// result.
pub(in crate::ingest) fn work(operator: &str, values: &[Arc<Tensor>], out: usize) -> Option<usize> {
    let inputs = values
        .iter()
        .try_fold(0usize, |sum, value| sum.checked_add(value.shape().iter().product()))?;
    let per_element = match operator {
        // The inner dimension is the last of the left factor; Gemm may have it transposed.
        name if name.contains("MatMul") || name.contains("Gemm") => {
            values.first()?.shape().iter().copied().max()?
        }
        name if is_elementwise(name) => 1,
        _ => inputs,
    };
    out.checked_mul(per_element)?.checked_add(inputs)
}

/// As [`work`], for an operator of the typed graph; the bound for contractions is exact.
pub(in crate::ingest) fn work_of(
    op: &dyn TypedOp,
    values: &[Arc<Tensor>],
    out: usize,
) -> Option<usize> {
    let Some(einsum) = op.downcast_ref::<EinSum>() else { return work(&op.name(), values, out) };
    einsum.axes.iter_all_axes().try_fold(1usize, |all, axis| {
        let extents = axis.inputs.iter().zip(values).flat_map(|(positions, value)| {
            positions.iter().filter_map(|position| value.shape().get(*position).copied())
        });
        all.checked_mul(extents.max().unwrap_or(1))
    })
}

/// Operators that read a bounded number of elements for each element of their result.
fn is_elementwise(operator: &str) -> bool {
    const NAMES: [&str; 35] = [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Neg",
        "Cast",
        "Identity",
        "Reshape",
        "Transpose",
        "PermuteAxes",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "AddDims",
        "RmDims",
        "Concat",
        "Slice",
        "StridedSlice",
        "Split",
        "Gather",
        "Expand",
        "MultiBroadcastTo",
        "Tile",
        "Pad",
        "ConstantOfShape",
        "Range",
        "Shape",
        "Size",
        "Sqrt",
        "Pow",
        "Recip",
        "Abs",
        "Min",
        "Max",
        "Where",
    ];
    NAMES.iter().any(|name| operator.contains(name))
}
