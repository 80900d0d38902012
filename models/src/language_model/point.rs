//! Where deltas are added: what is asked for, and what was found.
//!
//! Must not know how layers are found.

use crate::AppliesTo;

/// A place in a language model where a delta is to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectionPoint {
    /// The layer's name in the base model, as an adapter has it:
    /// `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// [`AppliesTo::Output`]: the delta is added to what the layer puts out, bias included. [`AppliesTo::Input`]: to what this
    /// layer reads; other readers of that tensor do not see it.
    pub applies_to: AppliesTo,
    /// Features of the layer's input, if the delta depends on it; for embeddings, entries of the
    /// table.
    pub x_dim: Option<usize>,
    /// Features of the tensor that the delta is added to.
    pub base_dim: usize,
    /// The layer's output by its name in the ONNX file (`--map MODULE=TENSOR`), if the layer is
    /// not to be found by its name. The node that makes it, or makes what a bias is added to,
    /// is the layer.
    pub tensor: Option<String>,
}

/// A point that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPoint {
    /// Index into the list of points that was given.
    pub point: usize,
    /// The layer's name in the base model, as it was given.
    pub module: String,
    /// The tensor that the delta is added to, by its name in the ONNX file.
    pub tensor: String,
    /// The tensor that the layer reads, by its name in the ONNX file.
    pub input: String,
}
