//! Reads the default values of the attributes of a model's functions.
//!
//! tract's protobuf types lack them, so they are decoded separately from the same bytes, with the
//! field numbers of onnx.proto.

use prost::Message;
use tract_onnx::pb;

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, repeated, tag = "25")]
    functions: Vec<Function>,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "10")]
    domain: String,
    #[prost(message, repeated, tag = "11")]
    attributes: Vec<pb::AttributeProto>,
}

/// Domain, name and attributes of every function, from the file's bytes; none if they cannot be
/// read.
pub(in crate::ingest) fn read(bytes: &[u8]) -> Vec<(String, String, Vec<pb::AttributeProto>)> {
    let functions = Model::decode(bytes).map_or(vec![], |model| model.functions);
    functions
        .into_iter()
        .map(|function| (function.domain, function.name, function.attributes))
        .collect()
}
