//! Writes an adapter module as an ONNX model, with the protobuf types of `tract_onnx::pb`.
//!
//! ```text
//! x [rows, d_in] ─ Gemm(lora_A, transB) → [rows, rank] ─ Gemm(lora_B, lora_B_bias, transB)
//!                → [rows, d_out] ─ Mul(scaling) → delta
//! ```
//!
//! This is plain LoRA. In general each branch is a chain of `Gemm` (a matrix, with the row that is
//! added after it, if any), `Mul` (a row of factors) and `Add` (a row of summands); the branches
//! are added, and the sum is multiplied by `scaling`. `Gemm` with `transB` keeps matrices in the
//! orientation in which `peft` stores them, so the initialiser `lora_A` is `lora_A.weight` bit for
//! bit. Must not know about files, nor the meaning of a module's steps.

use std::collections::HashSet;

use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension::Value as Size},
    type_proto,
};

use crate::{
    Error,
    adapter::peft::{Action, AdapterModule, Branch, Step},
};

/// ONNX file format version 8 belongs to operator set 17; current readers know both.
const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;

/// Largest protobuf message, in bytes.
const MAX_MESSAGE: usize = i32::MAX as usize;

/// The ONNX model of a module, with the module's inputs `[rows, dim]` and the output `delta`
/// `[rows, d_out]`, where `rows` is symbolic and all types are f32. The same module gives the same
/// bytes.
///
/// # Errors
/// [`Error::Module`] if the fields do not fit together; [`Error::ModuleTooLarge`] over 2 GiB.
pub fn onnx_model(module: &AdapterModule) -> Result<Vec<u8>, Error> {
    let invalid = |reason: String| Error::Module { module: module.name.clone(), reason };
    module.check().map_err(invalid)?;
    let mut graph = Graph::default();
    let branches: Vec<String> = module
        .branches
        .iter()
        .filter_map(|branch| {
            Some(graph.branch(module.inputs.get(branch.input)?.name.as_str(), branch))
        })
        .collect();
    let sum = graph.sum(&branches);
    // torch rounds a Python number to f32 before it multiplies an f32 tensor by it; so does this.
    graph.initializer.push(tensor("scaling", &[], &[module.scaling as f32]));
    graph.node.push(node("Mul", "scale", &[&sum, "scaling"], "delta"));

    let inputs = module.inputs.iter().map(|input| input.name.as_str());
    graph.check_names(inputs).map_err(invalid)?;
    let graph = GraphProto {
        node: graph.node,
        name: module.name.clone(),
        initializer: graph.initializer,
        input: module.inputs.iter().map(|input| rows_by(&input.name, input.dim)).collect(),
        output: vec![rows_by("delta", module.d_out)],
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: IR_VERSION,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        producer_name: "zklora".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        ..ModelProto::default()
    };
    let bytes = model.encoded_len();
    if bytes > MAX_MESSAGE {
        let reason = format!(
            "its ONNX model would have {bytes} bytes, over protobuf's limit of {MAX_MESSAGE}; train with a lower rank"
        );
        return Err(Error::ModuleTooLarge { module: module.name.clone(), reason });
    }
    Ok(model.encode_to_vec())
}

/// The nodes and constants that have been written.
#[derive(Default)]
struct Graph {
    node: Vec<NodeProto>,
    initializer: Vec<TensorProto>,
}

impl Graph {
    /// Writes a branch that reads `input`; returns the name of its result.
    fn branch(&mut self, input: &str, branch: &Branch) -> String {
        let mut current = input.to_owned();
        let mut steps = branch.steps.iter().peekable();
        while let Some(step) = steps.next() {
            let operator = match step.action {
                Action::Matrix { .. } => "projection",
                Action::Scale => "factors",
                Action::Shift => "summands",
            };
            let (name, result) =
                (format!("{}_{operator}", step.name), format!("{}_result", step.name));
            self.constant(step);
            let node = match step.action {
                Action::Matrix { .. } => {
                    let mut inputs = vec![current.as_str(), step.name.as_str()];
                    let bias = steps.next_if(|next| next.action == Action::Shift);
                    if let Some(bias) = bias {
                        self.constant(bias);
                        inputs.push(bias.name.as_str());
                    }
                    gemm(&name, &inputs, &result)
                }
                Action::Scale => node("Mul", &name, &[&current, &step.name], &result),
                Action::Shift => node("Add", &name, &[&current, &step.name], &result),
            };
            self.node.push(node);
            current = result;
        }
        current
    }

    fn constant(&mut self, step: &Step) {
        let dims = match step.action {
            Action::Matrix { d_out, d_in } => vec![d_out, d_in],
            Action::Scale | Action::Shift => vec![step.values.len()],
        };
        self.initializer.push(tensor(&step.name, &dims, &step.values));
    }

    /// Writes the sum of results; returns its name.
    fn sum(&mut self, branches: &[String]) -> String {
        let mut branches = branches.iter();
        let mut sum = branches.next().cloned().unwrap_or_default();
        for (at, branch) in branches.enumerate() {
            let result = format!("sum_{at}_result");
            self.node.push(node("Add", &format!("sum_{at}"), &[&sum, branch], &result));
            sum = result;
        }
        sum
    }

