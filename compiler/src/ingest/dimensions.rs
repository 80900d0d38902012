//! Every dimension of an input gets a size or a symbol, whatever the file calls it.
//!
//! ONNX lets a dimension have no name at all (the way to say "any number of rows"), or any text as one. tract reads names as
//! expressions and leaves what it cannot read unknown, which it then refuses to work with. Equal names are equal dimensions, as in ONNX.
//! Knows inputs alone; what inference finds out about the rest follows from them.

use super::error::IngestError;
use tract_onnx::pb::{self, tensor_shape_proto::dimension::Value, type_proto::Value::TensorType};
use tract_onnx::prelude::TDim;
use tract_onnx::tract_hir::internal::{Factoid, InferenceModel};

/// Puts a symbol in every dimension of an input that has neither a size nor a symbol yet.
pub(super) fn settle(model: &mut InferenceModel, proto: &pb::ModelProto, name: &str) -> Result<(), IngestError> {
    let refuse = |what: String| IngestError::Graph { name: name.into(), what };
    for outlet in model.inputs.clone() {
        let input = model.node(outlet.node).name.clone();
        let unreadable = |error| refuse(format!("input `{input}` cannot be read: {error:#}"));
        let mut fact = model.outlet_fact(outlet).map_err(unreadable)?.clone();
        let Some(rank) = fact.shape.rank().concretize() else {
            return Err(refuse(format!("input `{input}` has no shape; export with at least its number of dimensions")));
        };
        for axis in 0..usize::try_from(rank).unwrap_or(0) {
            let known = fact.shape.dim(axis).and_then(|dim| dim.concretize());
            // A name like `-1` reads as a number that is no size.
            if known.is_some_and(|dim| dim.as_i64().is_none_or(|size| size > 0)) {
                continue;
            }
            let symbol = match name_of(proto, &input, axis) {
                Some(own) => model.symbols.sym(own),
                None => model.symbols.new_with_prefix(&format!("unk_{input}_{axis}")),
            };
            fact.shape.set_dim(axis, TDim::from(symbol));
        }
        model.set_outlet_fact(outlet, fact).map_err(unreadable)?;
    }
    Ok(())
}

/// The name of a dimension, where it says which one it is.
fn name_of<'a>(proto: &'a pb::ModelProto, input: &str, axis: usize) -> Option<&'a str> {
    let input = proto.graph.iter().flat_map(|graph| &graph.input).find(|info| info.name == input)?;
    let Some(TensorType(tensor)) = &input.r#type.as_ref()?.value else { return None };
    match &tensor.shape.as_ref()?.dim.get(axis)?.value {
        Some(Value::DimParam(name)) if !matches!(name.trim(), "" | "?" | "-1") => Some(name),
        _ => None,
    }
}
