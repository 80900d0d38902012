//! Reads the ONNX file of a language model, and checks its tensors in other files before tract
//! opens them.
//!
//! No file outside the model's folder is opened. Must not know what the graph means.

use std::{collections::HashSet, path::Path};

use prost::Message;
use tract_onnx::pb::{
    self,
    tensor_proto::{DataLocation, DataType},
};
use zklora_files::resolve_inside;

use super::{cache_branch, hide_ranges, insert_nodes, mark_layers};
use crate::Error;

/// Longest ONNX file: protobuf messages have at most 2 GiB.
const MAX_FILE: u64 = i32::MAX as u64;
/// Most bytes of all tensors in other files together.
const MAX_EXTERNAL: u64 = 64 << 30;
/// Most nodes of a graph.
const MAX_NODES: usize = 100_000;

/// The model, and the module that each node of its graph comes from.
pub(super) fn read(path: &Path) -> Result<(pb::ModelProto, Vec<Option<String>>), Error> {
    let bytes = zklora_files::read(path, MAX_FILE)?;
    let refuse = |reason: String| Error::Onnx { path: path.to_owned(), reason };
    let mut model = pb::ModelProto::decode(bytes.as_slice())
        .map_err(|error| refuse(format!("is not an ONNX model, or is cut short: {error}")))?;
    let graph = model
        .graph
        .as_mut()
        .ok_or_else(|| refuse("is not an ONNX model: it has no graph".into()))?;
    let mut scopes = super::scopes::of_nodes(&bytes, graph);
    cache_branch::take(graph, &mut scopes).map_err(refuse)?;
    if graph.node.len() > MAX_NODES {
        return Err(refuse(format!(
            "has {} nodes, over the limit of {MAX_NODES}",
            graph.node.len()
        )));
    }
    check_names(graph).map_err(refuse)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    check_tensors(graph, folder).map_err(refuse)?;
    Ok((model, scopes))
}

/// Every tensor is produced once, and no node has an operator that zklora adds later.
fn check_names(graph: &pb::GraphProto) -> Result<(), String> {
    let stored = graph.initializer.iter().map(|tensor| tensor.name.as_str());
    let made = graph
        .node
        .iter()
        .flat_map(|node| &node.output)
        .map(String::as_str)
        .filter(|name| !name.is_empty());
    let mut seen = HashSet::new();
    if let Some(twice) = stored.chain(made).find(|name| !seen.insert(*name)) {
        return Err(format!(
            "produces the tensor {} twice; export the model again",
            crate::error::quoted(twice)
        ));
    }
    match graph.node.iter().find(|node| {
        [insert_nodes::OPERATOR, hide_ranges::OPERATOR, mark_layers::OPERATOR]
            .contains(&node.op_type.as_str())
    }) {
        Some(node) => Err(format!(
            "has the node {} with an operator that zklora adds itself; pass the model as it was exported",
            crate::error::quoted(&node.name)
        )),
        None => Ok(()),
    }
}

/// Tensors have as many bytes as their shapes need, and tensors in other files are in the model's
/// folder.
fn check_tensors(graph: &pb::GraphProto, folder: &Path) -> Result<(), String> {
    let attributes = graph.node.iter().flat_map(|node| &node.attribute);
    let tensors =
        graph.initializer.iter().chain(attributes.flat_map(|of| of.t.iter().chain(&of.tensors)));
    let mut left = MAX_EXTERNAL;
    for tensor in tensors {
        let refuse =
            |what: String| format!("tensor {}: {what}", crate::error::quoted(&tensor.name));
        let needed = bytes_of(tensor).map_err(refuse)?;
        if tensor.data_location == Some(DataLocation::External as i32) {
            check_external(tensor, folder, needed).map_err(refuse)?;
            left = left
                .checked_sub(needed)
                .ok_or_else(|| format!("has more than {MAX_EXTERNAL} bytes in other files"))?;
        } else if !tensor.raw_data.is_empty() && tensor.raw_data.len() as u64 != needed {
            return Err(refuse(format!(
                "has {} bytes where its shape {:?} needs {needed}",
                tensor.raw_data.len(),
                tensor.dims
            )));
        }
    }
    Ok(())
}

/// Bytes that a tensor's shape and type need.
fn bytes_of(tensor: &pb::TensorProto) -> Result<u64, String> {
    let element = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Bool | DataType::Uint8 | DataType::Int8) => 1,
        Ok(DataType::Float16 | DataType::Uint16 | DataType::Int16) => 2,
        Ok(DataType::Float | DataType::Uint32 | DataType::Int32) => 4,
        Ok(DataType::Double | DataType::Uint64 | DataType::Int64) => 8,
        Ok(other) => {
            return Err(format!("is of type {}; export the model in float32", other.as_str_name()));
        }
        Err(_) => return Err(format!("is of type {}, which is unknown", tensor.data_type)),
    };
    let bytes = tensor
        .dims
        .iter()
        .try_fold(element, |bytes: u64, &dim| bytes.checked_mul(u64::try_from(dim).ok()?));
    bytes.ok_or_else(|| format!("has the shape {:?}, which is negative or too large", tensor.dims))
}

fn check_external(tensor: &pb::TensorProto, folder: &Path, needed: u64) -> Result<(), String> {
    let entry = |key: &str| {
        let mut values = tensor
            .external_data
            .iter()
            .filter(|entry| entry.key == key)
            .map(|entry| entry.value.as_str());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(format!("gives its {key} twice")),
            (value, None) => Ok(value),
        }
    };
    let number = |key: &str| {
        entry(key)?
            .map(|value| {
                value.parse::<u64>().map_err(|_| format!("its {key} is not a number of bytes"))
            })
            .transpose()
    };
    let location = entry("location")?
        .ok_or("is in another file whose name is missing; export the model again")?;
    let path = resolve_inside(folder, location)
        .map_err(|error| format!("is in another file: {error}; keep it beside the model"))?;
    let size =
        path.metadata().map_err(|error| format!("is in `{}`: {error}", path.display()))?.len();
    let offset = number("offset")?.unwrap_or(0);
    let rest = size.saturating_sub(offset);
    let length = number("length")?.unwrap_or(rest);
    if length != needed || length > rest {
        return Err(format!(
            "needs {needed} bytes, but the model names {length} bytes from byte {offset} of {}, which has {size}: the file is \
             cut short or belongs to another model",
            crate::error::quoted(location)
        ));
    }
    Ok(())
}
