//! The callback of a language model: it gets activations and returns the tensors that take the
//! place of a layer's output or input.
//!
//! Must not know how a model is run, nor how deltas are computed.

/// Computes the adapted tensors of points that read the same activations.
pub trait Injector: Send + Sync {
    /// Returns, for each point of the call, the tensor that takes the place of its base tensor:
    /// `[rows, d]`, row-major.
    ///
    /// Called once per forward pass for every group of points, in the order of the graph; a later
    /// group's activations depend on the answer for an earlier one.
    ///
    /// # Errors
    /// An error ends the forward pass; the caller gets it unchanged in [`crate::Error::Injector`].
    fn inject(
        &self,
        call: &InjectionCall<'_>,
    ) -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error + Send + Sync>>;
}

/// One group of points during one forward pass.
#[derive(Debug)]
pub struct InjectionCall<'a> {
    /// Indices into the list of points that was passed to [`super::LanguageModel::load`].
    pub points: &'a [usize],
    /// The tensor that the layers read, rows `0..rows`.
    pub x: Activations<'a>,
    /// For each point, the tensor that its delta is added to: `[rows, d]`, row-major.
    pub base: Vec<&'a [f32]>,
    /// Number of tokens, from the first; rows that only pad the sequence are left out.
    pub rows: usize,
}

/// The input of layers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activations<'a> {
    /// The input of linear layers: `[rows, dim]`, row-major.
    Dense {
        /// The numbers.
        values: &'a [f32],
        /// Features of a row.
        dim: usize,
    },
    /// The input of embeddings: a token id per row.
    Ids(&'a [i64]),
}

/// Adds nothing: the model computes the same as without an injector.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identity;

impl Injector for Identity {
    fn inject(
        &self,
        call: &InjectionCall<'_>,
    ) -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(call.base.iter().map(|base| base.to_vec()).collect())
    }
}
