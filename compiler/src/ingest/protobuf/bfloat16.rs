//! Widens bf16 to f32 in the protobuf, because tract has no bf16.
//!
//! Covers initialisers, attributes (Constant, ConstantOfShape), the types of inputs and outputs,
//! and the targets of Cast and EyeLike. Weights that the graph casts to bf16 are rounded. Rounding
//! of intermediate bf16 results is not imitated: the map is the one that the weights define.

use std::collections::{BTreeMap, BTreeSet};

use half::bf16;
use tract_onnx::pb::{self, tensor_proto::DataType};

const BF16: i32 = DataType::Bfloat16 as i32;
const F32: i32 = DataType::Float as i32;

/// Widens every bf16 tensor and type of the graph.
pub(in crate::ingest) fn widen_bf16(proto: &mut pb::ModelProto) {
    let Some(graph) = proto.graph.as_mut() else { return };
    round_cast_weights(graph);
    graph.initializer.iter_mut().for_each(widen_tensor);
    for info in graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info) {
        if let Some(pb::type_proto::Value::TensorType(tensor)) =
            info.r#type.as_mut().and_then(|t| t.value.as_mut())
            && tensor.elem_type == BF16
        {
            tensor.elem_type = F32;
        }
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.t.iter_mut().chain(&mut attribute.tensors).for_each(widen_tensor);
        if matches!(attribute.name.as_str(), "to" | "dtype") && attribute.i == i64::from(BF16) {
            attribute.i = i64::from(F32);
        }
    }
}

/// Replaces each f32 weight that a node casts to bf16 by a rounded copy.
fn round_cast_weights(graph: &mut pb::GraphProto) {
    let is_cast = |node: &pb::NodeProto| {
        let to = node.attribute.iter().find(|attribute| attribute.name == "to");
        node.op_type == "Cast" && to.is_some_and(|to| to.i == i64::from(BF16))
    };
    let cast: BTreeSet<String> = graph
        .node
        .iter()
        .filter(|node| is_cast(node))
        .filter_map(|node| node.input.first().cloned())
        .collect();
    if cast.is_empty() {
        return;
    }
    let constants =
        graph.node.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
            let value =
                node.attribute.iter().find(|attribute| attribute.name == "value")?.t.as_ref()?;
            Some((node.output.first()?, value))
        });
    let stored = graph.initializer.iter().map(|tensor| (&tensor.name, tensor)).chain(constants);
    let weights = stored.filter(|(name, tensor)| tensor.data_type == F32 && cast.contains(*name));
    let taken: BTreeSet<&String> = graph
        .node
        .iter()
        .flat_map(|node| node.output.iter().chain([&node.name]))
        .chain(graph.initializer.iter().map(|tensor| &tensor.name))
        .chain(graph.input.iter().map(|input| &input.name))
        .collect();
    let copies = weights.map(|(name, tensor)| {
        let mut copy = format!("{name}_bf16");
        while taken.contains(&copy) {
            copy.push('_');
        }
        (name.clone(), pb::TensorProto { name: copy, ..rounded_to_bf16(tensor) })
    });
    let copies: BTreeMap<String, pb::TensorProto> = copies.collect();
    for input in
        graph.node.iter_mut().filter(|node| is_cast(node)).filter_map(|node| node.input.first_mut())
    {
        if let Some(copy) = copies.get(input) {
            input.clone_from(&copy.name);
        }
    }
    graph.initializer.extend(copies.into_values());
}

fn rounded_to_bf16(tensor: &pb::TensorProto) -> pb::TensorProto {
    let round = |value: f32| bf16::from_f32(value).to_f32();
    let mut rounded = tensor.clone();
    rounded.float_data.iter_mut().for_each(|value| *value = round(*value));
    for word in rounded.raw_data.chunks_exact_mut(4) {
        let value = f32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        word.copy_from_slice(&round(value).to_le_bytes());
    }
    rounded
}

fn widen_tensor(tensor: &mut pb::TensorProto) {
    if tensor.data_type != BF16 {
        return;
    }
    tensor.data_type = F32;
    // ONNX stores bf16 as little-endian bytes, or as 16 bits in each int32.
    if tensor.raw_data.is_empty() {
        tensor.float_data = tensor
            .int32_data
            .drain(..)
            .map(|bits| f32_of_bf16((bits as u32 & 0xffff) as u16))
            .collect();
    } else {
        tensor.raw_data = tensor
            .raw_data
            .chunks(2)
            .flat_map(|half| match half {
                [low, high] => {
                    f32_of_bf16(u16::from_le_bytes([*low, *high])).to_le_bytes().to_vec()
                }
                // Half an element. Screening has refused such tensors before.
                odd => odd.to_vec(),
            })
            .collect();
    }
}

fn f32_of_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_of_bf16_widen_to_the_same_numbers() {
        let raw = pb::TensorProto {
            data_type: BF16,
            raw_data: vec![0x80, 0x3f, 0x20, 0xc0],
            ..Default::default()
        };
        let ints = pb::TensorProto {
            data_type: BF16,
            int32_data: vec![0x3f80, 0xc020],
            ..Default::default()
        };
        let (mut raw, mut ints) = (raw, ints);
        widen_tensor(&mut raw);
        widen_tensor(&mut ints);
        assert_eq!(ints.float_data, [1.0, -2.5]);
        assert_eq!(raw.raw_data, [1.0f32.to_le_bytes(), (-2.5f32).to_le_bytes()].concat());
        assert_eq!((raw.data_type, ints.data_type), (F32, F32));
    }
}
