//! The metrics of a group, which units they are for, and what they cost.

use serde::{Deserialize, Serialize};
use zklora_integer::{rules, unit::Unit};

/// The size of the score table: the least log-probability of a scored token is this many steps
/// below 0.
pub const WORST: i64 = rules::TABLE as i64;
/// Most choices of a unit of a confusion matrix.
pub const MAX_CONFUSED: usize = 16;
/// The largest standard error that is stated, in 10⁻³ nats.
pub const MAX_ERROR: u32 = u16::MAX as u32;

/// A metric. The order is that of the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Questions that are answered right by the likeliest choice.
    Accuracy,
    /// The same, with the log-probability of a choice divided by its length.
    AccuracyNormalised,
    /// For each answer, how often each choice was the likeliest.
    Confusion,
    /// The standard error of the mean difference of a token.
    Error,
    /// Sequences whose scored tokens are all the likeliest.
    Greedy,
    /// The mean log-probability of a token.
    LogProbability,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Metric; 6] = [
        Metric::Accuracy,
        Metric::AccuracyNormalised,
        Metric::Confusion,
        Metric::Error,
        Metric::Greedy,
        Metric::LogProbability,
    ];

    /// Those that a proof of a sample shows.
    pub const PROVABLE: [Metric; 3] =
        [Metric::LogProbability, Metric::Accuracy, Metric::AccuracyNormalised];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::AccuracyNormalised => "accuracy_normalised",
            Metric::Confusion => "confusion",
            Metric::Error => "error",
            Metric::Greedy => "greedy",
            Metric::LogProbability => "log_probability",
        }
    }

    /// Whether it is about sequences, and not about questions.
    fn is_of_sequences(self) -> bool {
        matches!(self, Metric::Error | Metric::Greedy | Metric::LogProbability)
    }

    /// Why it cannot be computed for a group of these units; none if it can.
    pub fn refuses(self, units: &[Unit]) -> Option<String> {
        let name = self.name();
        let mut choices = None;
        for (at, unit) in units.iter().enumerate() {
            match unit {
                Unit::LogProbability(_) if self.is_of_sequences() => {}
                Unit::Choice { choices: of, answer: Some(_), .. } if !self.is_of_sequences() => {
                    let count = *choices.get_or_insert(of.len());
                    if self == Metric::Confusion && (of.len() != count || count > MAX_CONFUSED) {
                        return Some(format!(
                            "{name} needs questions that all have the same number of choices, at \
                             most {MAX_CONFUSED}; unit {at} of the group has {}",
                            of.len()
                        ));
                    }
                }
                Unit::Choice { .. } if !self.is_of_sequences() => {
                    return Some(format!("{name} needs an answer, and unit {at} has none"));
                }
                _ => {
                    let needed = if self.is_of_sequences() { "sequences" } else { "questions" };
                    return Some(format!("{name} is for {needed}, and unit {at} is none"));
                }
            }
        }
        (self == Metric::Error && units.len() < 2)
            .then(|| format!("{name} needs two units or more"))
    }

    /// The bits that its value can tell of the adapter, for a group of these units.
    pub fn bits(self, units: &[Unit], score_bits: i32) -> u64 {
        match self {
            Metric::LogProbability => {
                let least = (1000 * WORST as u128).div_ceil(1 << score_bits.clamp(0, 60));
                log2_up(least + 1)
            }
            Metric::Error => log2_up(u128::from(MAX_ERROR) + 1),
            Metric::Greedy | Metric::Accuracy | Metric::AccuracyNormalised => {
                counts_bits(units.len() as u64)
            }
            Metric::Confusion => {
                let answers = answers(units);
                let bits = answers.iter().map(|count| log2_up(*count as u128 + 1)).sum::<u64>();
                answers.len() as u64 * bits
            }
        }
    }
}

/// The bits of how many of some units are gained, and how many lost.
pub(crate) fn counts_bits(units: u64) -> u64 {
    let count = u128::from(units);
    log2_up((count + 1) * (count + 2) / 2)
}

/// How often each choice is the answer.
fn answers(units: &[Unit]) -> Vec<usize> {
    let mut counts = Vec::new();
    for unit in units {
        if let Unit::Choice { choices, answer: Some(answer), .. } = unit {
            counts.resize(choices.len().max(counts.len()), 0);
            counts[*answer] += 1;
        }
    }
    counts
}

/// The logarithm of a number of values, rounded up.
pub fn log2_up(values: u128) -> u64 {
    u64::from(128 - values.saturating_sub(1).leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithm_is_rounded_up() {
        for (values, bits) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1 << 16, 16), (65_537, 17)]
        {
            assert_eq!(log2_up(values), bits, "{values}");
        }
        assert_eq!(log2_up(u128::MAX), 128);
    }

    #[test]
    fn names_are_those_of_the_files_and_sorted() {
        for metric in Metric::ALL {
            assert_eq!(serde_json::to_value(metric).ok(), Some(metric.name().into()));
        }
        assert!(Metric::ALL.is_sorted_by_key(|metric| metric.name()));
    }
}
