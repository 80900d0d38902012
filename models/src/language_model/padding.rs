//! Chooses the length that a sequence is padded to, and finds the longest sequence of a model.
//!
//! A sequence that grows token by token is run again from its beginning. Its earlier rows have the
//! same bits only if the sums over the sequence (attention) are added in the same order, and
//! tract's kernels choose that order by the length. With exact lengths almost all rows differ in
//! some last bit; with multiples of 8, 16 or 32 many still do. With multiples of 64 none did, in
//! any of the models of the tests and in SmolLM2, up to 640 tokens. This is measured, not proven:
//! the kernels depend on the processor, so rows are the same on one machine, and another machine
//! may round differently.
//!
//! Padding comes last and causal attention never looks ahead, so padding changes no token's row.
//! Its own rows are dropped.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb;

use super::layers::Layer;

/// Sequences are padded to a multiple of this many tokens.
pub(super) const STEP: usize = 64;

/// The length that a sequence is padded to, never beyond the model's table of positions. So rows of
/// sequences that end within [`STEP`] of the table's end are the same among themselves, but may
/// differ from those of shorter sequences.
pub(super) fn padded(tokens: usize, positions: Option<usize>) -> usize {
    let padded = tokens.next_multiple_of(STEP);
    positions.map_or(padded, |positions| padded.min(positions.max(tokens)))
}

/// Entries of the model's table of positions: a table whose look-up does not depend on the tokens
/// themselves. None if the model has no such table.
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
        // A shape does not depend on the tokens' values.
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
