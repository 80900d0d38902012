//! A text that grows: with the model's cache of keys and values, each token is run once.

use tract_onnx::prelude::TValue;

use super::model::{LanguageModel, Logits};
use crate::Error;

/// The tokens of a text so far, and the model's cache of them.
///
/// A model whose export has no cache runs all tokens again for every new one. The injector then
/// gets the earlier rows again, bit for bit (see [`LanguageModel::logits`]).
pub struct Sequence<'m> {
    model: &'m LanguageModel,
    ids: Vec<u32>,
    /// Keys and values of the tokens, in the order of the model's inputs.
    past: Vec<TValue>,
}

impl<'m> Sequence<'m> {
    /// An empty text.
    pub fn new(model: &'m LanguageModel) -> Sequence<'m> {
        Sequence { model, ids: Vec::new(), past: Vec::new() }
    }

    /// Appends tokens, and returns the logits after each of them.
    ///
    /// # Errors
    /// Those of [`LanguageModel::logits`] for all tokens. Nothing is appended then.
    pub fn push(&mut self, ids: &[u32]) -> Result<Logits, Error> {
        let before = self.ids.len();
        self.ids.extend_from_slice(ids);
        let logits = self.run(before);
        if logits.is_err() {
            self.ids.truncate(before);
        }
        logits
    }

    fn run(&mut self, before: usize) -> Result<Logits, Error> {
        if self.model.has_cache() {
            let (logits, past) = self.model.after(&self.ids, before, &self.past)?;
            self.past = past;
            return Ok(logits);
        }
        let mut logits = self.model.logits(&self.ids)?;
        logits.values.drain(..before * logits.vocabulary);
        logits.rows -= before;
        Ok(logits)
    }

    /// Tokens so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }
}

impl std::fmt::Debug for Sequence<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sequence({} tokens)", self.ids.len())
    }
}
