//! Checks sizes, names and references in the protobuf before tract allocates or infers anything.
//!
//! Knows the limits of the file format, not the meaning of the graph.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb;

use super::{node_names::name_of, screen_tensor};
use crate::ingest::error::IngestError;

/// Most nodes of a graph.
pub(in crate::ingest) const MAX_NODES: usize = 10_000;
/// Most values of an input, counting its fixed dimensions.
const MAX_INPUT: usize = 1 << 26;
/// Longest name of a symbolic dimension. tract parses names as expressions, by recursion.
const MAX_SYMBOL: usize = 64;

/// Refuses a model that is too large, empty or inconsistent.
pub(in crate::ingest) fn screen(proto: &pb::ModelProto, name: &str) -> Result<(), IngestError> {
    let malformed = |what: String| IngestError::Malformed { name: name.into(), what };
    let graph = proto.graph.as_ref().ok_or_else(|| malformed("it has no graph".into()))?;
    if graph.node.len() > MAX_NODES {
        let what = format!("a graph of {} nodes", graph.node.len());
        return Err(IngestError::TooLarge { name: name.into(), what, limit: MAX_NODES });
    }
    if graph.output.is_empty() {
        return Err(malformed("the graph has no output".into()));
    }
    if !graph.sparse_initializer.is_empty() {
        return Err(malformed("it has sparse weights; store them as dense tensors".into()));
    }
    screen_version(proto).map_err(malformed)?;
    screen_operators(graph, name)?;
    for tensor in tensors(graph) {
        screen_tensor::shape(tensor, name)?;
    }
    screen_empty(graph).map_err(malformed)?;
    for input in &graph.input {
        screen_input(input, name)?;
    }
    screen_names(graph).and_then(|()| screen_order(graph)).map_err(malformed)
}

/// Refuses tensors whose data do not fit their shape. Tensors in other files must have been loaded.
pub(in crate::ingest) fn screen_payloads(
    proto: &pb::ModelProto,
    name: &str,
) -> Result<(), IngestError> {
    proto.graph.iter().flat_map(tensors).try_for_each(|tensor| screen_tensor::payload(tensor, name))
}

/// All tensors of the graph: initialisers, and tensors in attributes.
pub(in crate::ingest) fn tensors(graph: &pb::GraphProto) -> impl Iterator<Item = &pb::TensorProto> {
    let attributes = graph.node.iter().flat_map(|node| &node.attribute);
    graph
        .initializer
        .iter()
        .chain(attributes.flat_map(|attribute| attribute.t.iter().chain(&attribute.tensors)))
}

/// The oldest supported operator set. Before it, some operators broadcast along an explicit axis.
const MIN_OPSET: i64 = 7;

fn screen_version(proto: &pb::ModelProto) -> Result<(), String> {
    let is_onnx =
        |import: &&pb::OperatorSetIdProto| matches!(import.domain.as_str(), "" | "ai.onnx");
    match proto.opset_import.iter().find(is_onnx).map(|import| import.version) {
        Some(MIN_OPSET..) => Ok(()),
        Some(version) => Err(format!(
            "its operator set is version {version}; convert it to {MIN_OPSET} or later (onnx.version_converter)"
        )),
        None => Err("it does not say which operator set it uses; export it again".into()),
    }
}

/// Operators with random results.
const RANDOM: &[&str] = &[
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
];

/// Operators that tract 0.23 computes wrongly, even on constants.
const WRONG: &[&str] = &["Celu", "GlobalLpPool"];

/// Refuses weights without elements. For operators that are not listed here, an empty input may
/// mean that the input is omitted.
fn screen_empty(graph: &pb::GraphProto) -> Result<(), String> {
    const COMPUTE: [&str; 8] = ["MatMul", "Gemm", "Einsum", "Conv", "Add", "Sub", "Mul", "Div"];
    let initialisers = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor));
    let nodes =
        graph.node.iter().filter_map(|node| Some((node.output.first()?.as_str(), &node.attribute)));
    let constants = nodes.flat_map(|(name, given)| {
        given.iter().filter_map(move |given| Some((name, given.t.as_ref()?)))
    });
    let empty = initialisers.chain(constants).filter(|(_, tensor)| screen_tensor::is_empty(tensor));
    let empty: HashMap<&str, &pb::TensorProto> = empty.collect();
    let computing = graph.node.iter().filter(|node| COMPUTE.contains(&node.op_type.as_str()));
    match computing
        .flat_map(|node| &node.input)
        .find_map(|input| empty.get_key_value(input.as_str()))
    {
        Some((name, tensor)) => Err(format!("tensor `{name}` of shape {:?} is empty", tensor.dims)),
        None => Ok(()),
    }
}

fn screen_operators(graph: &pb::GraphProto, name: &str) -> Result<(), IngestError> {
    for node in &graph.node {
        let refuse = |reason: &str| IngestError::NotLinear {
            name: name.into(),
            node: name_of(node).into(),
            operator: node.op_type.clone(),
            reason: reason.into(),
        };
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return Err(refuse(&format!(
                "it is an operator of `{}`, not of ONNX itself; export with standard operators only",
                node.domain
            )));
        }
        if RANDOM.contains(&node.op_type.as_str()) {
            return Err(refuse(
                "it is random, so the module would compute something else every time; store its result instead",
            ));
        }
        if WRONG.contains(&node.op_type.as_str()) {
            return Err(refuse(
                "it is not supported, not even on constants; store its result instead",
            ));
        }
        if node.op_type == "Transpose"
            && node
                .attribute
                .iter()
                .any(|attribute| attribute.name == "perm" && !is_permutation(&attribute.ints))
        {
            return Err(refuse("its perm does not name every axis once; export the model again"));
        }
        if node
            .attribute
            .iter()
            .any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty())
        {
            return Err(refuse("it is control flow (a loop or a branch); export without it"));
        }
    }
    Ok(())
}

