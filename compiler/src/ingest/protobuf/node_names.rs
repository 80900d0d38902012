//! Makes the names of nodes unique, because tract has one set of names for constants, inputs and
//! nodes.
//!
//! Unique names stay, so errors use the names of the file; others get a number as a suffix.

use std::collections::HashSet;

use tract_onnx::pb;

pub(in crate::ingest) fn make_unique(proto: &mut pb::ModelProto) {
    let Some(graph) = proto.graph.as_mut() else { return };
    let initialisers = graph.initializer.iter().map(|tensor| tensor.name.clone());
    let mut taken: HashSet<String> =
        initialisers.chain(graph.input.iter().map(|input| input.name.clone())).collect();
    for (serial, node) in graph.node.iter_mut().enumerate() {
        let mut name = name_of(node).to_string();
        while !taken.insert(name.clone()) {
            name = format!("{name}#{serial}");
        }
        node.name = name;
    }
}

/// A node's name; an unnamed node has the name of its first output.
pub(in crate::ingest) fn name_of(node: &pb::NodeProto) -> &str {
    match node.output.first() {
        Some(output) if node.name.is_empty() => output,
        _ => &node.name,
    }
}
