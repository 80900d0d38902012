//! Loads tensors that are stored beside the model ("external data") into the protobuf.
//!
//! Only this part of ingesting opens files whose names come from the model. It never opens a file
//! outside the model's folder, and reads only as many bytes as the tensor's shape needs.

use std::{
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use prost::Message;
use tract_onnx::pb::{self, tensor_proto::DataLocation};
use zklora_files::{open, resolve_inside};

use super::{decode::decode, screen::tensors, screen_tensor::bytes_per_element};
use crate::ingest::error::IngestError;

/// Most bytes of all external tensors of a model together.
pub const MAX_EXTERNAL_BYTES: usize = 1 << 30;

/// Loads every external tensor of the graph from `folder`. Shapes must have been screened.
pub(in crate::ingest) fn load(
    proto: &mut pb::ModelProto,
    name: &str,
    folder: Option<&Path>,
) -> Result<(), IngestError> {
    let Some(graph) = proto.graph.as_mut() else { return Ok(()) };
    let attributes = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    let tensors = graph
        .initializer
        .iter_mut()
        .chain(attributes.flat_map(|a| a.t.iter_mut().chain(&mut a.tensors)));
    let mut left = MAX_EXTERNAL_BYTES;
    for tensor in tensors.filter(|tensor| is_external(tensor)) {
        let refuse = |what: String| IngestError::External {
            name: name.into(),
            tensor: tensor.name.clone(),
            what,
        };
        let bytes = bytes_of(tensor, folder, left).map_err(refuse)?;
        left -= bytes.len();
        tensor.raw_data = bytes;
        tensor.external_data.clear();
        tensor.data_location = Some(DataLocation::Default as i32);
    }
    Ok(())
}

/// The files that hold a model's external tensors, each once, in the order of their paths.
///
/// # Errors
/// [`IngestError`]: a damaged model, or a location that leaves `folder`.
pub fn external_files(
    bytes: &[u8],
    name: &str,
    folder: &Path,
) -> Result<Vec<PathBuf>, IngestError> {
    let proto = decode(bytes, name)?;
    let Some(graph) = &proto.graph else { return Ok(Vec::new()) };
    let mut files = std::collections::BTreeSet::new();
    for tensor in tensors(graph).filter(|tensor| is_external(tensor)) {
        let refuse = |what: String| IngestError::External {
            name: name.into(),
            tensor: tensor.name.clone(),
            what,
        };
        let location = entry(tensor, "location").map_err(refuse)?.unwrap_or_default();
        files.insert(resolve_inside(folder, location).map_err(|error| refuse(error.to_string()))?);
    }
    Ok(files.into_iter().collect())
}

/// The same model with all tensors in one file, for readers without external data.
///
/// # Errors
/// [`IngestError`]: a damaged model, or a tensor that cannot be read.
pub fn embedded(bytes: &[u8], name: &str, folder: Option<&Path>) -> Result<Vec<u8>, IngestError> {
    let mut proto = decode(bytes, name)?;
    if !proto.graph.as_ref().is_some_and(|graph| tensors(graph).any(is_external)) {
        return Ok(bytes.to_vec());
    }
    load(&mut proto, name, folder)?;
    Ok(proto.encode_to_vec())
}

fn is_external(tensor: &pb::TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32) || !tensor.external_data.is_empty()
}

fn bytes_of(
    tensor: &pb::TensorProto,
    folder: Option<&Path>,
    left: usize,
) -> Result<Vec<u8>, String> {
    let folder = folder.ok_or(
        "only the bytes of the model were given, and this tensor is in another file; pass the path of the .onnx file, \
         or save the model with all data in one file",
    )?;
    let needed = size_of(tensor)?;
    if needed > left {
        return Err(format!(
            "all external data together exceeds the limit of {MAX_EXTERNAL_BYTES} bytes"
        ));
    }
    let location = entry(tensor, "location")?.ok_or("it names no file")?;
    let offset = number(tensor, "offset")?.unwrap_or(0);
    let path = resolve_inside(folder, location).map_err(|error| error.to_string())?;
    let (mut file, size) = open(&path, u64::MAX)
        .map_err(|error| format!("`{location}` cannot be opened: {}", error.why))?;
    let rest = size.checked_sub(offset).ok_or_else(|| {
        format!("it begins at byte {offset} of `{location}`, which has only {size} bytes")
    })?;
    let length = number(tensor, "length")?.unwrap_or(rest);
    if length != needed as u64 {
        return Err(format!(
            "its shape {:?} needs {needed} bytes, but {length} are stored",
            tensor.dims
        ));
    }
    if length > rest {
        return Err(format!("it ends beyond the end of `{location}`, which has {size} bytes"));
    }
    let mut bytes = vec![0; needed];
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|error| format!("`{location}` cannot be read: {error}"))?;
    Ok(bytes)
}

/// Number of bytes that the tensor's shape and type need.
fn size_of(tensor: &pb::TensorProto) -> Result<usize, String> {
    let element = bytes_per_element(tensor.data_type)
        .ok_or_else(|| format!("numbers of type {} are not supported", tensor.data_type))?;
    let bytes = tensor
        .dims
        .iter()
        .try_fold(element, |bytes: usize, dim| bytes.checked_mul(usize::try_from(*dim).ok()?));
    bytes.ok_or_else(|| format!("its shape {:?} is too large", tensor.dims))
}

fn number(tensor: &pb::TensorProto, key: &str) -> Result<Option<u64>, String> {
    let parse = |value: &str| {
        value.parse().map_err(|_| format!("its {key} `{value}` is not a number of bytes"))
    };
    entry(tensor, key)?.map(parse).transpose()
}

fn entry<'a>(tensor: &'a pb::TensorProto, key: &str) -> Result<Option<&'a str>, String> {
    let mut entries = tensor.external_data.iter().filter(|entry| entry.key == key);
    match (entries.next(), entries.next()) {
        (_, Some(_)) => Err(format!("it gives its {key} twice")),
        (entry, None) => Ok(entry.map(|entry| entry.value.as_str())),
    }
}