    /// Checks that every value has its own name, which is not empty.
    fn check_names<'a>(&'a self, inputs: impl Iterator<Item = &'a str>) -> Result<(), String> {
        let constants = self.initializer.iter().map(|tensor| tensor.name.as_str());
        let results = self.node.iter().flat_map(|node| node.output.iter().map(String::as_str));
        let mut seen = HashSet::new();
        match inputs
            .chain(constants)
            .chain(results)
            .find(|name| name.is_empty() || !seen.insert(*name))
        {
            Some(name) => Err(format!(
                "two of its tensors have the name {}, or it is empty",
                crate::error::quoted(name)
            )),
            None => Ok(()),
        }
    }
}

fn tensor(name: &str, dims: &[usize], values: &[f32]) -> TensorProto {
    TensorProto {
        dims: dims.iter().map(|&dim| dim as i64).collect(),
        data_type: DataType::Float as i32,
        name: name.into(),
        raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        ..TensorProto::default()
    }
}

fn node(op_type: &str, name: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: op_type.into(),
        name: name.into(),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

/// `input × weightsᵀ (+ bias)`.
fn gemm(name: &str, inputs: &[&str], output: &str) -> NodeProto {
    let trans_b = AttributeProto {
        name: "transB".into(),
        r#type: AttributeType::Int as i32,
        i: 1,
        ..AttributeProto::default()
    };
    NodeProto { attribute: vec![trans_b], ..node("Gemm", name, inputs, output) }
}

/// The type f32 `[rows, features]` of an input or output.
fn rows_by(name: &str, features: usize) -> ValueInfoProto {
    let dimension = |value| Dimension { denotation: String::new(), value: Some(value) };
    let shape = TensorShapeProto {
        dim: vec![
            dimension(Size::DimParam("rows".into())),
            dimension(Size::DimValue(features as i64)),
        ],
    };
    let of_f32 = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(shape) };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            denotation: String::new(),
            value: Some(type_proto::Value::TensorType(of_f32)),
        }),
        doc_string: String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{LoraWeights, ModuleInput};

    fn module() -> AdapterModule {
        let weights = LoraWeights {
            d_in: 3,
            d_out: 2,
            rank: 1,
            a: vec![1.0, -2.0, 0.5],
            b: vec![3.0, f32::MIN_POSITIVE],
            bias: None,
        };
        AdapterModule::lora("m".into(), weights, 0.1)
    }

    fn graph(module: &AdapterModule) -> GraphProto {
        ModelProto::decode(&*onnx_model(module).unwrap()).unwrap().graph.unwrap()
    }

    fn operators(graph: &GraphProto) -> Vec<&str> {
        graph.node.iter().map(|n| n.op_type.as_str()).collect()
    }

    #[test]
    fn the_initialisers_are_the_weights_bit_for_bit() {
        let graph = graph(&module());
        let found: Vec<_> = graph
            .initializer
            .iter()
            .map(|t| (t.name.as_str(), t.dims.clone(), t.raw_data.clone()))
            .collect();
        let bits =
            |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let steps = &module().branches[0].steps;
        assert_eq!(
            found,
            [
                ("lora_A", vec![1, 3], bits(&steps[0].values)),
                ("lora_B", vec![2, 1], bits(&steps[1].values)),
                ("scaling", vec![], bits(&[0.1])),
            ]
        );
        assert_eq!(operators(&graph), ["Gemm", "Gemm", "Mul"]);
    }

    #[test]
    fn branches_are_chains_that_are_added_up() {
        let mut module = module();
        module.branches[0].steps.push(Step::shift("row", vec![1.0, 2.0]));
        module.inputs.push(ModuleInput::base(2));
        let steps =
            vec![Step::shift("minus", vec![0.5, 0.5]), Step::scale("factors", vec![2.0, 3.0])];
        module.branches.push(Branch { input: 1, steps });
        let graph = graph(&module);
        assert_eq!(operators(&graph), ["Gemm", "Gemm", "Add", "Mul", "Add", "Mul"]);
        assert_eq!(graph.node[1].input, ["lora_A_result", "lora_B", "row"]);
        assert_eq!(
            graph.input.iter().map(|input| input.name.as_str()).collect::<Vec<_>>(),
            ["x", "base"]
        );
    }

    #[test]
    fn a_module_that_does_not_fit_together_is_an_error() {
        let changes: [fn(&mut AdapterModule); 12] = [
            |m| m.branches[0].steps[0].action = Action::Matrix { d_out: 0, d_in: 3 },
            |m| m.branches[0].steps[0].action = Action::Matrix { d_out: usize::MAX, d_in: 3 },
            |m| m.inputs[0].dim = 4,
            |m| m.d_out = usize::MAX,
            |m| m.branches[0].steps[0].values.clear(),
            |m| m.branches[0].steps[1].values.push(0.0),
            |m| m.branches[0].steps.push(Step::shift("row", vec![0.0])),
            |m| m.branches[0].steps[1].name = "lora_A".into(),
            |m| m.branches[0].input = 1,
            |m| m.inputs.push(ModuleInput::base(2)),
            |m| m.branches.clear(),
            |m| m.scaling = f64::NAN,
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut changed = module();
            change(&mut changed);
            assert!(matches!(onnx_model(&changed), Err(Error::Module { .. })), "{at}");
        }
    }
}
