//! Builds small ONNX models for tests, valid or not.

#![allow(dead_code, clippy::unwrap_used)] // Every test uses some of these.

use std::time::{Duration, Instant};

use prost::Message;
use tract_onnx::pb::{self, tensor_proto::DataType};
use zklora_compiler::{LinearMap, ingest};

/// A float tensor.
pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> pb::TensorProto {
    pb::TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        float_data: values.to_vec(),
        ..Default::default()
    }
}

/// A list of integers, as shapes and axes are given.
pub fn ints(name: &str, values: &[i64]) -> pb::TensorProto {
    pb::TensorProto {
        name: name.into(),
        dims: vec![values.len() as i64],
        data_type: DataType::Int64 as i32,
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

/// A node named after its output.
pub fn node(operator: &str, inputs: &[&str], output: &str) -> pb::NodeProto {
    pb::NodeProto {
        op_type: operator.into(),
        name: format!("node_{output}"),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

/// As [`node`], with an axis.
pub fn along(axis: i64, operator: &str, inputs: &[&str], output: &str) -> pb::NodeProto {
    let attribute =
        pb::AttributeProto { name: "axis".into(), r#type: 2, i: axis, ..Default::default() };
    pb::NodeProto { attribute: vec![attribute], ..node(operator, inputs, output) }
}

/// `operator` applied `count` times, first to `first` and then to the last value, with `other`; the
/// result is `y`.
pub fn repeated(operator: &str, first: &str, other: &[&str], count: usize) -> Vec<pb::NodeProto> {
    let name = |i: usize| if i == count { "y".to_string() } else { format!("{operator}{i}") };
    let inputs = |i: usize| if i == 0 { first.to_string() } else { name(i) };
    (0..count)
        .map(|i| node(operator, &[&[inputs(i).as_str()], other].concat(), &name(i + 1)))
        .collect()
}

/// A value of this shape; negative dimensions are symbolic.
pub fn value(name: &str, dims: &[i64]) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |dim: &i64| Dimension { value: Some(Value::DimValue(*dim)), ..Default::default() };
    let shape = pb::TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = pb::type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(shape) };
    let declared = pb::TypeProto {
        value: Some(pb::type_proto::Value::TensorType(tensor)),
        ..Default::default()
    };
    pb::ValueInfoProto { name: name.into(), r#type: Some(declared), ..Default::default() }
}

/// A model `x [2, 4] → y`.
pub fn model(nodes: Vec<pb::NodeProto>, initializer: Vec<pb::TensorProto>) -> pb::ModelProto {
    model_of(vec![value("x", &[2, 4])], nodes, initializer)
}

/// A model of these inputs, with the output `y`.
pub fn model_of(
    input: Vec<pb::ValueInfoProto>,
    nodes: Vec<pb::NodeProto>,
    initializer: Vec<pb::TensorProto>,
) -> pb::ModelProto {
    let graph = pb::GraphProto {
        node: nodes,
        initializer,
        input,
        output: vec![pb::ValueInfoProto { name: "y".into(), ..Default::default() }],
        ..Default::default()
    };
    pb::ModelProto {
        ir_version: 8,
        opset_import: vec![pb::OperatorSetIdProto { domain: String::new(), version: 17 }],
        graph: Some(graph),
        ..Default::default()
    }
}

/// `y = x · w` with w 4 × 3, for tests that change one property of it.
pub fn plain() -> pb::ModelProto {
    model(vec![node("MatMul", &["x", "w"], "y")], vec![floats("w", &[4, 3], &[0.5; 12])])
}

/// The file's bytes.
pub fn bytes(model: &pb::ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}

/// Generous for a busy machine; without the checks these models would take hours or all memory.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Why a model is refused, within reasonable time and length.
pub fn refusal(model: &pb::ModelProto) -> String {
    refusal_of_bytes(&bytes(model))
}

/// As [`refusal`], of a file's bytes.
pub fn refusal_of_bytes(bytes: &[u8]) -> String {
    let start = Instant::now();
    let error = ingest(bytes, "hostile").map(|_| ()).unwrap_err().to_string();
    assert!(start.elapsed() < TIME_LIMIT, "took {:?}: {error}", start.elapsed());
    assert!(error.len() < 1500 && !error.contains("unexpectedly"), "{error}");
    error
}

/// The map of a model that must compile within reasonable time.
pub fn compiled(model: &pb::ModelProto) -> LinearMap {
    let start = Instant::now();
    let map = ingest(&bytes(model), "compiled").unwrap();
    assert!(start.elapsed() < TIME_LIMIT, "took {:?}", start.elapsed());
    map
}

/// Asserts that a model is refused with all of these words.
pub fn assert_refused(model: &pb::ModelProto, words: &[&str]) {
    let error = refusal(model);
    for word in words {
        assert!(error.contains(word), "`{error}` does not say `{word}`");
    }
}
