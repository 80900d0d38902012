//! Measures how well a model predicts a text: negative log-likelihoods.
//!
//! Must not know where the tokens come from.

use super::model::{LanguageModel, Logits};
use crate::Error;

/// One window of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Tokens that were predicted: all but the window's first.
    pub tokens: usize,
    /// Sum of their negative natural log-likelihoods.
    pub nll: f64,
}

/// The loss over windows of `context` tokens that do not overlap. A last window of one token
/// predicts nothing and is left out. The mean loss is the sum of `nll` over the sum of `tokens`.
///
/// # Errors
/// [`Error::Options`] for a context of less than two tokens, and those of
/// [`LanguageModel::logits`].
pub fn loss(model: &LanguageModel, ids: &[u32], context: usize) -> Result<Vec<Window>, Error> {
    if context < 2 {
        return Err(Error::Options(format!(
            "a context of {context} tokens predicts nothing; use at least 2"
        )));
    }
    let windows = ids.chunks(context).filter(|window| window.len() > 1);
    windows.map(|window| Ok(of_window(&model.logits(window)?, window))).collect()
}

fn of_window(logits: &Logits, window: &[u32]) -> Window {
    let predicted = window.iter().skip(1).enumerate();
    let nll = predicted
        .filter_map(|(at, &id)| negative_log_likelihood(logits.row(at)?, id as usize))
        .sum();
    Window { tokens: window.len() - 1, nll }
}

/// `ln Σ exp(row) − row[id]`, in f64. The largest logit is subtracted before `exp`, so that no term
/// overflows.
pub fn negative_log_likelihood(row: &[f32], id: usize) -> Option<f64> {
    let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = row.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
    Some(largest + sum.ln() - f64::from(*row.get(id)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn likelihoods_of_a_row_add_up_to_one_whatever_is_added_to_it() {
        for shift in [0.0f32, 500.0, -3e4] {
            let row = [0.5 + shift, -1.0 + shift, 2.0 + shift];
            let sum: f64 =
                (0..3).map(|id| (-negative_log_likelihood(&row, id).unwrap()).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        }
        assert_eq!(negative_log_likelihood(&[0.0], 1), None);
    }
}
