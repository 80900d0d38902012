//! Finds constants that a graph computes with functions whose last bits differ between machines.
//!
//! A constant that is stored, or made of stored ones by moves and by the operations that IEEE 754
//! defines to the last bit, is the same everywhere. One that is made with `Pow`, `Tanh` or a matrix
//! product is not. Must not know the use of a constant.

use std::collections::HashSet;

use tract_onnx::pb::{GraphProto, NodeProto};

/// Operators whose results have the same bits on every machine, given the same operands.
const EXACT: [&str; 54] = [
    "Abs",
    "Add",
    "And",
    "Cast",
    "CastLike",
    "Ceil",
    "Clip",
    "Compress",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "CumSum",
    "Div",
    "Equal",
    "Expand",
    "EyeLike",
    "Flatten",
    "Floor",
    "Gather",
    "GatherElements",
    "GatherND",
    "Greater",
    "GreaterOrEqual",
    "Identity",
    "IsInf",
    "IsNaN",
    "Less",
    "LessOrEqual",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "OneHot",
    "Or",
    "Pad",
    "Range",
    "Reciprocal",
    "Reshape",
    "ScatterND",
    "Shape",
    "Sign",
    "Size",
    "Slice",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tile",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Where",
];

/// The first node that makes a constant with another operator, for graphs whose nodes are sorted.
pub(super) fn first_inexact(graph: &GraphProto) -> Option<&NodeProto> {
    let mut constants: HashSet<&str> =
        graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    for node in &graph.node {
        let mut inputs = node.input.iter().filter(|input| !input.is_empty());
        if !inputs.all(|input| constants.contains(input.as_str())) {
            continue;
        }
        if !EXACT.contains(&node.op_type.as_str()) {
            return Some(node);
        }
        constants.extend(node.output.iter().map(String::as_str));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(operator: &str, input: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: operator.into(),
            input: input.iter().map(|name| (*name).into()).collect(),
            output: vec![output.into()],
            ..NodeProto::default()
        }
    }

    #[test]
    fn only_constants_count() {
        let graph = |operator: &str, input: &[&str]| GraphProto {
            node: vec![
                node("Constant", &[], "a"),
                node("Sqrt", &["a"], "b"),
                node(operator, input, "c"),
            ],
            ..GraphProto::default()
        };
        assert!(first_inexact(&graph("Mul", &["a", "b"])).is_none());
        assert!(first_inexact(&graph("Tanh", &["b"])).is_some());
        assert!(first_inexact(&graph("Pow", &["a", "b"])).is_some());
        // A value of tokens may go through any function.
        assert!(first_inexact(&graph("Pow", &["x", "b"])).is_none());
    }
}
