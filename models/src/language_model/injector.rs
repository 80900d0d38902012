//! The call-back: activations go out, what takes the place of a layer's output or input comes back.
//!
//! Must not know how a model is run, nor what computes the deltas.

/// What is computed elsewhere for points that read the same activations.
pub trait Injector: Send + Sync {
    /// Returns, for each point of the call, what takes the place of its base tensor: `[rows, d]`,
    /// row-major.
    ///
    /// Called once per forward pass for every group of points, in the order of the graph; a later
    /// group's activations depend on what an earlier one was given.
    ///
    /// # Errors
    /// Ends the forward pass; [`crate::Error::Injector`] holds the error as it is.
    fn inject(
        &self,
        call: &InjectionCall<'_>,
    ) -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error + Send + Sync>>;
}

/// One group of points during one forward pass.
#[derive(Debug)]
pub struct InjectionCall<'a> {
    /// Indices into the list that [`super::LanguageModel::load`] was given.
    pub points: &'a [usize],
    /// What the layers read, for rows `0..rows`.
    pub x: Activations<'a>,
    /// For each point, the tensor that its delta is added to: `[rows, d]`, row-major.
    pub base: Vec<&'a [f32]>,
    /// Number of tokens, from the first; rows that only pad the sequence are left out.
    pub rows: usize,
}

/// What layers read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activations<'a> {
    /// The input of linear layers: `[rows, dim]`, row-major.
    Dense {
        /// The numbers.
        values: &'a [f32],
        /// Features of a row.
        dim: usize,
    },
    /// The input of embeddings: a token number per row.
    Ids(&'a [i64]),
}

/// Adds nothing: the model computes what it computes by itself.
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
