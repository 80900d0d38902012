//! The linear layers and embeddings of an ONNX graph, with their inputs, outputs and possible
//! names.
//!
//! A layer is a MatMul or Gemm with a stored matrix, or a Gather of rows of one. Must not know
//! about adapters.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb;

/// Longest chain of operators between a stored matrix and the layer that uses it, or between a
/// layer and its bias.
const CHAIN: usize = 8;

/// One layer.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// Position of its node in the graph.
    pub node: usize,
    /// Which of the node's inputs is the layer's.
    pub input: usize,
    /// The tensor that the layer reads.
    pub x: String,
    /// The layer's output, after its bias.
    pub output: String,
    /// Its module, if the exporter wrote it into the file.
    pub scope: Option<String>,
    /// The name of its matrix without `.weight`.
    pub weight: Option<String>,
    /// Features that go in (for embeddings, entries of the table) and that come out.
    pub size: [usize; 2],
}

impl Layer {
    /// The layer's name in messages.
    pub fn name(&self) -> &str {
        self.scope.as_deref().or(self.weight.as_deref()).unwrap_or(&self.output)
    }
}

/// A graph with its tensors by name.
pub(super) struct GraphTensors<'a> {
    graph: &'a pb::GraphProto,
    stored: HashMap<&'a str, &'a pb::TensorProto>,
    producers: HashMap<&'a str, usize>,
    consumers: HashMap<&'a str, Vec<usize>>,
    outputs: HashSet<&'a str>,
}

impl<'a> GraphTensors<'a> {
    pub fn of(graph: &'a pb::GraphProto) -> Self {
        let mut tensors = GraphTensors {
            graph,
            stored: graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect(),
            producers: HashMap::new(),
            consumers: HashMap::new(),
            outputs: graph.output.iter().map(|output| output.name.as_str()).collect(),
        };
        for (at, node) in graph.node.iter().enumerate() {
            for output in node.output.iter().filter(|name| !name.is_empty()) {
                tensors.producers.insert(output, at);
            }
            for input in &node.input {
                tensors.consumers.entry(input).or_default().push(at);
            }
            if let ("Constant", Some(output)) = (node.op_type.as_str(), node.output.first())
                && let Some(tensor) =
                    node.attribute.iter().find_map(|attribute| attribute.t.as_ref())
            {
                tensors.stored.insert(output, tensor);
            }
        }
        tensors
    }

    /// The node that produces a tensor.
    pub fn producer(&self, tensor: &str) -> Option<usize> {
        self.producers.get(tensor).copied()
    }

    /// Names of all tensors that nodes produce, in the order of the graph.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.graph
            .node
            .iter()
            .flat_map(|node| &node.output)
            .map(String::as_str)
            .filter(|name| !name.is_empty())
    }

    /// The stored tensor behind a name, and its dimensions there.
    pub fn constant(&self, name: &str) -> Option<(&'a pb::TensorProto, Vec<usize>)> {
        let mut turned = false;
        let mut name = name;
        for _ in 0..CHAIN {
            if let Some(tensor) = self.stored.get(name) {
                let mut dims = tensor
                    .dims
                    .iter()
                    .map(|&dim| usize::try_from(dim).ok())
                    .collect::<Option<Vec<_>>>()?;
                if turned {
                    dims.reverse();
                }
                return Some((tensor, dims));
            }
            let node = &self.graph.node[self.producer(name)?];
            match node.op_type.as_str() {
                "Identity" | "Cast" => {}
                "Transpose" => {
                    let order = node
                        .attribute
                        .iter()
                        .find(|attribute| attribute.name == "perm")
                        .map(|a| &*a.ints);
                    match order {
                        // Without an order the axes are reversed.
                        None | Some([1, 0]) => turned = !turned,
                        Some([0, 1]) => {}
                        Some(_) => return None,
                    }
                }
                _ => return None,
            }
            name = node.input.first()?;
        }
        None
    }

    /// The layer that a node is.
    fn layer(&self, at: usize, scopes: &[Option<String>]) -> Option<Layer> {
        let node = &self.graph.node[at];
        let [first, second] = [node.input.first()?, node.input.get(1)?];
        let flag = |name: &str| {
            node.attribute.iter().any(|attribute| attribute.name == name && attribute.i != 0)
        };
        let (input, matrix) = match node.op_type.as_str() {
            "Gather" => (1, first),
            "MatMul" | "Gemm" => (0, second),
            _ => return None,
        };
        let x = &node.input[input];
        let (tensor, dims) = self.constant(matrix)?;
        let [rows, columns] = *dims.as_slice() else { return None };
        if self.constant(x).is_some()
            || flag("transA")
            || (node.op_type == "Gather" && flag("axis"))
        {
            return None;
        }
        let size = if flag("transB") { [columns, rows] } else { [rows, columns] };
        let scope = scopes.get(at).cloned().flatten();
        let output = match node.op_type.as_str() {
            "Gather" => node.output.first()?.clone(),
            _ => self.after_bias(node.output.first()?, size[1], scope.as_deref(), scopes),
        };
        let weight = tensor.name.strip_suffix(".weight").map(str::to_owned);
        Some(Layer { node: at, input, x: x.clone(), output, scope, weight, size })
    }

    /// The result of adding a bias in the same module, if that is the only use of `output`;
    /// otherwise `output`.
    fn after_bias(
        &self,
        output: &str,
        features: usize,
        scope: Option<&str>,
        scopes: &[Option<String>],
    ) -> String {
        let sum = || {
            let &[consumer] = self.consumers.get(output)?.as_slice() else { return None };
            let node = &self.graph.node[consumer];
            let [left, right] = node.input.as_slice() else { return None };
            let other = if left == output { right } else { left };
            let (_, dims) = self.constant(other)?;
            let same_module = scopes.get(consumer).is_some_and(|other| other.as_deref() == scope);
            let is_bias = node.op_type == "Add"
                && same_module
                && dims == [features]
                && !self.outputs.contains(output);
            is_bias.then(|| node.output.first().cloned()).flatten()
        };
        sum().unwrap_or_else(|| output.to_owned())
    }

    /// All layers, in the order of the graph.
    pub fn layers(&self, scopes: &[Option<String>]) -> Vec<Layer> {
        (0..self.graph.node.len()).filter_map(|at| self.layer(at, scopes)).collect()
    }

    /// The layer behind a tensor that the user named: the node that produces it, before a bias and
    /// before changes of shape.
    pub fn layer_of<'l>(&self, tensor: &str, layers: &'l [Layer]) -> Option<&'l Layer> {
        let mut name = tensor;
        for _ in 0..CHAIN {
            let at = self.producer(name)?;
            if let Some(layer) = layers.iter().find(|layer| layer.node == at) {
                return Some(layer);
            }
            let node = &self.graph.node[at];
            name = match node.op_type.as_str() {
                "Reshape" | "Identity" | "Cast" | "Squeeze" | "Unsqueeze" => node.input.first()?,
                "Add" => node.input.iter().find(|input| self.constant(input).is_none())?,
                _ => return None,
            };
        }
        None
    }
}
