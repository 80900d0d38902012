//! Turns the protobuf into tract's typed graph, and keeps the ONNX names of nodes for error
//! messages.
//!
//! Only this file drives tract; it knows nothing of linear maps.

use std::collections::HashMap;

use tract_onnx::{
    pb,
    prelude::{InferenceModelExt, OutletId, TypedModel},
    tract_core::internal::TDim,
};
use zklora_files::text::condensed;
use zklora_models::panics;

use super::{
    budget::FoldingBudget,
    builders, dimensions,
    inference::infer_within_limits,
    origins::Origins,
    withheld::{Withheld, withhold},
};
use crate::ingest::error::IngestError;

/// Most nodes of a graph that is decluttered.
const MAX_DECLUTTERED: usize = 1 << 11;
/// Most elements that decluttering compares, if it compares every constant with all others of its
/// size.
const MAX_COMPARED: usize = 1 << 32;

/// A typed graph and the ONNX nodes that it came from.
pub(in crate::ingest) struct Graph {
    pub model: TypedModel,
    pub origins: Origins,
    /// Names of the inputs in the file. The model's sources may have the names of the nodes behind
    /// them.
    pub inputs: Vec<String>,
    /// Constants that were replaced by sources in the model.
    pub withheld: Withheld,
    /// Elements of all tensors in the file.
    pub stored: usize,
}

/// Infers types and shapes and folds constants. Declared types of intermediate values are redundant
/// and ignored.
pub(in crate::ingest) fn typed(proto: &pb::ModelProto, name: &str) -> Result<Graph, IngestError> {
    let analysis = |what: String| IngestError::Analysis { name: name.into(), what };
    let parsed = builders::onnx()
        .parse(proto, None)
        .map_err(|error| analysis(condensed(format_args!("{error:#}"))))?;
    if !parsed.unresolved_inputs.is_empty() {
        return Err(analysis(format!("no node makes {:?}", parsed.unresolved_inputs)));
    }
    let origins = Origins::of(proto);
    // Remove nodes that the output does not need, so they are not computed.
    let mut model = parsed
        .model
        .eliminate_dead_branches()
        .map_err(|error| analysis(condensed(format_args!("{error:#}"))))?;
    dimensions::name_open_dimensions(&mut model, proto, name)?;
    let order =
        model.eval_order().map_err(|error| analysis(condensed(format_args!("{error:#}"))))?;
    let withheld = withhold(&mut model, &order, &origins);
    let stored = stored(proto);
    infer_within_limits(&mut model, &order, &origins, FoldingBudget::new(stored), name)?;
    let model =
        model.into_typed().map_err(|error| analysis(condensed(format_args!("{error:#}"))))?;
    let file = proto.graph.iter().flat_map(|graph| &graph.input).map(|input| input.name.clone());
    let inputs: Vec<String> = file.filter(|name| !origins.is_initializer(name)).collect();
    if inputs.len() != model.inputs.len() {
        return Err(analysis(format!(
            "tract finds {} inputs, but the file has {}",
            model.inputs.len(),
            inputs.len()
        )));
    }
    Ok(Graph { model, origins, inputs, withheld, stored })
}

/// Elements of all tensors of a file whose shapes have been checked.
fn stored(proto: &pb::ModelProto) -> usize {
    let graphs = || proto.graph.iter();
    let attributes = graphs()
        .flat_map(|graph| &graph.node)
        .flat_map(|node| &node.attribute)
        .flat_map(|attribute| &attribute.t);
    let tensors = graphs().flat_map(|graph| &graph.initializer).chain(attributes);
    let elements = tensors.map(|tensor| {
        tensor
            .dims
            .iter()
            .fold(1usize, |all, dim| all.saturating_mul(usize::try_from(*dim).unwrap_or(0)))
    });
    elements.fold(0, usize::saturating_add)
}

impl Graph {
    /// The model after tract's decluttering, if that succeeds and does not take too long.
    pub fn decluttered(&self) -> Option<TypedModel> {
        if !self.can_be_decluttered() {
            return None;
        }
        let mut model = self.model.clone();
        // Sources keep their shape only if they are inputs of the model. Otherwise tract may
        // transpose them, without their tensors.
        let sources = model
            .nodes()
            .iter()
            .filter(|node| self.withheld.contains_key(&node.name))
            .map(|node| node.id);
        let sources: Vec<usize> = sources.collect();
        model.inputs.extend(sources.into_iter().map(|node| OutletId::new(node, 0)));
        let decluttered = panics::catch(|| model.into_decluttered().ok()).flatten()?;
        // Decluttering may remove a broadcast of an open size, which changes the shape.
        let same_shape = output_shape(&decluttered)
            .is_some_and(|shape| output_shape(&self.model) == Some(shape));
        same_shape.then_some(decluttered)
    }

    /// Whether decluttering is fast enough: it compares constants with each other.
    fn can_be_decluttered(&self) -> bool {
        let mut alike: HashMap<usize, usize> = HashMap::new();
        let outputs = self.model.nodes().iter().flat_map(|node| &node.outputs);
        for constant in outputs.filter_map(|output| output.fact.konst.as_ref()) {
            *alike.entry(constant.len()).or_default() += 1;
        }
        let compared = alike.iter().try_fold(0usize, |sum, (elements, tensors)| {
            elements.checked_mul(*tensors)?.checked_mul(*tensors)?.checked_add(sum)
        });
        self.model.nodes().len() <= MAX_DECLUTTERED
            && compared.is_some_and(|compared| compared <= MAX_COMPARED)
    }
}

fn output_shape(model: &TypedModel) -> Option<&[TDim]> {
    match model.output_outlets().ok()? {
        [output] => model.outlet_fact(*output).ok().map(|fact| fact.shape.dims()),
        _ => None,
    }
}
