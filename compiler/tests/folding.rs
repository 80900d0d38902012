//! Constants that a graph computes are their exact values, rounded, independent of the machine's
//! f32 kernels.

#![allow(clippy::unwrap_used)]

use tract_onnx::pb;
use zklora_compiler::ingest;

mod models;
use models::{bytes, floats, model, node};

/// The sum in f32 from left to right is 0; fused or in another order it is another number.
const CANCELLING: [f32; 3] = [1.0e8, 1.0, -1.0e8];

fn deltas(model: &pb::ModelProto) -> Vec<f64> {
    ingest(&bytes(model), "folded").unwrap().apply(&[&[1.0, 0.0, 0.0, 0.0]]).unwrap()
}

#[test]
fn products_of_constants_are_exact() {
    let left = floats("l", &[4, 3], &CANCELLING.repeat(4));
    let right = floats("r", &[3, 3], &[1.0; 9]);
    let nodes = vec![node("MatMul", &["l", "r"], "w"), node("MatMul", &["x", "w"], "y")];
    assert_eq!(deltas(&model(nodes, vec![left, right])), [1.0; 3]);
}

#[test]
fn sums_of_constants_are_exact() {
    let (terms, weights) = (floats("t", &[3], &CANCELLING), floats("w", &[4, 3], &[2.0; 12]));
    let nodes = vec![
        node("ReduceSum", &["t"], "s"),
        node("MatMul", &["x", "w"], "d"),
        node("Add", &["d", "s"], "y"),
    ];
    assert_eq!(deltas(&model(nodes, vec![terms, weights])), [3.0; 3]);
}

#[test]
fn operators_behind_such_constants_are_computed_too() {
    // Neg and Transpose are exact, but tract does not know their operands any more.
    let left = floats("l", &[3, 3], &CANCELLING.repeat(3));
    let right = floats("r", &[3, 4], &[1.0; 12]);
    let nodes = vec![
        node("MatMul", &["l", "r"], "p"),
        node("Neg", &["p"], "n"),
        node("Transpose", &["n"], "w"),
        node("MatMul", &["x", "w"], "y"),
    ];
    assert_eq!(deltas(&model(nodes, vec![left, right])), [-1.0; 3]);
}

#[test]
fn weights_that_the_graph_casts_to_bf16_are_rounded() {
    let mut to_bf16 = node("Cast", &["w"], "r");
    to_bf16.attribute.push(pb::AttributeProto {
        name: "to".into(),
        i: 16,
        r#type: 2,
        ..Default::default()
    });
    let mut back = node("Cast", &["r"], "v");
    back.attribute.push(pb::AttributeProto {
        name: "to".into(),
        i: 1,
        r#type: 2,
        ..Default::default()
    });
    let nodes = vec![to_bf16, back, node("MatMul", &["x", "v"], "y")];
    // 1 + 2^-7 is a bf16; 1 + 2^-8 lies in the middle and goes to the even 1; a bit more goes up.
    let row = [1.0 + 1.0 / 128.0, 1.0 + 1.0 / 256.0, 1.0 + 1.001 / 256.0];
    let case = model(nodes, vec![floats("w", &[4, 3], &row.repeat(4))]);
    assert_eq!(deltas(&case), [1.007_812_5, 1.0, 1.007_812_5]);
}

#[test]
fn inputs_keep_the_names_of_the_file() {
    // tract gives an input the name of the node behind it if that node does nothing.
    let nodes = vec![node("Identity", &["x"], "same"), node("MatMul", &["same", "w"], "y")];
    let map =
        ingest(&bytes(&model(nodes, vec![floats("w", &[4, 3], &[0.5; 12])])), "named").unwrap();
    assert_eq!(map.inputs[0].name, "x");
}

#[test]
fn weights_cast_to_integers_that_cannot_hold_them_are_refused() {
    let mut cast = node("Cast", &["m"], "i");
    cast.attribute.push(pb::AttributeProto {
        name: "to".into(),
        i: 3,
        r#type: 2,
        ..Default::default()
    });
    let mut back = node("Cast", &["i"], "v");
    back.attribute.push(pb::AttributeProto {
        name: "to".into(),
        i: 1,
        r#type: 2,
        ..Default::default()
    });
    let graph = |factor: f32, product: &str| {
        let nodes = vec![
            node(product, &["w", "f"], "m"),
            cast.clone(),
            back.clone(),
            node("MatMul", &["x", "v"], "y"),
        ];
        let f = if product == "Mul" {
            floats("f", &[], &[factor])
        } else {
            floats("f", &[1, 3], &[factor; 3])
        };
        model(nodes, vec![floats("w", &[4, 1], &[1.25; 4]), f])
    };
    // tract folds the first, the compiler the second.
    for product in ["Mul", "MatMul"] {
        let error = ingest(&bytes(&graph(200.0, product)), "cast").unwrap_err().to_string();
        assert!(error.contains("`node_i`") && error.contains("cannot hold it"), "{error}");
        ingest(&bytes(&graph(100.0, product)), "cast").unwrap();
    }
}

#[test]
fn weights_that_the_graph_quantises_are_the_quantised_ones() {
    // Fake quantisation: round(w / s) · s; the compiler computes the product before it.
    let nodes = vec![
        node("MatMul", &["l", "r"], "w"),
        node("QuantizeLinear", &["v", "s", "z"], "q"),
        node("DequantizeLinear", &["q", "s", "z"], "d"),
        node("MatMul", &["x", "d"], "h"),
        node("MatMul", &["h", "w"], "y"),
    ];
    let mut zero = pb::TensorProto { name: "z".into(), data_type: 3, ..Default::default() };
    zero.int32_data = vec![0];
    let weights = vec![
        floats("v", &[4, 2], &[0.26, 0.74, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        floats("s", &[], &[0.5]),
        zero,
        floats("l", &[2, 1], &[1.0, 2.0]),
        floats("r", &[1, 3], &[1.0, 10.0, 100.0]),
    ];
    assert_eq!(deltas(&model(nodes, weights)), [1.5, 15.0, 150.0]);
}
