//! The ONNX file of a language model: read, and its tensors in other files checked before anything
//! opens them.
//!
//! Nothing outside the model's own folder is opened. Must not know what the graph means.

use std::{
    collections::HashSet,
    path::{Component, Path},
};

use prost::Message;
use tract_onnx::pb::{
    self,
    tensor_proto::{DataLocation, DataType},
};

use super::{opaque, surgery};
use crate::Error;

/// Longest ONNX file: protobuf ends at 2 GiB.
const MAX_FILE: u64 = i32::MAX as u64;
/// The most that the tensors in other files may take together, in bytes.
const MAX_EXTERNAL: u64 = 64 << 30;
/// The most nodes of a graph.
const MAX_NODES: usize = 100_000;

/// The model, and the module that each node of its graph comes from.
pub(super) fn read(path: &Path) -> Result<(pb::ModelProto, Vec<Option<String>>), Error> {
    let bytes = zklora_files::read(path, MAX_FILE)?;
    let refuse = |reason: String| Error::Onnx { path: path.to_owned(), reason };
    let model = pb::ModelProto::decode(bytes.as_slice())
        .map_err(|error| refuse(format!("is no ONNX model, or is cut short: {error}")))?;
    let graph =
        model.graph.as_ref().ok_or_else(|| refuse("is no ONNX model: it has no graph".into()))?;
    if graph.node.len() > MAX_NODES {
        return Err(refuse(format!(
            "has {} nodes, over the limit of {MAX_NODES}",
            graph.node.len()
        )));
    }
    check_names(graph).map_err(refuse)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    check_tensors(graph, folder).map_err(refuse)?;
    let scopes = super::scopes::of_nodes(&bytes, graph);
    Ok((model, scopes))
}

/// Every tensor is made once, and no node is one of those that are put in later.
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
        return Err(format!("makes the tensor {} twice", crate::error::quoted(twice)));
    }
    match graph
        .node
        .iter()
        .find(|node| [surgery::OPERATOR, opaque::OPERATOR].contains(&node.op_type.as_str()))
    {
        Some(node) => Err(format!(
            "has the node {}, which is zklora's own; give the model as it was exported",
            crate::error::quoted(&node.name)
        )),
        None => Ok(()),
    }
}

/// Tensors hold as much as their shapes say, and those in other files are in the model's folder.
fn check_tensors(graph: &pb::GraphProto, folder: &Path) -> Result<(), String> {
    let attributes = graph.node.iter().flat_map(|node| &node.attribute);
    let tensors = graph
        .initializer
        .iter()
        .chain(attributes.flat_map(|held| held.t.iter().chain(&held.tensors)));
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
    bytes.ok_or_else(|| format!("has the shape {:?}, which is none or too large", tensor.dims))
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
    let location = entry("location")?.ok_or("is in another file, but which is not said")?;
    let shown = crate::error::quoted(location);
    let plain = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    if location.is_empty()
        || location.contains(['\\', '\0'])
        || !Path::new(location).components().all(plain)
    {
        return Err(format!("is in {shown}, which is not inside the model's folder"));
    }
    let missing =
        |error| format!("is in {shown}, which cannot be read: {error}; keep it beside the model");
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let folder = folder.canonicalize().map_err(missing)?;
    let path = folder.join(location).canonicalize().map_err(missing)?;
    if !path.starts_with(&folder) {
        return Err(format!("is in {shown}, a link out of the model's folder"));
    }
    let metadata = path.metadata().map_err(missing)?;
    if !metadata.is_file() {
        return Err(format!("is in {shown}, which is not a file"));
    }
    let offset = number("offset")?.unwrap_or(0);
    let rest = metadata.len().saturating_sub(offset);
    let length = number("length")?.unwrap_or(rest);
    if length != needed || length > rest {
        return Err(format!(
            "needs {needed} bytes; {length} bytes from byte {offset} of {shown}, which has {}, are not that: the file is cut short or \
             another model's",
            metadata.len()
        ));
    }
    Ok(())
}
