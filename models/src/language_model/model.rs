//! A causal language model: loaded from an ONNX file, and run on tokens.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use tract_onnx::prelude::TValue;

use super::{
    file, find, graph,
    injector::Injector,
    insert_nodes, interface,
    interface::Interface,
    layers, padding,
    point::{FoundPoint, InjectionPoint},
};
use crate::Error;

/// A causal language model that is ready to run.
pub struct LanguageModel {
    plan: Arc<graph::Plan>,
    interface: Interface,
    injector: Arc<dyn Injector>,
    points: Vec<FoundPoint>,
    metadata: BTreeMap<String, String>,
    vocabulary: usize,
    positions: Option<usize>,
}

/// The model's scores of the token after each token.
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
    /// Reads an ONNX file, finds the layers of `points` and connects the injector to them.
    ///
    /// # Errors
    /// The file is not a causal language model with the input `input_ids` and, optionally,
    /// `attention_mask`, `position_ids` and a cache (`past_key_values.N.key` and `.value` with the
    /// outputs `present.N.key` and `.value`, as optimum names them); or a point has no layer,
    /// several, or one of another size. See [`Error`].
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
        let interface = interface::check(graph).map_err(&refuse)?;
        let (positions, found) = {
            let tensors = layers::GraphTensors::of(graph);
            let layers = tensors.layers(&scopes);
            (padding::positions(graph, &layers), find::find(points, &tensors, &layers)?)
        };
        let points_found = insert_nodes::inject(graph, points, &found).ok_or_else(|| {
            refuse("has nodes that read from each other in a circle; export the model again".into())
        })?;
        let loaded = graph::load(proto, path, &interface, points, &points_found)?;
        Ok(LanguageModel {
            plan: loaded.plan,
            interface,
            injector,
            points: points_found,
            metadata,
            vocabulary: loaded.vocabulary,
            positions,
        })
    }

    /// The logits after every token of `ids`.
    ///
    /// A longer sequence that begins with `ids` has the same rows bit for bit, and the injector
    /// sees the same activations, as long as it gives the same answers: while a text grows,
    /// earlier answers need not be computed again. This was measured on one machine. It may not
    /// hold where the model has a table of positions and the sequence ends less than 64 tokens
    /// before the table does.
    ///
    /// # Errors
    /// There are no tokens, token ids that the model does not have, or more tokens than it has
    /// positions for; tract fails ([`Error::Run`]); the injector fails ([`Error::Injector`]).
    pub fn logits(&self, ids: &[u32]) -> Result<Logits, Error> {
        self.check(ids)?;
        let padded = padding::padded(ids.len(), self.positions);
        Ok(self.run(&graph::Run { ids, before: 0, past: &[], padded })?.0)
    }

    /// Whether the export has a cache of keys and values.
    pub fn has_cache(&self) -> bool {
        !self.interface.cache.is_empty()
    }

    /// The logits after the tokens from `before` on, and the cache of all. `past` is that of the
    /// tokens before.
    pub(super) fn after(
        &self,
        ids: &[u32],
        before: usize,
        past: &[TValue],
    ) -> Result<(Logits, Vec<TValue>), Error> {
        self.check(ids)?;
        let ids = &ids[before..];
        if ids.is_empty() {
            return Err(Error::Tokens("there is no token to append".into()));
        }
        self.run(&graph::Run { ids, before, past, padded: ids.len() })
    }

    fn run(&self, run: &graph::Run<'_>) -> Result<(Logits, Vec<TValue>), Error> {
        let rows = run.ids.len();
        let (values, cache) =
            graph::run(&self.plan, &self.interface, run, Arc::clone(&self.injector))?;
        if values.len() != rows.saturating_mul(self.vocabulary) {
            let what = format!("it returned {} logits", values.len());
            return Err(Error::Run { tokens: rows, what });
        }
        Ok((Logits { values, rows, vocabulary: self.vocabulary }, cache))
    }

    fn check(&self, ids: &[u32]) -> Result<(), Error> {
        if ids.is_empty() {
            return Err(Error::Tokens(
                "there is no token to begin with; the text must not be empty".into(),
            ));
        }
        if let Some(positions) = self.positions.filter(|&positions| ids.len() > positions) {
            return Err(Error::Tokens(format!(
                "{} tokens are more than the {positions} that the model can read at once; pass a shorter text",
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

    /// The points with their tensors, in the order of the graph.
    pub fn points(&self) -> &[FoundPoint] {
        &self.points
    }

    /// `metadata_props` of the ONNX file.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Number of tokens in the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Most tokens that the model can read at once, if it has a table of positions.
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
