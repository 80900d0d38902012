//! Maps nodes of tract's typed graph back to the ONNX nodes and initialisers that they come from.
//!
//! Error messages and explanations use the names of the file. Knows names only.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb;

use crate::ingest::protobuf::node_names::name_of;

/// Name and operator of every ONNX node, and the names of its initialisers.
#[derive(Clone)]
pub(in crate::ingest) struct Origins {
    nodes: Vec<(String, String)>,
    tensors: HashSet<String>,
}

/// What the compiler made of one node of the ONNX graph.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct NodeOutcome {
    /// The node's name.
    pub node: String,
    /// Its ONNX operator.
    pub operator: String,
    /// Its output, in words.
    pub became: String,
}

impl Origins {
    pub fn of(proto: &pb::ModelProto) -> Self {
        let nodes = proto.graph.iter().flat_map(|graph| &graph.node);
        let tensors = proto
            .graph
            .iter()
            .flat_map(|graph| &graph.initializer)
            .map(|tensor| tensor.name.clone())
            .collect();
        Self {
            nodes: nodes.map(|node| (name_of(node).into(), node.op_type.clone())).collect(),
            tensors,
        }
    }

    /// Whether an initialiser has this name.
    pub fn is_initializer(&self, name: &str) -> bool {
        self.tensors.contains(name)
    }

    /// The ONNX node behind a node of the typed graph, whose name begins with the ONNX name.
    pub fn of_node<'a>(
        &'a self,
        typed_name: &'a str,
        typed_operator: &'a str,
    ) -> (&'a str, &'a str) {
        let is_prefix = |name: &str| {
            typed_name
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let longest = self
            .nodes
            .iter()
            .filter(|(name, _)| is_prefix(name))
            .max_by_key(|(name, _)| name.len());
        longest.map_or((typed_name, typed_operator), |(name, operator)| (name, operator))
    }

    /// The initialiser behind a constant of the typed graph, whose name may end in the number of
    /// its outlet.
    pub fn of_constant<'a>(&self, typed_name: &'a str) -> &'a str {
        let numbered = typed_name.strip_suffix(".0").filter(|name| self.tensors.contains(*name));
        numbered.filter(|_| !self.tensors.contains(typed_name)).unwrap_or(typed_name)
    }

    /// One outcome for every ONNX node: the last of those seen in the typed graph, which may have
    /// several nodes for one ONNX node.
    pub fn all_steps(&self, seen: Vec<NodeOutcome>) -> Vec<NodeOutcome> {
        let mut seen: HashMap<String, String> =
            seen.into_iter().map(|step| (step.node, step.became)).collect();
        let steps = self.nodes.iter().map(|(node, operator)| NodeOutcome {
            node: node.clone(),
            operator: operator.clone(),
            became: seen
                .remove(node)
                .unwrap_or_else(|| "folded into constants, or not needed".into()),
        });
        steps.collect()
    }
}
