//! In which versions of ONNX's operator set an operator changed its form or meaning.
//!
//! For functions that import another version than their model. Lists what adapters consist of; of
//! any other operator nothing is known. New attributes and inputs that may be left out are no
//! change, and neither are further types.

use std::ops::RangeInclusive;

/// Operators, and the versions since which they are to be read differently.
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

/// Does an operator mean the same in all these versions, as far as is known here?
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
        assert!(!is_same("Softmax", &(13..=17)), "nothing is known of it");
    }
}