fn is_permutation(axes: &[i64]) -> bool {
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    sorted.iter().zip(0..).all(|(axis, expected)| *axis == expected)
}

fn screen_input(input: &pb::ValueInfoProto, name: &str) -> Result<(), IngestError> {
    use pb::{tensor_shape_proto::dimension::Value, type_proto::Value::TensorType};
    let malformed = |what: String| IngestError::Malformed { name: name.into(), what };
    let shape = input.r#type.as_ref().and_then(|declared| match &declared.value {
        Some(TensorType(tensor)) => tensor.shape.as_ref(),
        _ => None,
    });
    let dims = shape.map_or(&[][..], |shape| &shape.dim);
    if dims.len() > screen_tensor::MAX_RANK {
        return Err(malformed(format!("input `{}` has {} dimensions", input.name, dims.len())));
    }
    let mut values = Some(1usize);
    for dim in dims {
        match &dim.value {
            Some(Value::DimValue(extent)) if *extent < 1 => {
                return Err(malformed(format!(
                    "input `{}` has a dimension of length {extent}",
                    input.name
                )));
            }
            Some(Value::DimValue(extent)) => {
                values = values
                    .zip(usize::try_from(*extent).ok())
                    .and_then(|(all, extent)| all.checked_mul(extent));
            }
            Some(Value::DimParam(symbol)) if symbol.len() > MAX_SYMBOL => {
                return Err(malformed(format!(
                    "input `{}` has a dimension whose name is {} bytes long",
                    input.name,
                    symbol.len()
                )));
            }
            _ => {}
        }
    }
    if values.is_none_or(|values| values > MAX_INPUT) {
        let what = format!("the shape of input `{}`", input.name);
        return Err(IngestError::TooLarge { name: name.into(), what, limit: MAX_INPUT });
    }
    Ok(())
}

/// Checks that every value has one name and is produced once.
fn screen_names(graph: &pb::GraphProto) -> Result<(), String> {
    let mut initialisers = HashSet::new();
    if let Some(twice) =
        graph.initializer.iter().find(|tensor| !initialisers.insert(tensor.name.as_str()))
    {
        return Err(format!("two initialisers are called `{}`", twice.name));
    }
    let mut inputs = HashSet::new();
    if let Some(twice) = graph.input.iter().find(|input| !inputs.insert(input.name.as_str())) {
        return Err(format!("two inputs are called `{}`", twice.name));
    }
    // Old models list initialisers as inputs, too; these are not duplicates.
    let mut made: HashSet<&str> = initialisers.union(&inputs).copied().collect();
    for node in &graph.node {
        if let Some(twice) =
            node.output.iter().find(|output| !output.is_empty() && !made.insert(output.as_str()))
        {
            return Err(format!(
                "node `{}` makes `{twice}`, which is made elsewhere too; export the model again",
                name_of(node)
            ));
        }
    }
    match graph.output.iter().find(|output| !made.contains(output.name.as_str())) {
        Some(missing) => Err(format!("nothing makes its output `{}`", missing.name)),
        None => Ok(()),
    }
}

/// Checks that the nodes have an order: no input is missing, and there is no cycle.
fn screen_order(graph: &pb::GraphProto) -> Result<(), String> {
    let mut maker: HashMap<&str, usize> = HashMap::new();
    for (at, node) in graph.node.iter().enumerate() {
        maker.extend(node.output.iter().map(|output| (output.as_str(), at)));
    }
    let given: HashSet<&str> = graph
        .initializer
        .iter()
        .map(|t| t.name.as_str())
        .chain(graph.input.iter().map(|i| i.name.as_str()))
        .collect();
    let mut waits = vec![0usize; graph.node.len()];
    let mut followers: Vec<Vec<usize>> = vec![vec![]; graph.node.len()];
    for (at, node) in graph.node.iter().enumerate() {
        for input in
            node.input.iter().filter(|input| !input.is_empty() && !given.contains(input.as_str()))
        {
            let from = maker.get(input.as_str()).ok_or_else(|| {
                format!("nothing makes `{input}`, an input of node `{}`", name_of(node))
            })?;
            waits[at] += 1;
            followers[*from].push(at);
        }
    }
    let mut ready: Vec<usize> = (0..waits.len()).filter(|at| waits[*at] == 0).collect();
    while let Some(done) = ready.pop() {
        for follower in &followers[done] {
            waits[*follower] -= 1;
            if waits[*follower] == 0 {
                ready.push(*follower);
            }
        }
    }
    match waits.iter().position(|waits| *waits > 0) {
        Some(stuck) => Err(format!(
            "node `{}` is part of a cycle or comes after one",
            name_of(&graph.node[stuck])
        )),
        None => Ok(()),
    }
}
