//! Checks one stored tensor: the limits of its shape, and that its data fit the shape.

use tract_onnx::pb::{self, tensor_proto::DataType};

use crate::{ingest::error::IngestError, matrix::MAX_ELEMENTS};

/// Most dimensions of a tensor.
pub(in crate::ingest) const MAX_RANK: usize = 8;

/// Refuses shapes that are too large. Empty tensors are valid: they stand for omitted inputs.
pub(in crate::ingest) fn shape(tensor: &pb::TensorProto, name: &str) -> Result<(), IngestError> {
    let malformed = |what: String| IngestError::Malformed { name: name.into(), what };
    if tensor.dims.len() > MAX_RANK {
        return Err(malformed(format!(
            "tensor `{}` has {} dimensions",
            tensor.name,
            tensor.dims.len()
        )));
    }
    if elements(tensor).is_none() {
        let what = format!("tensor `{}` of shape {:?}", tensor.name, tensor.dims);
        return Err(IngestError::TooLarge { name: name.into(), what, limit: MAX_ELEMENTS });
    }
    Ok(())
}

/// Whether it is an empty tensor of floating-point numbers.
pub(in crate::ingest) fn is_empty(tensor: &pb::TensorProto) -> bool {
    let float = matches!(
        DataType::try_from(tensor.data_type),
        Ok(DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16)
    );
    float && elements(tensor) == Some(0)
}

/// Refuses a tensor whose number of stored elements is not that of its shape.
pub(in crate::ingest) fn payload(tensor: &pb::TensorProto, name: &str) -> Result<(), IngestError> {
    let Some(expected) = elements(tensor) else { return Ok(()) };
    let Some(width) = bytes_per_element(tensor.data_type) else { return Ok(()) };
    let typed = [
        tensor.float_data.len(),
        tensor.int32_data.len(),
        tensor.int64_data.len(),
        tensor.double_data.len(),
        tensor.uint64_data.len(),
    ];
    let fits = if tensor.raw_data.is_empty() {
        typed.iter().all(|len| *len == 0 || *len == expected)
            && typed.iter().sum::<usize>() == expected
    } else {
        tensor.raw_data.len() == expected * width
    };
    if fits {
        return Ok(());
    }
    let what = format!(
        "tensor `{}` of shape {:?} does not store {expected} element(s)",
        tensor.name, tensor.dims
    );
    Err(IngestError::Malformed { name: name.into(), what })
}

/// Bytes of one element of `raw_data`; none for unsupported types.
pub(in crate::ingest) fn bytes_per_element(data_type: i32) -> Option<usize> {
    match DataType::try_from(data_type) {
        Ok(DataType::Bool | DataType::Uint8 | DataType::Int8) => Some(1),
        Ok(DataType::Float16 | DataType::Bfloat16 | DataType::Uint16 | DataType::Int16) => Some(2),
        Ok(DataType::Float | DataType::Uint32 | DataType::Int32) => Some(4),
        Ok(DataType::Double | DataType::Uint64 | DataType::Int64) => Some(8),
        _ => None,
    }
}

fn elements(tensor: &pb::TensorProto) -> Option<usize> {
    let product = tensor
        .dims
        .iter()
        .try_fold(1usize, |all, dim| all.checked_mul(usize::try_from(*dim).ok()?));
    product.filter(|elements| *elements <= MAX_ELEMENTS)
}
