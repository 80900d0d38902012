//! The graph of a language model as tract sees it before it optimises, with its layers marked: for
//! readers that give the graph another meaning than floats.
//!
//! Must not know which meaning.

use std::{collections::BTreeMap, path::Path};

use tract_onnx::prelude::*;

use super::{
    exact_constants, file, find, graph, insert_nodes,
    interface::{self, Input, Interface},
    layers, mark_layers, padding,
    point::InjectionPoint,
};
use crate::Error;

/// The graph of a language model.
#[derive(Debug)]
pub struct LayerGraph {
    /// tract's graph, for a batch of 1 and the symbol [`Self::TOKENS`] tokens. A [`super::Pass`]
    /// follows every layer.
    pub model: TypedModel,
    /// The model's inputs, in their order.
    pub inputs: Vec<Input>,
    /// Names of the layers for messages, in the order of the graph.
    pub layers: Vec<String>,
    /// `metadata_props` of the ONNX file.
    pub metadata: BTreeMap<String, String>,
    /// Most tokens, if the model has a table of positions.
    pub positions: Option<usize>,
    /// For each requested point, the index of its layer.
    pub points: Vec<usize>,
}

impl LayerGraph {
    /// The symbol of the number of tokens.
    pub const TOKENS: &str = graph::TOKENS;

    /// Reads an ONNX file and finds the layers of `points` as
    /// [`LanguageModel::load`](super::LanguageModel::load) does.
    ///
    /// # Errors
    /// A constant that the graph computes has not the same bits everywhere; and those of
    /// [`LanguageModel::load`](super::LanguageModel::load).
    pub fn load(path: &Path, points: &[InjectionPoint]) -> Result<LayerGraph, Error> {
        let refuse = |reason: String| Error::Onnx { path: path.to_owned(), reason };
        let (mut proto, scopes) = file::read(path)?;
        let metadata = proto
            .metadata_props
            .iter()
            .map(|entry| (entry.key.clone(), entry.value.clone()))
            .collect();
        let graph = proto.graph.as_mut().ok_or_else(|| refuse("has no graph".into()))?;
        let interface = interface::check(graph).map_err(&refuse)?;
        if let Some(cache) = interface.cache.first() {
            return Err(refuse(format!(
                "takes the input {}: an integer model reads whole sequences; export it without its cache of keys and values \
                 (use_cache=False; optimum: --task text-generation, without -with-past)",
                cache.past
            )));
        }
        let (positions, found, layers) = {
            let tensors = layers::GraphTensors::of(graph);
            let layers = tensors.layers(&scopes);
            (padding::positions(graph, &layers), find::find(points, &tensors, &layers)?, layers)
        };
        let index = |node| layers.iter().position(|layer| layer.node == node);
        let points = found.iter().filter_map(|found| index(found.layer.node)).collect();
        let names = layers.iter().map(|layer| layer.name().to_owned()).collect();
        mark_layers::mark_layers(graph, &layers);
        insert_nodes::sort(graph).ok_or_else(|| {
            refuse("has nodes that read from each other in a circle; export the model again".into())
        })?;
        if let Some(node) = exact_constants::first_inexact(graph) {
            return Err(refuse(format!(
                "computes a constant with {} (node {}), which gives other bits on other machines; \
                 export it with constants folded",
                crate::error::quoted(&node.op_type),
                crate::error::quoted(&node.name)
            )));
        }
        let model = graph::unoptimised(proto, path, &interface)?;
        let inputs = interface.inputs;
        Ok(LayerGraph { model, inputs, layers: names, metadata, positions, points })
    }

    /// The values of the model's inputs for a sequence of tokens.
    ///
    /// # Errors
    /// tract cannot make a tensor.
    pub fn values(&self, ids: &[u32]) -> TractResult<TVec<TValue>> {
        let interface = Interface { inputs: self.inputs.clone(), cache: Vec::new() };
        let run = graph::Run { ids, before: 0, past: &[], padded: ids.len() };
        graph::values(&self.model, &interface, &run)
    }
}
