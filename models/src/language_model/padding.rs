//! How far a sequence is padded, and how long it may be.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb;

use super::layers::Layer;

/// Sequences are padded to a multiple of so many tokens.
pub(super) const STEP: usize = 32;

/// The length that a sequence is padded to.
pub(super) fn padded(tokens: usize, positions: Option<usize>) -> usize {
    let padded = tokens.next_multiple_of(std::env::var("STEP").ok().and_then(|s| s.parse().ok()).unwrap_or(STEP));
    positions.map_or(padded, |positions| padded.min(positions.max(tokens)))
}

/// Entries of the model's table of positions: a table whose rows are looked up by something that does not depend on which tokens
/// there are. None if it has no such table.
pub(super) fn positions(graph: &pb::GraphProto, layers: &[Layer]) -> Option<usize> {
    let tables = layers.iter().filter(|layer| graph.node[layer.node].op_type == "Gather");
    tables.filter(|table| !depends_on_tokens(graph, &table.x)).map(|table| table.size[0]).min()
}

fn depends_on_tokens(graph: &pb::GraphProto, tensor: &str) -> bool {
    let nodes = graph.node.iter().flat_map(|node| node.output.iter().map(move |output| (output.as_str(), node)));
    let producers: HashMap<&str, &pb::NodeProto> = nodes.collect();
    let mut seen = HashSet::from([tensor]);
    let mut left = vec![tensor];
    while let Some(name) = left.pop() {
        if name == "input_ids" {
            return true;
        }
        // A shape is the same whatever the tokens are.
        let Some(node) = producers.get(name).filter(|node| node.op_type != "Shape") else { continue };
        left.extend(node.input.iter().map(String::as_str).filter(|input| seen.insert(input)));
    }
    false
}
