//! Scores units with two programs of the integer model: without the adapter, and with it.

use zklora_evaluation::{
    Error,
    request::sequences,
    unit_scores::{Scorer, UnitScores, side},
};
use zklora_integer::{evaluate::check_unit, program::Program, score::score_both, unit::Unit};

/// The base model, and the model with an adapter.
pub(super) struct ModelScorer {
    pub base: Program,
    pub adapted: Program,
}

impl Scorer for ModelScorer {
    fn refuses(&self, unit: &Unit) -> Option<String> {
        let check = |tokens: &[u32]| match check_unit(&self.base, 0, tokens) {
            Err(zklora_integer::Error::Unit { why, .. }) => Some(why),
            Err(error) => Some(error.to_string()),
            Ok(()) => None,
        };
        sequences(unit).iter().find_map(|sequence| check(&sequence.tokens))
    }

    fn score(&self, units: &[Unit]) -> Result<Vec<UnitScores>, Error> {
        let [(base, _), (adapted, _)] = score_both([&self.base, &self.adapted], units)?;
        let scores = base.iter().zip(&adapted).map(|(base, adapted)| {
            let base = side(base);
            // What the base model cannot score says nothing of the adapter.
            let adapted = base.as_ref().and_then(|_| side(adapted));
            UnitScores { base, adapted }
        });
        Ok(scores.collect())
    }
}
