//! The points of a model where deltas are added: as requested, and as found.
//!
//! Must not know how layers are found.

use crate::AppliesTo;

/// A requested point of a language model where a delta is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectionPoint {
    /// The layer's name in the base model, as an adapter has it:
    /// `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// [`AppliesTo::Output`]: the delta is added to the layer's output, after its bias.
    /// [`AppliesTo::Input`]: to the layer's input; other readers of that tensor do not see it.
    pub applies_to: AppliesTo,
    /// Features of the layer's input, if the delta depends on it; for embeddings, entries of the
    /// table.
    pub x_dim: Option<usize>,
    /// Features of the tensor that the delta is added to.
    pub base_dim: usize,
    /// The layer's output by its name in the ONNX file (`--map MODULE=TENSOR`), if the layer is
    /// not looked up by its own name. The layer is the node that produces it, before a bias.
    pub tensor: Option<String>,
}

/// A point that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPoint {
    /// Index into the list of requested points.
    pub point: usize,
    /// The layer's name in the base model, as requested.
    pub module: String,
    /// The tensor that the delta is added to, by its name in the ONNX file.
    pub tensor: String,
    /// The tensor that the layer reads, by its name in the ONNX file.
    pub input: String,
}
