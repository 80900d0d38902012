//! What a caller chooses when an adapter is read.

use std::path::Path;

/// How an adapter is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions<'a> {
    /// The folder of the base model (`model.safetensors` or shards). The whole base model is read,
    /// to compute its fingerprint, and it must have every module that the adapter changes.
    pub base: Option<&'a Path>,
    /// The name of the base model; none takes the adapter's.
    pub base_name: Option<&'a str>,
    /// Patterns for the names of modules, as [`export`](crate::export()) takes them; none for all.
    /// What belongs to other modules is not read.
    pub modules: &'a [String],
    /// Texts in the names of tensors, each with what is read in its place, in this order. An empty
    /// text stands for the beginning.
    pub rename: &'a [(String, String)],
    /// Whether layers that were trained whole are left out, although the base model is given.
    pub lora_only: bool,
    /// Tensors of such layers that are left out (names of [`LeftOut`](super::LeftOut)).
    pub left_out: &'a [String],
}
