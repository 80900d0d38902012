//! Replaces reductions over no axes by Identity, because tract 0.23 reduces all axes instead.
//!
//! With `noop_with_empty_axes`, empty axes mean that nothing is reduced; without it, all axes are.

use tract_onnx::pb;

/// Operators that return their input if they reduce no axis, with the operator set that added
/// `noop_with_empty_axes`.
const REDUCTIONS: [(&str, i64); 2] = [("ReduceSum", 13), ("ReduceMean", 18)];

/// Replaces every reduction over no axes.
pub(in crate::ingest) fn replace_by_identity(proto: &mut pb::ModelProto) {
    let version =
        proto.opset_import.iter().find(|import| matches!(import.domain.as_str(), "" | "ai.onnx"));
    let version = version.map_or(0, |import| import.version);
    let Some(graph) = proto.graph.as_mut() else { return };
    let constants =
        graph.node.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
            let value = node
                .attribute
                .iter()
                .find(|attribute| matches!(attribute.name.as_str(), "value" | "value_ints"))?;
            let is_empty = value.t.as_ref().map_or(value.ints.is_empty(), has_no_elements);
            node.output.first().filter(|_| is_empty).cloned()
        });
    let initialisers = graph
        .initializer
        .iter()
        .filter(|tensor| has_no_elements(tensor))
        .map(|tensor| tensor.name.clone());
    let empty: std::collections::HashSet<String> = constants.chain(initialisers).collect();
    for node in &mut graph.node {
        let supports_noop =
            REDUCTIONS.iter().any(|(name, since)| node.op_type == *name && version >= *since);
        let is_noop = node
            .attribute
            .iter()
            .any(|attribute| attribute.name == "noop_with_empty_axes" && attribute.i == 1);
        if supports_noop
            && is_noop
            && node.input.get(1).is_none_or(|axes| axes.is_empty() || empty.contains(axes))
        {
            node.op_type = "Identity".into();
            node.attribute.clear();
            node.input.truncate(1);
        }
    }
}

fn has_no_elements(tensor: &pb::TensorProto) -> bool {
    tensor.dims.contains(&0)
}
