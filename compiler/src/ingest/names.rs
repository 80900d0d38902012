//! Every node gets a name of its own, because tract calls constants, inputs and nodes by one set of
//! names.
//!
//! Names that are unique already stay, so errors name what is in the file; the others get a number
//! behind.

use super::screen::called;
use std::collections::HashSet;
use tract_onnx::pb;

pub(super) fn tell_nodes_apart(proto: &mut pb::ModelProto) {
    let Some(graph) = proto.graph.as_mut() else { return };
    let initialisers = graph.initializer.iter().map(|tensor| tensor.name.clone());
    let mut taken: HashSet<String> =
        initialisers.chain(graph.input.iter().map(|input| input.name.clone())).collect();
    for (serial, node) in graph.node.iter_mut().enumerate() {
        let mut name = called(node).to_string();
        while !taken.insert(name.clone()) {
            name = format!("{name}#{serial}");
        }
        node.name = name;
    }
}
