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
    /// Keys or values of earlier tokens: the tensor of the cache with this index.
    Past(usize),
}

/// Keys or values of one layer, `[1, heads, tokens, width]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CacheTensor {
    /// The input for those of earlier tokens.
    pub past: String,
    /// The output with those of all tokens.
    pub present: String,
    pub heads: usize,
    pub width: usize,
}

/// The inputs of the model, in their order, and its cache. The outputs are the logits, then the
/// cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub inputs: Vec<Input>,
    pub cache: Vec<CacheTensor>,
}

const LOGITS: &str = "logits";
/// The way out for a cache that is not supported.
const WITHOUT: &str = "or without its cache: call it with use_cache=False (optimum: --task text-generation, without -with-past)";

/// Checks inputs and outputs. Outputs other than the logits and the cache are removed from the
/// graph.
pub(super) fn check(graph: &mut pb::GraphProto) -> Result<Interface, String> {
    let stored: std::collections::HashSet<&str> =
        graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let fed = || graph.input.iter().filter(|input| !stored.contains(input.name.as_str()));
    let (mut inputs, mut cache) = (Vec::new(), Vec::new());
    for input in fed() {
        inputs.push(match input.name.as_str() {
            "input_ids" => Input::Ids,
            "attention_mask" => Input::Mask,
            "position_ids" => Input::Positions,
            other => {
                let Some(present) = present_of(other) else {
                    return Err(format!(
                        "takes the input {}, but only input_ids, attention_mask, position_ids and a cache of \
                         past_key_values.N.key and past_key_values.N.value are supported; export it with these names, {WITHOUT}",
                        crate::error::quoted(other)
                    ));
                };
                cache.push(cache_tensor(input, present)?);
                Input::Past(cache.len() - 1)
            }
        });
    }
    if !inputs.contains(&Input::Ids) {
        return Err(
            "has no input called input_ids; export a causal language model that takes token ids"
                .into(),
        );
    }
    fed()
        .zip(&inputs)
        .filter(|(_, input)| !matches!(input, Input::Past(_)))
        .try_for_each(|(input, _)| check_shape(input))?;
    let at = graph.output.iter().position(|output| output.name == LOGITS).unwrap_or(0);
    if graph.output.is_empty() {
        return Err("has no output; export the model again".into());
    }
    let mut outputs = vec![graph.output[at].clone()];
    for CacheTensor { past, present, .. } in &cache {
        let found = graph.output.iter().find(|output| output.name == *present);
        outputs.push(found.cloned().ok_or_else(|| {
            format!(
                "takes the cache {} and gives no output {}; export the model again, {WITHOUT}",
                crate::error::quoted(past),
                crate::error::quoted(present)
            )
        })?);
    }
    graph.output = outputs;
    Ok(Interface { inputs, cache })
}

/// The output that belongs to an input for keys or values.
fn present_of(input: &str) -> Option<String> {
    let of_layer = input.strip_prefix("past_key_values.")?;
    let (layer, part) = of_layer.split_once('.')?;
    let is_number = !layer.is_empty() && layer.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && matches!(part, "key" | "value")).then(|| format!("present.{of_layer}"))
}

/// The batch may be 1 and the tokens any number; heads and their width are fixed.
fn cache_tensor(input: &pb::ValueInfoProto, present: String) -> Result<CacheTensor, String> {
    let past = &input.name;
    let refuse =
        |why: &str| Err(format!("its input {} {why}, {WITHOUT}", crate::error::quoted(past)));
    let Some(type_proto::Value::TensorType(tensor)) =
        input.r#type.as_ref().and_then(|of| of.value.as_ref())
    else {
        return refuse("does not state its type; export the model again");
    };
    if tensor.elem_type != pb::tensor_proto::DataType::Float as i32 {
        return refuse("is not of 32-bit floats; export the model in float32");
    }
    let dims = tensor.shape.as_ref().map(|shape| shape.dim.as_slice()).unwrap_or_default();
    let sizes: Vec<Option<i64>> = dims.iter().map(size).collect();
    let of = |size: i64| usize::try_from(size).ok().filter(|size| (1..=MAX_WIDTH).contains(size));
    match sizes.as_slice() {
        [None | Some(1), Some(heads), None, Some(width)] => {
            let (heads, width) = (of(*heads), of(*width));
            let (Some(heads), Some(width)) = (heads, width) else {
                return refuse(&format!("has the shape {sizes:?}; export the model again"));
            };
            Ok(CacheTensor { past: past.clone(), present, heads, width })
        }
        _ => refuse(
            "does not have the shape [1, heads, tokens, width] with any number of tokens and fixed heads and width; export \
             it with a dynamic past",
        ),
    }
}

/// Most heads of a layer, and most features of a head.
const MAX_WIDTH: usize = 1 << 16;

fn size(dim: &pb::tensor_shape_proto::Dimension) -> Option<i64> {
    match dim.value {
        Some(Value::DimValue(size)) => Some(size),
        _ => None,
    }
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
    let sizes: Vec<Option<i64>> = shape.dim.iter().map(size).collect();
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
