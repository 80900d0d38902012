//! How far a sequence is padded, and how long it may be.
//!
//! A sequence that grows token by token is run again from its beginning. Its earlier rows come out
//! with the same bits only if the sums over the sequence (attention) are added up in the same
//! order, and tract's kernels choose that order by the length: with exact lengths almost all rows
//! differ in some last bit, with multiples of 8, 16 or 32 still many. With multiples of 64 none
//! did, in any of the models of the tests and in SmolLM2, up to 640 tokens. That was measured, not
//! proven: the kernels depend on the processor, so rows are the same on one machine, and somebody
//! else's machine may round in another way.
//!
//! Padding comes last and causal attention never looks ahead, so it changes no token's row; what is
//! put out for it is dropped.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb;

use super::layers::Layer;

/// Sequences are padded to a multiple of so many tokens.
pub(super) const STEP: usize = 64;

/// The length that a sequence is padded to; not beyond the model's table of positions, so that rows
/// of a sequence that comes within [`STEP`] of its end are the same among themselves, but may
/// differ from those of shorter ones.
pub(super) fn padded(tokens: usize, positions: Option<usize>) -> usize {
    let padded = tokens.next_multiple_of(STEP);
    positions.map_or(padded, |positions| padded.min(positions.max(tokens)))
}

/// Entries of the model's table of positions: a table whose rows are looked up by something that
/// does not depend on which tokens there are. None if it has no such table.
pub(super) fn positions(graph: &pb::GraphProto, layers: &[Layer]) -> Option<usize> {
    let tables = layers.iter().filter(|layer| graph.node[layer.node].op_type == "Gather");
    tables.filter(|table| !depends_on_tokens(graph, &table.x)).map(|table| table.size[0]).min()
}

fn depends_on_tokens(graph: &pb::GraphProto, tensor: &str) -> bool {
    let nodes = graph
        .node
        .iter()
        .flat_map(|node| node.output.iter().map(move |output| (output.as_str(), node)));
    let producers: HashMap<&str, &pb::NodeProto> = nodes.collect();
    let mut seen = HashSet::from([tensor]);
    let mut left = vec![tensor];
    while let Some(name) = left.pop() {
        if name == "input_ids" {
            return true;
        }
        // A shape is the same whatever the tokens are.
        let Some(node) = producers.get(name).filter(|node| node.op_type != "Shape") else {
            continue;
        };
        left.extend(node.input.iter().map(String::as_str).filter(|input| seen.insert(input)));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_ends_where_positions_end() {
        assert_eq!([1, 64, 65].map(|tokens| padded(tokens, None)), [64, 64, 128]);
        assert_eq!([1, 64, 65, 100].map(|tokens| padded(tokens, Some(100))), [64, 64, 100, 100]);
    }
}
