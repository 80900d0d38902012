//! Pad: only the constant mode has a value to pad with.
//!
//! ONNX ignores the third input in other modes; tract 0.23 takes any third input for the constant mode. Knows nodes, not values.

use tract_onnx::pb;

pub(super) fn drop_values_without_use(proto: &mut pb::ModelProto) {
    let nodes = proto.graph.iter_mut().flat_map(|graph| &mut graph.node).filter(|node| node.op_type == "Pad");
    for node in nodes {
        let mode = node.attribute.iter().find(|attribute| attribute.name == "mode");
        if mode.is_some_and(|mode| mode.s != b"constant")
            && let Some(value) = node.input.get_mut(2)
        {
            value.clear();
        }
    }
}
