//! Reads which module of the base model each node of an ONNX file comes from.
//!
//! torch's exporters write it in different places: the older one into the node's name
//! (`/model/layers.0/self_attn/q_proj/MatMul`), the newer one into the node's metadata
//! (`pkg.torch.onnx.name_scopes`). tract's protobuf type of a node lacks the metadata, so it is
//! decoded here from the same bytes. Must not know what the nodes compute.

use prost::Message;
use tract_onnx::pb;

const SCOPES: &str = "pkg.torch.onnx.name_scopes";

/// The part of a ModelProto that leads to the metadata of its nodes; field numbers as in
/// onnx.proto.
#[derive(Clone, PartialEq, Message)]
struct ModelWithMetadata {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphWithMetadata>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphWithMetadata {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeWithMetadata>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeWithMetadata {
    #[prost(message, repeated, tag = "9")]
    metadata_props: Vec<pb::StringStringEntryProto>,
}

/// The module of each node of the main graph, in their order: a path with dots, or none if the file
/// does not state it.
pub(super) fn of_nodes(bytes: &[u8], graph: &pb::GraphProto) -> Vec<Option<String>> {
    // The bytes have been decoded as a ModelProto. If this decoding fails, there is no metadata.
    let metadata = ModelWithMetadata::decode(bytes)
        .ok()
        .and_then(|model| model.graph)
        .unwrap_or_default()
        .node;
    let scopes = |at: usize| {
        let entries = &metadata.get(at)?.metadata_props;
        from_metadata(&entries.iter().find(|entry| entry.key == SCOPES)?.value)
    };
    graph
        .node
        .iter()
        .enumerate()
        .map(|(at, node)| scopes(at).or_else(|| from_name(&node.name)))
        .collect()
}

/// From `['', 'model', 'model.layers.0', 'model.layers.0.q_proj', 'linear']`, whose last entry is
/// the operation.
fn from_metadata(scopes: &str) -> Option<String> {
    let list = scopes.trim().strip_prefix('[')?.strip_suffix(']')?;
    let entries: Vec<&str> =
        list.split(',').map(|entry| entry.trim().trim_matches(['\'', '"'])).collect();
    let (_, modules) = entries.split_last()?;
    modules.last().filter(|module| !module.is_empty()).map(|module| (*module).to_owned())
}

/// From `/model/layers.0/q_proj/MatMul`, whose last part is the operation.
pub(super) fn from_name(name: &str) -> Option<String> {
    let (module, _) = name.strip_prefix('/')?.rsplit_once('/')?;
    Some(module.replace('/', "."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_exporters_say_the_module() {
        let scopes = "['', 'model', 'model.layers.0', 'model.layers.0.q_proj', 'linear_3']";
        assert_eq!(from_metadata(scopes).as_deref(), Some("model.layers.0.q_proj"));
        assert_eq!(
            from_name("/model/layers.0/q_proj/MatMul_1").as_deref(),
            Some("model.layers.0.q_proj")
        );
        for nothing in ["", "[]", "['']", "['', 'add']", "linear", "['a', 'b'"] {
            assert_eq!(from_metadata(nothing), None, "{nothing}");
        }
        assert_eq!(from_name("node_linear"), None);
        assert_eq!(from_name("/Add"), None);
    }
}
