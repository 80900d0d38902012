//! A text goes on: one token after the other is chosen and appended.
//!
//! Without a cache of keys and values: every token runs the whole sequence again, and what was
//! injected for its beginning is asked for again with the same activations (see
//! [`LanguageModel::logits`]). Must not know about text.

use super::{
    LanguageModel,
    sampling::{Sampler, Sampling},
};
use crate::Error;

/// Why no more tokens came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The model put out one of the stop tokens, which is not among the tokens returned.
    EndOfText,
    /// As many tokens as were asked for.
    Length,
    /// The model cannot read more tokens at once.
    Positions,
    /// The call-back asked for it.
    Callback,
}

/// Appends tokens to `prompt` and returns the new ones. `on_token` is told each at once; if it
/// returns false, that is the last.
///
/// # Errors
/// Those of [`LanguageModel::logits`], and sampling options that make no sense.
pub fn generate(
    model: &LanguageModel,
    prompt: &[u32],
    sampling: &Sampling,
    stop: &[u32],
    mut on_token: impl FnMut(u32) -> bool,
) -> Result<(Vec<u32>, Stop), Error> {
    let mut sampler = Sampler::new(sampling)?;
    let mut ids = prompt.to_vec();
    let ended = loop {
        let new = ids.len() - prompt.len();
        if new >= sampling.max_new_tokens {
            break Stop::Length;
        }
        // A prompt that is too long itself is an error, which the model words.
        if new > 0 && model.max_tokens().is_some_and(|most| ids.len() > most) {
            break Stop::Positions;
        }
        let logits = model.logits(&ids)?;
        let row = logits.row(ids.len() - 1).unwrap_or_default();
        let next = sampler.next(row)?;
        if stop.contains(&next) {
            break Stop::EndOfText;
        }
        ids.push(next);
        if !on_token(next) {
            break Stop::Callback;
        }
    };
    Ok((ids.split_off(prompt.len()), ended))
}
