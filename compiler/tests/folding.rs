//! Constants that a graph computes have the bits that their exact values round to, whatever the machine's f32 kernels would give.

#![allow(clippy::unwrap_used)]

use tract_onnx::pb;
use zklora_compiler::ingest;

mod models;
use models::{bytes, floats, model, node};

/// In f32 and from left to right this is 0; fused or in another order it is something else.
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
    let nodes = vec![node("ReduceSum", &["t"], "s"), node("MatMul", &["x", "w"], "d"), node("Add", &["d", "s"], "y")];
    assert_eq!(deltas(&model(nodes, vec![terms, weights])), [3.0; 3]);
}

#[test]
fn operators_behind_such_constants_are_computed_too() {
    // Neg and Transpose are exact, but what they take is not known to tract any more.
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
