//! Withholds constants from tract where its rounding depends on the machine.
//!
//! tract folds constants in the graph's own precision, with the kernels of the CPU. Without fused
//! multiply-add, a product or a sum in f32 differs in the last bits. Artifacts must be the same on
//! every machine. So floating-point constants that reach such an operator over constants alone
//! become sources of known shape here, and `affine::interpret` evaluates the nodes that depend on
//! them in f64, for which tract has one kernel. tract still folds operators whose result is the
//! exact one, rounded once (IEEE 754).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tract_onnx::tract_hir::{
    internal::{InferenceFact, InferenceModel, Tensor},
    ops::{konst::Const, source::Source},
};

use super::origins::Origins;

/// ONNX operators whose result has the same bits on every machine: they move numbers, or round the
/// exact result once.
const EXACT: &[&str] = &[
    "Abs",
    "Add",
    "Cast",
    "CastLike",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Expand",
    "EyeLike",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Pad",
    "QuantizeLinear",
    "Reciprocal",
    "Reshape",
    // Not exact between pixels, but tract needs to know its scales, and computes them one at a
    // time.
    "Resize",
    "Slice",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tile",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Where",
];

/// The withheld tensors, by the name of their node.
pub(in crate::ingest) type Withheld = HashMap<String, Arc<Tensor>>;

/// Replaces by sources the constants that reach an inexact operator over constants alone.
pub(in crate::ingest) fn withhold(
    model: &mut InferenceModel,
    order: &[usize],
    origins: &Origins,
) -> Withheld {
    let mut constant = HashSet::new();
    let mut reached = vec![];
    for &id in order {
        let node = model.node(id);
        let folds = !node.inputs.is_empty()
            && node.inputs.iter().all(|input| constant.contains(&input.node));
        if folds || node.op_is::<Const>() {
            constant.insert(id);
        }
        // A node that is not in the file is a part of a node in the file, and has its operator.
        if folds && !EXACT.contains(&origins.of_node(&node.name, "").1) {
            reached.push(id);
        }
    }
    let mut seen = HashSet::new();
    let mut withheld = Withheld::new();
    while let Some(id) = reached.pop() {
        if !seen.insert(id) {
            continue;
        }
        let node = model.node(id);
        reached.extend(node.inputs.iter().map(|input| input.node));
        let tensor = node.op_as::<Const>().map(|constant| constant.val().clone());
        let Some(tensor) = tensor.filter(|tensor| tensor.datum_type().is_float()) else { continue };
        let fact = InferenceFact::dt_shape(tensor.datum_type(), tensor.shape());
        let node = model.node_mut(id);
        node.op = Box::new(Source::new());
        if let Some(output) = node.outputs.first_mut() {
            output.fact = fact;
        }
        withheld.insert(node.name.clone(), tensor);
    }
    withheld
}
