//! Running a causal language model from an ONNX file, with deltas added that somebody else
//! computes.
//!
//! The model is run by `tract`. Where an adapter's modules are, the graph is cut: the activations
//! go to an [`Injector`], and what it answers goes on through the model. This module must not know
//! what computes the deltas, or that anything is proven about them.
//!
//! ```text
//! model.onnx ─ file → protobuf ─ layers, scopes, find → a layer per point ─ surgery → graph with injections
//!            ─ graph, operator → plan of tract ─ logits(ids) → rows of logits ─ generate, loss
//! ```
//!
//! Damaged files are errors, never panics, and nothing outside the model's folder is opened. A base
//! model is the user's own choice all the same: a malicious one can take any amount of time and
//! memory.

mod file;
mod find;
mod generate;
mod graph;
mod injector;
mod interface;
mod layers;
mod loss;
mod opaque;
mod operator;
mod padding;
mod point;
mod sampling;
mod scopes;
mod surgery;
mod tokenizer;

use std::{collections::BTreeMap, path::Path, sync::Arc};

pub use generate::{Stop, generate};
pub use injector::{Activations, Identity, InjectionCall, Injector};
use interface::Input;
pub use loss::{Window, loss};
pub use point::{FoundPoint, InjectionPoint};
pub use sampling::Sampling;
pub use tokenizer::Tokenizer;

use crate::Error;

/// A causal language model that is ready to run.
pub struct LanguageModel {
    plan: Arc<graph::Plan>,
    inputs: Vec<Input>,
    injector: Arc<dyn Injector>,
    points: Vec<FoundPoint>,
    metadata: BTreeMap<String, String>,
    vocabulary: usize,
    positions: Option<usize>,
}

/// What a model says about the token after each token.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    /// `[rows, vocabulary]`, row-major.
    pub values: Vec<f32>,
    /// Tokens.
    pub rows: usize,
    /// Logits of a token.
    pub vocabulary: usize,
}

impl Logits {
    /// The logits after token `at`.
    pub fn row(&self, at: usize) -> Option<&[f32]> {
        (at < self.rows).then(|| &self.values[at * self.vocabulary..][..self.vocabulary])
    }
}

impl LanguageModel {
    /// Reads an ONNX file, finds the layers of `points` and puts the injector there.
    ///
    /// # Errors
    /// A file that is not a causal language model with the inputs `input_ids` and, if it likes,
    /// `attention_mask` and `position_ids`; a point without a layer, with several, or with a
    /// layer of another size. See [`Error`].
    pub fn load(
        path: &Path,
        points: &[InjectionPoint],
        injector: Arc<dyn Injector>,
    ) -> Result<LanguageModel, Error> {
        let refuse = |reason: String| Error::Onnx { path: path.to_owned(), reason };
        let (mut proto, scopes) = file::read(path)?;
        let metadata = proto
            .metadata_props
            .iter()
            .map(|entry| (entry.key.clone(), entry.value.clone()))
            .collect();
        let graph = proto.graph.as_mut().ok_or_else(|| refuse("has no graph".into()))?;
        let inputs = interface::check(graph).map_err(&refuse)?;
        let (positions, found) = {
            let tensors = layers::Tensors::of(graph);
            let layers = tensors.layers(&scopes);
            (padding::positions(graph, &layers), find::find(points, &tensors, &layers)?)
        };
        let points_found = surgery::inject(graph, points, &found)
            .ok_or_else(|| refuse("has nodes that read from each other in a circle".into()))?;
        let loaded = graph::load(proto, path, &inputs, points, &points_found)?;
        Ok(LanguageModel {
            plan: loaded.plan,
            inputs,
            injector,
            points: points_found,
            metadata,
            vocabulary: loaded.vocabulary,
            positions,
        })
    }

    /// The logits after every token of `ids`.
    ///
    /// Rows of a longer sequence that begins with `ids` are the same bit for bit, and so are the
    /// activations that the injector sees, as far as the injector gives the same answers: so
    /// what it answered need not be computed again while a text grows. Measured, on one
    /// machine; where the model has a table of positions and the sequence ends less than 64 tokens
    /// before its end, it may not hold.
    ///
    /// # Errors
    /// No tokens, token numbers that the model does not have, more tokens than it has positions
    /// for, and what the injector returns ([`Error::Injector`]).
    pub fn logits(&self, ids: &[u32]) -> Result<Logits, Error> {
        self.check(ids)?;
        let padded = padding::padded(ids.len(), self.positions);
        let turn = operator::Turn { injector: self.injector.clone(), rows: ids.len(), padded };
        let values = graph::run(&self.plan, &self.inputs, ids, turn)?;
        if values.len() != ids.len().saturating_mul(self.vocabulary) {
            return Err(Error::Tokens(format!(
                "the model put out {} logits for {} tokens",
                values.len(),
                ids.len()
            )));
        }
        Ok(Logits { values, rows: ids.len(), vocabulary: self.vocabulary })
    }

    fn check(&self, ids: &[u32]) -> Result<(), Error> {
        if ids.is_empty() {
            return Err(Error::Tokens(
                "there is no token to begin with; give a text that is not empty".into(),
            ));
        }
        if let Some(positions) = self.positions.filter(|&positions| ids.len() > positions) {
            return Err(Error::Tokens(format!(
                "{} tokens are more than the {positions} that the model can read at once",
                ids.len()
            )));
        }
        match ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            Some(id) => Err(Error::Tokens(format!(
                "token {id} is not one of the model's {}; the tokenizer belongs to another model",
                self.vocabulary
            ))),
            None => Ok(()),
        }
    }

    /// Where the points are, in the order of the graph.
    pub fn points(&self) -> &[FoundPoint] {
        &self.points
    }

    /// `metadata_props` of the ONNX file.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Number of tokens that the model knows.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The most tokens that the model can read at once, if it has a table of positions.
    pub fn max_tokens(&self) -> Option<usize> {
        self.positions
    }
}

impl std::fmt::Debug for LanguageModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LanguageModel")
            .field("points", &self.points)
            .field("vocabulary", &self.vocabulary)
            .finish_non_exhaustive()
    }
}
