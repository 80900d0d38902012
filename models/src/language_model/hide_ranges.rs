//! An identity operator that hides the values of its input from tract's optimiser.
//!
//! tract 0.23.9 follows the elements of a Range through comparisons up to the mask of causal
//! attention, and folds that mask into one constant of the wrong size (`FoldUniformMask` takes
//! `column <= row` for a boundary at one place). Hiding the output of every Range prevents this.
//! Must not know the use of the numbers.

use tract_onnx::{
    model::ParsingContext,
    pb::{GraphProto, NodeProto},
    tract_hir::internal::*,
};

use super::{
    insert_nodes::{DOMAIN, Names},
    pass::Pass,
};

/// The operator.
pub(super) const OPERATOR: &str = "ZkloraOpaque";

/// Hides the output of every Range.
pub(super) fn hide_ranges(graph: &mut GraphProto) {
    let mut names = Names::of(graph);
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        if node.op_type != "Range" {
            nodes.push(node);
            continue;
        }
        let (inner, name) = (names.fresh(), names.fresh());
        let output = std::mem::replace(&mut node.output, vec![inner.clone()]);
        nodes.push(node);
        nodes.push(NodeProto {
            op_type: OPERATOR.into(),
            domain: DOMAIN.into(),
            name,
            input: vec![inner],
            output,
            ..NodeProto::default()
        });
    }
    graph.node = nodes;
}

/// tract's operator for such a node.
pub(super) fn build(
    _: &ParsingContext,
    _: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    Ok((expand(Pass { layer: None }), vec![]))
}
