//! An identity operator that follows every layer, so that layers can be told apart in tract's
//! graph, where names of ONNX nodes are lost.
//!
//! Must not know what the layers are for.

use tract_onnx::{
    model::ParsingContext,
    pb::{AttributeProto, GraphProto, NodeProto, attribute_proto::AttributeType},
    tract_hir::internal::*,
};

use super::{
    insert_nodes::{DOMAIN, Names},
    layers::Layer,
    pass::Pass,
};

/// The operator.
pub(super) const OPERATOR: &str = "ZkloraLayer";
/// Its attribute: the index of the layer.
const LAYER: &str = "layer";

/// Puts a mark behind the node of every layer. The mark's output has the name of the node's, so
/// that readers and outputs of the graph see the mark.
pub(super) fn mark_layers(graph: &mut GraphProto, layers: &[Layer]) {
    let mut names = Names::of(graph);
    let mut marks: Vec<Option<NodeProto>> = vec![None; graph.node.len()];
    for (index, layer) in layers.iter().enumerate() {
        let Some(output) = graph.node[layer.node].output.first_mut() else { continue };
        let inner = names.fresh();
        let output = std::mem::replace(output, inner.clone());
        let attribute = AttributeProto {
            name: LAYER.into(),
            r#type: AttributeType::Int as i32,
            i: index as i64,
            ..AttributeProto::default()
        };
        marks[layer.node] = Some(NodeProto {
            op_type: OPERATOR.into(),
            domain: DOMAIN.into(),
            name: names.fresh(),
            input: vec![inner],
            output: vec![output],
            attribute: vec![attribute],
            ..NodeProto::default()
        });
    }
    let nodes = std::mem::take(&mut graph.node).into_iter().zip(marks);
    graph.node = nodes.flat_map(|(node, mark)| std::iter::once(node).chain(mark)).collect();
}

/// tract's operator for such a node.
pub(super) fn build(
    _: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let layer: i64 = node.get_attr(LAYER)?;
    Ok((expand(Pass { layer: Some(usize::try_from(layer)?) }), vec![]))
}
