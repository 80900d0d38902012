//! Checks the inputs and outputs of the model: token ids in, logits out, and no input that a caller
//! cannot fill in.
//!
//! Must not know the nodes in between.

use tract_onnx::pb::{self, tensor_shape_proto::dimension::Value, type_proto};

/// An input that is filled in for a sequence of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The tokens.
    Ids,
    /// 1 for a token, 0 for padding.
    Mask,
    /// 0, 1, 2, …
    Positions,
}

const LOGITS: &str = "logits";

/// The inputs of the model, in their order. Outputs other than the logits are removed from the
/// graph.
pub(super) fn check(graph: &mut pb::GraphProto) -> Result<Vec<Input>, String> {
    let stored: std::collections::HashSet<&str> =
        graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let fed = || graph.input.iter().filter(|input| !stored.contains(input.name.as_str()));
    let mut inputs = Vec::new();
    for input in fed() {
        inputs.push(match input.name.as_str() {
            "input_ids" => Input::Ids,
            "attention_mask" => Input::Mask,
            "position_ids" => Input::Positions,
            other => {
                let shown = crate::error::quoted(other);
                return Err(format!(
                    "takes the input {shown}, but only input_ids, attention_mask and position_ids are supported; to export a model \
                     without its cache of keys and values, call it with use_cache=False (optimum: --task text-generation, \
                     without -with-past)"
                ));
            }
        });
    }
    if !inputs.contains(&Input::Ids) {
        return Err(
            "has no input called input_ids; export a causal language model that takes token ids"
                .into(),
        );
    }
    fed().try_for_each(check_shape)?;
    let at = graph.output.iter().position(|output| output.name == LOGITS).unwrap_or(0);
    if graph.output.is_empty() {
        return Err("has no output; export the model again".into());
    }
    graph.output = vec![graph.output.swap_remove(at)];
    Ok(inputs)
}

/// The batch may be 1, and the sequence may have any length.
fn check_shape(input: &pb::ValueInfoProto) -> Result<(), String> {
    let Some(type_proto::Value::TensorType(tensor)) =
        input.r#type.as_ref().and_then(|of| of.value.as_ref())
    else {
        return Err(format!(
            "does not state the type of its input {}; export the model again",
            crate::error::quoted(&input.name)
        ));
    };
    let Some(shape) = &tensor.shape else { return Ok(()) };
    let sizes: Vec<Option<i64>> = shape
        .dim
        .iter()
        .map(|dim| match dim.value {
            Some(Value::DimValue(size)) => Some(size),
            _ => None,
        })
        .collect();
    match sizes.as_slice() {
        [None | Some(1), None] => Ok(()),
        [None | Some(1), Some(size)] => Err(format!(
            "takes exactly {size} tokens; export it with a dynamic sequence (dynamic_shapes or dynamic_axes of torch.onnx.export)"
        )),
        _ => Err(format!(
            "its input {} is not one sequence, [1, tokens]: export it for a batch of 1",
            crate::error::quoted(&input.name)
        )),
    }
}
