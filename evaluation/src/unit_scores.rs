//! The scores of one unit, with and without the adapter: what aggregates are made of. They are the
//! contributor's secret.

use zklora_integer::{
    score::{LogProbability, Score},
    unit::Unit,
};

use crate::Error;

/// The score of a sequence.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SequenceScore {
    /// The sum of the log-probabilities of its scored tokens.
    pub sum: i64,
    /// Whether all of them are the likeliest.
    pub greedy: bool,
}

impl From<&LogProbability> for SequenceScore {
    fn from(found: &LogProbability) -> SequenceScore {
        SequenceScore { sum: found.sum(), greedy: found.greedy }
    }
}

/// The scores of a unit's sequences: none if the model left a range on one of them.
pub type Side = Option<Vec<SequenceScore>>;

/// The scores of a unit.
#[derive(Clone, PartialEq, Eq)]
pub struct UnitScores {
    /// Without the adapter.
    pub base: Side,
    /// With the adapter. None, too, if the base model has no score.
    pub adapted: Side,
}

/// What a score says of the sequences.
pub fn side(score: &Score) -> Side {
    match score {
        Score::LogProbability(found) => Some(vec![found.into()]),
        Score::Choice { choices, .. } => Some(choices.iter().map(Into::into).collect()),
        Score::Generated(_) | Score::OutOfRange(_) => None,
    }
}

/// Scores units with the integer model, without and with the adapter of an offer.
pub trait Scorer: Send + Sync {
    /// Why a unit cannot be evaluated at all; none if it can. This depends on the base model alone.
    fn refuses(&self, unit: &Unit) -> Option<String>;

    /// The scores of units.
    ///
    /// # Errors
    /// A unit that [`Scorer::refuses`] refuses, or a failure of the machine.
    fn score(&self, units: &[Unit]) -> Result<Vec<UnitScores>, Error>;
}
