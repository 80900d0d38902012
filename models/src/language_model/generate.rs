//! Continues a text: chooses one token after another and appends it.
//!
//! Must not know about text, nor whether the model has a cache of keys and values (see
//! [`super::Sequence`]).

use super::{
    model::LanguageModel,
    sampling::{Sampler, Sampling},
    sequence::Sequence,
};
use crate::Error;

/// Why generation stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The model chose one of the stop tokens, which is not among the tokens returned.
    EndOfText,
    /// The requested number of tokens was reached.
    Length,
    /// The model cannot read more tokens at once.
    Positions,
    /// The callback returned false.
    Callback,
}

/// Appends tokens to `prompt` and returns the new ones. `on_token` is called with each as soon as
/// it is chosen; if it returns false, generation stops.
///
/// # Errors
/// Those of [`LanguageModel::logits`], and [`Error::Options`] for sampling options out of range.
pub fn generate(
    model: &LanguageModel,
    prompt: &[u32],
    sampling: &Sampling,
    stop: &[u32],
    mut on_token: impl FnMut(u32) -> bool,
) -> Result<(Vec<u32>, StopReason), Error> {
    let mut sampler = Sampler::new(sampling)?;
    let mut sequence = Sequence::new(model);
    let (mut tokens, mut new) = (Vec::new(), 0);
    let ended = loop {
        if new >= sampling.max_new_tokens {
            break StopReason::Length;
        }
        // A prompt that is too long is an error, which `logits` reports.
        if new > 0 && model.max_tokens().is_some_and(|most| prompt.len() + new > most) {
            break StopReason::Positions;
        }
        let logits = sequence.push(if new == 0 { prompt } else { &tokens[new - 1..] })?;
        let next = sampler.next(logits.row(logits.rows - 1).unwrap_or_default())?;
        if stop.contains(&next) {
            break StopReason::EndOfText;
        }
        tokens.push(next);
        new += 1;
        if !on_token(next) {
            break StopReason::Callback;
        }
    };
    Ok((tokens, ended))
}
