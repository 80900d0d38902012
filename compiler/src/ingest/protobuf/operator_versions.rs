//! Lists the versions of ONNX's operator set in which an operator changed its form or meaning.
//!
//! This is for functions that import another version than their model. The list has the operators
//! that adapters consist of; nothing is known of others. New optional attributes or inputs and
//! further types do not count as changes.

use std::ops::RangeInclusive;

/// Operators, and the versions that changed them.
const CHANGES: &[(&str, &[i64])] = &[
    ("Add", &[7]),
    ("Cast", &[6]),
    ("Concat", &[4]),
    ("Constant", &[]),
    ("Conv", &[]),
    ("Div", &[7]),
    ("Einsum", &[]),
    ("Expand", &[]),
    ("Flatten", &[]),
    ("Gather", &[]),
    ("Gemm", &[7]),
    ("Identity", &[]),
    ("MatMul", &[]),
    ("Mean", &[8]),
    ("Mul", &[7]),
    ("Neg", &[]),
    ("ReduceMean", &[18]),
    ("ReduceSum", &[13]),
    ("Reshape", &[5]),
    ("Shape", &[]),
    ("Slice", &[10]),
    ("Split", &[2, 13, 18]),
    ("Sqrt", &[]),
    ("Squeeze", &[13]),
    ("Sub", &[7]),
    ("Sum", &[8]),
    ("Transpose", &[]),
    ("Unsqueeze", &[13]),
    ("Where", &[]),
];

/// Whether an operator is known to have the same meaning in all these versions.
pub(in crate::ingest) fn is_same(operator: &str, versions: &RangeInclusive<i64>) -> bool {
    let known = CHANGES.iter().find(|(name, _)| *name == operator);
    known.is_some_and(|(_, changes)| {
        changes.iter().all(|at| !versions.contains(at) || at == versions.start())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_only_between_two_versions() {
        assert!(is_same("ReduceSum", &(13..=17)));
        assert!(!is_same("ReduceSum", &(12..=13)));
        assert!(is_same("MatMul", &(7..=23)));
        assert!(!is_same("Softmax", &(13..=17)), "the operator is not in the list");
    }
}
