//! Gives every dimension of an input a size or a symbol.
//!
//! In ONNX a dimension may have no name (which means any number of rows), or any text as its name.
//! tract parses names as expressions, leaves a dimension unknown if that fails, and then refuses to
//! work with it. Equal names mean equal dimensions, as in ONNX. Knows inputs only; inference
//! derives all other dimensions from them.

use std::collections::HashSet;

use tract_onnx::{
    pb::{self, tensor_shape_proto::dimension::Value, type_proto::Value::TensorType},
    prelude::TDim,
    tract_hir::internal::{Factoid, InferenceModel},
};

use crate::ingest::error::IngestError;

/// Gives a symbol to every dimension of an input that has neither a size nor a symbol.
pub(in crate::ingest) fn name_open_dimensions(
    model: &mut InferenceModel,
    proto: &pb::ModelProto,
    name: &str,
) -> Result<(), IngestError> {
    let refuse = |what: String| IngestError::Graph { name: name.into(), what };
    for outlet in model.inputs.clone() {
        let input = model.node(outlet.node).name.clone();
        if proto.graph.iter().flat_map(|graph| &graph.output).any(|output| output.name == input) {
            return Err(refuse(format!(
                "its output is the input `{input}` as it is; there is no adapter in it"
            )));
        }
        let unreadable = |error| refuse(format!("input `{input}` cannot be read: {error:#}"));
        let mut fact = model.outlet_fact(outlet).map_err(unreadable)?.clone();
        let Some(rank) = fact.shape.rank().concretize() else {
            return Err(refuse(format!(
                "input `{input}` has no shape; export with at least its number of dimensions"
            )));
        };
        for axis in 0..usize::try_from(rank).unwrap_or(0) {
            let known = fact.shape.dim(axis).and_then(|dim| dim.concretize());
            // tract parses a name like `-1` as a number, which is not a valid size.
            if known.is_some_and(|dim| dim.as_i64().is_none_or(|size| size > 0)) {
                continue;
            }
            let symbol = match name_of(proto, &input, axis) {
                Some(name) => model.symbols.sym(name),
                None => model.symbols.new_with_prefix(&format!("unk_{input}_{axis}")),
            };
            fact.shape.set_dim(axis, TDim::from(symbol));
        }
        model.set_outlet_fact(outlet, fact).map_err(unreadable)?;
    }
    Ok(())
}

/// Gives the symbolic dimensions of all inputs the names of those of the first input, one by one.
/// Returns whether any name changed.
///
/// An exporter may give the rows of two inputs different names although the graph needs them to be
/// equal. All inputs of a module have the same number of rows, so this loses nothing.
pub(in crate::ingest) fn share_symbols(proto: &mut pb::ModelProto) -> bool {
    let Some(graph) = proto.graph.as_mut() else { return false };
    let given: HashSet<&str> =
        graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let inputs = graph.input.iter_mut().filter(|input| !given.contains(input.name.as_str()));
    let mut symbolic: Vec<Vec<&mut Option<Value>>> = inputs.map(symbolic_dimensions).collect();
    let Some((first, others)) = symbolic.split_first_mut() else { return false };
    if others.is_empty()
        || first.is_empty()
        || others.iter().any(|other| other.len() != first.len())
    {
        return false;
    }
    let mut changed = false;
    for (at, dimension) in first.iter_mut().enumerate() {
        let unnamed = || Value::DimParam(format!("unk_shared_{at}"));
        let shared = dimension
            .take()
            .filter(|value| !matches!(value, Value::DimParam(name) if name.trim().is_empty()))
            .unwrap_or_else(unnamed);
        **dimension = Some(shared.clone());
        for other in others.iter_mut().filter_map(|other| other.get_mut(at)) {
            changed |= other.as_ref() != Some(&shared);
            **other = Some(shared.clone());
        }
    }
    changed
}

/// The dimensions of an input that have no size.
fn symbolic_dimensions(input: &mut pb::ValueInfoProto) -> Vec<&mut Option<Value>> {
    let Some(TensorType(tensor)) =
        input.r#type.as_mut().and_then(|declared| declared.value.as_mut())
    else {
        return vec![];
    };
    let dims = tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim).map(|dim| &mut dim.value);
    dims.filter(|value| !matches!(value, Some(Value::DimValue(_)))).collect()
}

/// The name of a dimension, unless it is one that means "unknown".
fn name_of<'a>(proto: &'a pb::ModelProto, input: &str, axis: usize) -> Option<&'a str> {
    let input =
        proto.graph.iter().flat_map(|graph| &graph.input).find(|info| info.name == input)?;
    let Some(TensorType(tensor)) = &input.r#type.as_ref()?.value else { return None };
    match &tensor.shape.as_ref()?.dim.get(axis)?.value {
        Some(Value::DimParam(name)) if !matches!(name.trim(), "" | "?" | "-1") => Some(name),
        _ => None,
    }
}
