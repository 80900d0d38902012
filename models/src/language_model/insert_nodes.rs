//! Inserts injection nodes into the graph.
//!
//! Points that read the same tensor become one node. Its inputs are that tensor and every point's
//! base; its outputs take the place of the bases. Must not know what is injected or how graphs are
//! run.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tract_onnx::pb::{self, AttributeProto, NodeProto, attribute_proto::AttributeType};

use super::{
    find::FoundLayer,
    point::{FoundPoint, InjectionPoint},
};
use crate::AppliesTo;

/// The operator of the inserted nodes.
pub(super) const OPERATOR: &str = "ZkloraInject";
/// Its attribute: the indices of its points.
pub(super) const POINTS: &str = "points";
/// The domain of all inserted operators.
pub(super) const DOMAIN: &str = "zklora";

/// Inserts the nodes. Returns the points in the order of the graph, or none if the graph has a
/// cycle.
pub(super) fn inject(
    graph: &mut pb::GraphProto,
    points: &[InjectionPoint],
    found: &[FoundLayer],
) -> Option<Vec<FoundPoint>> {
    let mut names = Names::of(graph);
    let mut at: Vec<FoundPoint> = Vec::with_capacity(points.len());
    // Inputs first: a delta at the output of the same layer then depends on the changed input.
    for applies_to in [AppliesTo::Input, AppliesTo::Output] {
        let mut groups: BTreeMap<(usize, String), Vec<usize>> = BTreeMap::new();
        for (point, layer) in
            found.iter().enumerate().filter(|(point, _)| points[*point].applies_to == applies_to)
        {
            let x = graph.node[layer.layer.node].input[layer.layer.input].clone();
            let first =
                found.iter().map(|other| &other.layer).filter(|other| other.x == layer.layer.x);
            groups.entry((first.map(|other| other.node).min()?, x)).or_default().push(point);
        }
        for ((_, x), group) in groups {
            let mut input = vec![x.clone()];
            let mut output = Vec::with_capacity(group.len());
            for &point in &group {
                let FoundLayer { layer, output: tensor } = &found[point];
                let fresh = names.fresh();
                let adapted = match applies_to {
                    AppliesTo::Input => {
                        input.push(x.clone());
                        graph.node[layer.node].input[layer.input].clone_from(&fresh);
                        fresh
                    }
                    AppliesTo::Output => {
                        // Rename the base instead of every reader of it, so that outputs of the
                        // graph keep their names.
                        rename_output(graph, tensor, &fresh);
                        input.push(fresh);
                        tensor.clone()
                    }
                };
                output.push(adapted);
                let tensor = if applies_to == AppliesTo::Input { &x } else { tensor };
                at.push(FoundPoint {
                    point,
                    module: points[point].module.clone(),
                    tensor: tensor.clone(),
                    input: layer.x.clone(),
                });
            }
            graph.node.push(node(&group, input, output, names.fresh()));
        }
    }
    sort(graph)?;
    let order: HashMap<&str, usize> = graph
        .node
        .iter()
        .enumerate()
        .flat_map(|(at, node)| node.output.iter().map(move |name| (name.as_str(), at)))
        .collect();
    at.sort_by_key(|point| {
        (order.get(found[point.point].layer.output.as_str()).copied(), point.point)
    });
    Some(at)
}

fn node(points: &[usize], input: Vec<String>, output: Vec<String>, name: String) -> NodeProto {
    let indices = points.iter().map(|&point| point as i64).collect();
    let attribute = AttributeProto {
        name: POINTS.into(),
        r#type: AttributeType::Ints as i32,
        ints: indices,
        ..AttributeProto::default()
    };
    NodeProto {
        op_type: OPERATOR.into(),
        domain: DOMAIN.into(),
        name,
        input,
        output,
        attribute: vec![attribute],
        ..NodeProto::default()
    }
}

fn rename_output(graph: &mut pb::GraphProto, from: &str, to: &str) {
    for output in
        graph.node.iter_mut().flat_map(|node| &mut node.output).filter(|name| *name == from)
    {
        to.clone_into(output);
    }
}

/// Makes names that are not used in the graph.
pub(super) struct Names {
    taken: HashSet<String>,
    next: usize,
}

impl Names {
    pub fn of(graph: &pb::GraphProto) -> Self {
        let nodes = graph
            .node
            .iter()
            .flat_map(|node| node.input.iter().chain(&node.output).chain([&node.name]));
        let stored = graph.initializer.iter().map(|tensor| &tensor.name);
        Names { taken: nodes.chain(stored).cloned().collect(), next: 0 }
    }

    pub fn fresh(&mut self) -> String {
        loop {
            let name = format!("zklora.{}", self.next);
            self.next += 1;
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// Puts every node after those that it reads from, and otherwise keeps the order. None if there is
/// a cycle.
pub(super) fn sort(graph: &mut pb::GraphProto) -> Option<()> {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); graph.node.len()];
    let mut missing = vec![0usize; graph.node.len()];
    let producers: HashMap<&str, usize> = graph
        .node
        .iter()
        .enumerate()
        .flat_map(|(at, node)| node.output.iter().map(move |name| (name.as_str(), at)))
        .collect();
    for (at, node) in graph.node.iter().enumerate() {
        for input in node.input.iter().filter(|input| !input.is_empty()) {
            if let Some(&producer) = producers.get(input.as_str()) {
                readers[producer].push(at);
                missing[at] += 1;
            }
        }
    }
    let mut ready: BTreeSet<usize> = (0..missing.len()).filter(|&at| missing[at] == 0).collect();
    let mut order = Vec::with_capacity(missing.len());
    while let Some(at) = ready.pop_first() {
        order.push(at);
        for &reader in &readers[at] {
            missing[reader] -= 1;
            if missing[reader] == 0 {
                ready.insert(reader);
            }
        }
    }
    if order.len() < missing.len() {
        return None;
    }
    let mut nodes: Vec<Option<NodeProto>> =
        std::mem::take(&mut graph.node).into_iter().map(Some).collect();
    graph.node = order.into_iter().filter_map(|at| nodes[at].take()).collect();
    Some(())
}
