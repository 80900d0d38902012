//! Reads the inputs and the output of an ONNX graph: names, symbols and numbers of features.
//!
//! Only these fields of the file are read. EZKL reads the rest.

use std::collections::BTreeSet;

use prost::Message;
use zklora_proof::manifest::{Input, RESERVED_INPUTS};

#[derive(Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

#[derive(Message)]
struct Graph {
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Message)]
struct Tensor {
    #[prost(string, tag = "8")]
    name: String,
}

#[derive(Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

#[derive(Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

#[derive(Message)]
struct TensorType {
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dim>,
}

#[derive(Message)]
struct Dim {
    #[prost(int64, tag = "1")]
    value: i64,
    #[prost(string, tag = "2")]
    symbol: String,
}

/// Most features of an input or output.
pub const MAX_FEATURES: usize = 1 << 20;

/// The inputs of a graph for one row: every symbol stands for 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Inputs in the graph's order. A single input is called `x`, as in all manifests.
    pub inputs: Vec<Input>,
    /// Names of the symbolic dimensions.
    pub symbols: BTreeSet<String>,
}

impl Interface {
    /// Reads them from an ONNX file.
    pub fn read(onnx: &[u8]) -> Result<Interface, String> {
        let graph = Model::decode(onnx).map_err(|e| format!("not an ONNX file: {e}"))?.graph;
        let graph = graph.ok_or("not an ONNX file: it has no graph")?;
        let weights: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
        let (mut inputs, mut symbols) = (Vec::new(), BTreeSet::new());
        for input in graph.input.iter().filter(|input| !weights.contains(input.name.as_str())) {
            let dim = features(input, &mut symbols)?;
            inputs.push(Input { dim, name: input.name.clone() });
        }
        let [output] = graph.output.as_slice() else {
            return Err(format!(
                "the graph has {} outputs, EZKL's backend takes graphs with one",
                graph.output.len()
            ));
        };
        // EZKL reports the size of the output. An output without a shape has no symbols.
        if shape(output).is_some() {
            features(output, &mut symbols)?;
        }
        match inputs.as_mut_slice() {
            [] => return Err("the graph has no inputs".into()),
            [only] => only.name = "x".into(),
            several => {
                let names: BTreeSet<&str> = several.iter().map(|i| i.name.as_str()).collect();
                let bad = |name: &&str| {
                    name.is_empty() || name.contains('.') || RESERVED_INPUTS.contains(name)
                };
                if names.len() < several.len() || names.iter().any(bad) {
                    return Err("inputs need different names without dots, and none of `one`, `scale`, `delta`".into());
                }
            }
        }
        Ok(Interface { inputs, symbols })
    }
}

fn shape(value: &ValueInfo) -> Option<&Shape> {
    value.r#type.as_ref()?.tensor.as_ref()?.shape.as_ref()
}

fn features(value: &ValueInfo, symbols: &mut BTreeSet<String>) -> Result<usize, String> {
    let shape = shape(value)
        .ok_or_else(|| format!("`{}` has no shape: export the graph with shapes", value.name))?;
    let mut features = 1usize;
    for dim in &shape.dim {
        match (dim.symbol.as_str(), usize::try_from(dim.value)) {
            ("", Ok(size @ 1..)) => {
                features =
                    features.checked_mul(size).filter(|f| *f <= MAX_FEATURES).ok_or_else(|| {
                        format!("`{}` has more than {MAX_FEATURES} features", value.name)
                    })?;
            }
            ("", _) => {
                return Err(format!(
                    "a dimension of `{}` has neither size nor name: give it one",
                    value.name
                ));
            }
            (symbol, _) => {
                symbols.insert(symbol.to_string());
            }
        }
    }
    Ok(features)
}
