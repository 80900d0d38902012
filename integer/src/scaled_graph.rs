//! A graph with the scales of its operators: what fixes the integers, adapters aside.

use std::sync::Arc;

use crate::{
    graph::{Graph, Operator},
    products::Scaled,
    scales::Scale,
    tables::Tables,
};

/// A graph with scales.
#[derive(Debug)]
pub struct ScaledGraph {
    /// The operators, with roundings.
    pub graph: Arc<Graph>,
    /// The scales of every operator.
    pub scales: Vec<Scale>,
    /// Fractional bits of scores.
    pub score_bits: i32,
    /// Most tokens of a unit.
    pub tokens: usize,
    /// For linear layers the largest `Σ|w|` of an output, else 0.
    pub largest_sums: Vec<u64>,
    /// The tables of its programs.
    pub tables: Tables,
}

impl ScaledGraph {
    /// One scale for each operator.
    pub fn new(graph: Graph, scales: Vec<Scale>, score_bits: i32, tokens: usize) -> ScaledGraph {
        let largest_sums = largest_sums(&graph, &scales);
        let (graph, tables) = (Arc::new(graph), Tables::default());
        ScaledGraph { graph, scales, score_bits, tokens, largest_sums, tables }
    }
}

fn largest_sums(graph: &Graph, scales: &[Scale]) -> Vec<u64> {
    let each = graph.operators.iter().zip(scales);
    each.map(|(operator, scale)| match (operator, scale) {
        (Operator::Linear { affine, weight, .. }, Scale::Linear { weight_bits, .. }) => {
            let weight = &graph.weights[*weight];
            let gain = affine.gain.as_deref();
            Scaled { weight, gain, bits: *weight_bits }.largest_sum()
        }
        _ => 0,
    })
    .collect()
}
