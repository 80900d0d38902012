//! The values of metrics: integers, computed from the scores of a group's units.

use ethnum::{I256, U256};
use serde::{Deserialize, Serialize};
use zklora_integer::unit::Unit;

use crate::{
    metric::{MAX_ERROR, Metric, WORST},
    request::{scored_tokens, sequences},
    unit_scores::{SequenceScore, UnitScores},
};

/// How many units are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Without the adapter.
    pub base: u64,
    /// Only with the adapter.
    pub gained: u64,
    /// Only without the adapter.
    pub lost: u64,
}

impl Counts {
    /// How many are right with the adapter.
    pub fn adapted(&self) -> u64 {
        self.base.saturating_add(self.gained).saturating_sub(self.lost)
    }
}

/// The mean log-probability of a token, in 10⁻³ nats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Means {
    /// With the adapter.
    pub adapted: i64,
    /// Without.
    pub base: i64,
}

/// For each answer, how often each choice was the likeliest; the last column counts units without a
/// score.
pub type Matrix = Vec<Vec<u64>>;

/// Confusion matrices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confusion {
    /// With the adapter.
    pub adapted: Matrix,
    /// Without.
    pub base: Matrix,
}

/// The values of a group's metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Values {
    /// [`Metric::Accuracy`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Counts>,
    /// [`Metric::AccuracyNormalised`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_normalised: Option<Counts>,
    /// [`Metric::Confusion`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confusion: Option<Confusion>,
    /// [`Metric::Error`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<u32>,
    /// [`Metric::Greedy`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greedy: Option<Counts>,
    /// [`Metric::LogProbability`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_probability: Option<Means>,
}

/// The values of the base model alone, in the order of the metrics' names.
pub type BaseValues = (Option<u64>, Option<u64>, Option<Matrix>, Option<u64>, Option<i64>);

impl Values {
    /// The values of the base model alone.
    pub fn base(&self) -> BaseValues {
        let count = |counts: &Option<Counts>| counts.map(|counts| counts.base);
        (
            count(&self.accuracy),
            count(&self.accuracy_normalised),
            self.confusion.as_ref().map(|confusion| confusion.base.clone()),
            count(&self.greedy),
            self.log_probability.map(|means| means.base),
        )
    }
}

/// A unit that the base model has a score of.
struct Scored<'a> {
    unit: &'a Unit,
    base: &'a [SequenceScore],
    /// None: worst.
    adapted: Option<&'a [SequenceScore]>,
}

impl Scored<'_> {
    /// Scored tokens of a sequence unit.
    fn tokens(&self) -> i64 {
        sequences(self.unit).iter().map(|of| scored_tokens(of) as i64).sum()
    }

    fn base_sum(&self) -> i64 {
        self.base.iter().map(|score| score.sum).sum()
    }

    fn adapted_sum(&self) -> i64 {
        match self.adapted {
            Some(scores) => scores.iter().map(|score| score.sum).sum(),
            None => -WORST * self.tokens(),
        }
    }
}

/// The values of a group. None: the base model has a score of no unit.
pub(crate) fn values(
    metrics: &[Metric],
    units: &[Unit],
    scores: &[UnitScores],
    score_bits: i32,
) -> Option<Values> {
    let scored: Vec<Scored<'_>> = units
        .iter()
        .zip(scores)
        .filter_map(|(unit, scores)| {
            let base = scores.base.as_deref()?;
            Some(Scored { unit, base, adapted: scores.adapted.as_deref() })
        })
        .collect();
    if scored.is_empty() {
        return None;
    }
    let mut values = Values::default();
    for metric in metrics {
        match metric {
            Metric::LogProbability => values.log_probability = Some(means(&scored, score_bits)),
            Metric::Error => values.error = Some(error(&scored, score_bits)),
            Metric::Greedy => {
                let all = |scores: &[SequenceScore]| scores.iter().all(|score| score.greedy);
                values.greedy = Some(counts(&scored, |_, scores| all(scores)));
            }
            Metric::Accuracy => values.accuracy = Some(counts(&scored, is_right)),
            Metric::AccuracyNormalised => {
                values.accuracy_normalised = Some(counts(&scored, is_right_by_length));
            }
            Metric::Confusion => values.confusion = Some(confusion(&scored)),
        }
    }
    Some(values)
}

fn means(scored: &[Scored<'_>], score_bits: i32) -> Means {
    let tokens: i64 = scored.iter().map(Scored::tokens).sum();
    let sum = |sums: fn(&Scored<'_>) -> i64| scored.iter().map(|of| i128::from(sums(of))).sum();
    Means {
        adapted: mean(sum(|unit| unit.adapted_sum()), tokens, score_bits),
        base: mean(sum(|unit| unit.base_sum()), tokens, score_bits),
    }
}

/// `sum / tokens` in 10⁻³ nats, rounded to the nearest integer, halves up.
pub fn mean(sum: i128, tokens: i64, score_bits: i32) -> i64 {
    let tokens = i128::from(tokens.max(1));
    let above = 2000 * sum + (tokens << score_bits);
    above.div_euclid(tokens << (score_bits + 1)) as i64
}

/// The standard error of the mean difference of a token, in 10⁻³ nats, rounded up.
fn error(scored: &[Scored<'_>], score_bits: i32) -> u32 {
    let count = scored.len() as i128;
    if count < 2 {
        return MAX_ERROR;
    }
    let wide = |value: i64| I256::from(value);
    let tokens: i64 = scored.iter().map(Scored::tokens).sum();
    let difference = |unit: &Scored<'_>| unit.adapted_sum() - unit.base_sum();
    let in_all: i64 = scored.iter().map(difference).sum();
    let squares: I256 = scored.iter().fold(I256::ZERO, |all, unit| {
        let rest = wide(tokens) * wide(difference(unit)) - wide(in_all) * wide(unit.tokens());
        all + rest * rest
    });
    // The smallest e with e²·n⁴·2^(2f)·(N−1) ≥ 10⁶·N·Σ.
    let (scale, share) = error_scale(tokens as u64, scored.len() as u64, score_bits);
    let needed = share * squares;
    let is_enough = |e: u32| I256::from(e) * I256::from(e) * scale >= needed;
    let (mut low, mut high) = (0, MAX_ERROR);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_enough(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

/// `n⁴·2^(2f)·(N−1)` and `10⁶·N`. With the limits of an offer, the first times an error's square is
/// below 2^210, and so is the second times a sum of squares.
fn error_scale(tokens: u64, units: u64, score_bits: i32) -> (I256, I256) {
    let n = I256::from(tokens);
    let scale = n * n * n * n * (I256::from(units.saturating_sub(1)) << (2 * score_bits) as u32);
    (scale, I256::from(1_000_000u32) * I256::from(units))
}

/// The least and the largest `Σ(n·d_i − D·n_i)²` whose error is stated as this, for two units or
/// more; any above the least for [`MAX_ERROR`].
pub fn squares_of_error(error: u32, tokens: u64, units: u64, score_bits: i32) -> (U256, U256) {
    let (scale, share) = error_scale(tokens, units, score_bits);
    let most = |e: u32| (I256::from(e) * I256::from(e) * scale / share).as_u256();
    let least = error.checked_sub(1).map_or(U256::ZERO, |below| most(below) + 1);
    (least, if error >= MAX_ERROR { U256::MAX } else { most(error) })
}

fn counts(scored: &[Scored<'_>], is_right: impl Fn(&Unit, &[SequenceScore]) -> bool) -> Counts {
    let mut counts = Counts { base: 0, gained: 0, lost: 0 };
    for Scored { unit, base, adapted } in scored {
        let before = is_right(unit, base);
        let after = adapted.is_some_and(|scores| is_right(unit, scores));
        counts.base += u64::from(before);
        counts.gained += u64::from(after && !before);
        counts.lost += u64::from(before && !after);
    }
    counts
}

/// The choice of the largest quotient of sum and length, the first of equals.
fn chosen(scores: &[SequenceScore], length: impl Fn(usize) -> usize) -> usize {
    let better = |a: usize, b: usize| {
        let side = |of: usize, by: usize| i128::from(scores[of].sum) * length(by) as i128;
        side(a, b) > side(b, a)
    };
    (1..scores.len()).fold(0, |best, at| if better(at, best) { at } else { best })
}

/// Whether the likeliest choice is the answer.
pub(crate) fn is_right(unit: &Unit, scores: &[SequenceScore]) -> bool {
    matches!(unit, Unit::Choice { answer: Some(answer), .. } if chosen(scores, |_| 1) == *answer)
}

/// The same by length.
pub(crate) fn is_right_by_length(unit: &Unit, scores: &[SequenceScore]) -> bool {
    match unit {
        Unit::Choice { answer: Some(answer), lengths, .. } => {
            chosen(scores, |at| lengths[at].max(1)) == *answer
        }
        _ => false,
    }
}

fn confusion(scored: &[Scored<'_>]) -> Confusion {
    let choices = scored.first().map_or(0, |first| sequences(first.unit).len());
    let mut matrices = Confusion {
        adapted: vec![vec![0; choices + 1]; choices],
        base: vec![vec![0; choices + 1]; choices],
    };
    for Scored { unit, base, adapted } in scored {
        if let Unit::Choice { answer: Some(answer), .. } = unit {
            matrices.base[*answer][chosen(base, |_| 1)] += 1;
            let column = adapted.map_or(choices, |scores| chosen(scores, |_| 1));
            matrices.adapted[*answer][column] += 1;
        }
    }
    matrices
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use num_bigint::BigInt;
    use proptest::prelude::*;
    use zklora_integer::unit::{Normalisation, Sequence};

    use super::*;

    fn score(sum: i64) -> SequenceScore {
        SequenceScore { sum, greedy: sum % 2 == 0 }
    }

    fn sequence(scored: usize) -> Unit {
        Unit::LogProbability(Sequence { tokens: vec![0; scored + 1], from: 1 })
    }

    fn question(lengths: &[usize], answer: usize) -> Unit {
        let choice = || Sequence { tokens: vec![0, 1], from: 1 };
        Unit::Choice {
            choices: lengths.iter().map(|_| choice()).collect(),
            lengths: lengths.to_vec(),
            normalisation: Normalisation::None,
            answer: Some(answer),
        }
    }

    #[test]
    fn means_round_halves_up() {
        // 2^-9 nats: 1000/512 = 1.953 of 10⁻³ nats a step.
        for (sum, tokens, expected) in [
            (0, 1, 0),
            (-1, 1, -2),
            (-512, 1, -1000),
            (-128, 1, -250),
            (-64, 1, -125),
            // -62.5 and -187.5: halves go up.
            (-32, 1, -62),
            (-96, 1, -187),
            (-65_536, 1, -128_000),
            (-65_536 * 1000, 1000, -128_000),
        ] {
            assert_eq!(mean(sum, tokens, 9), expected, "{sum} / {tokens}");
        }
    }

    #[test]
    fn the_squares_of_an_error_are_those_and_no_others() {
        let mut seen = std::collections::BTreeSet::new();
        for (tokens, bits) in [([3usize, 5, 9], 9), ([1, 1, 1], 0), ([40, 7, 300], 16)] {
            let n: i64 = tokens.iter().map(|n| *n as i64).sum();
            for seed in 0..200i64 {
                let sums = [seed * seed * 37, seed * 11 % 400, -(seed << (seed % 9))];
                let units = tokens.map(sequence);
                let scores = sums.map(|sum| UnitScores {
                    base: Some(vec![score(0)]),
                    adapted: Some(vec![score(-sum)]),
                });
                let found = values(&[Metric::Error], &units, &scores, bits).unwrap().error.unwrap();
                let all: i64 = sums.iter().sum();
                let each = sums.iter().zip(tokens);
                let squares: I256 = each
                    .map(|(d, tokens)| I256::from(n * d - all * tokens as i64))
                    .map(|y| y * y)
                    .sum();
                let within = |error| {
                    let (least, most) = squares_of_error(error, n as u64, 3, bits);
                    (least..=most).contains(&squares.as_u256())
                };
                assert!(within(found));
                assert!(found == 0 || !within(found - 1));
                assert!(found == MAX_ERROR || !within(found + 1));
                seen.insert(found);
            }
        }
        assert!(seen.contains(&0) && seen.contains(&MAX_ERROR) && seen.len() > 50);
        assert_eq!(squares_of_error(MAX_ERROR, 9, 2, 9).1, U256::MAX);
    }

    proptest! {
        #[test]
        fn the_error_is_the_smallest_that_is_enough(
            units in prop::collection::vec((1usize..50, 0i64..3000, 0i64..3000), 2..9),
        ) {
            let all: Vec<(Unit, UnitScores)> = units
                .iter()
                .map(|(tokens, a, b)| {
                    let side = |sum: &i64| Some(vec![score(-sum)]);
                    (sequence(*tokens), UnitScores { base: side(b), adapted: side(a) })
                })
                .collect();
            let (units, scores): (Vec<Unit>, Vec<UnitScores>) = all.into_iter().unzip();
            let values = values(&[Metric::Error], &units, &scores, 9).unwrap();
            // The textbook's formula, in floats.
            let n: f64 = units.iter().map(|u| scored_tokens(&sequences(u)[0]) as f64).sum();
            let d = |at: usize| {
                let sum = |side: &Side| side.as_ref().unwrap()[0].sum as f64 / 512.0;
                sum(&scores[at].adapted) - sum(&scores[at].base)
            };
            let count = units.len() as f64;
            let gain: f64 = (0..units.len()).map(d).sum::<f64>() / n;
            let squares: f64 = (0..units.len())
                .map(|at| (d(at) - gain * scored_tokens(&sequences(&units[at])[0]) as f64).powi(2))
                .sum();
            let error = 1000.0 * (count / (count - 1.0) * squares).sqrt() / n;
            let found = f64::from(values.error.unwrap());
            prop_assert!(found > error - 1e-6 && found < error + 1.0 + 1e-6, "{found} {error}");
        }

        /// Large sums do not overflow, and agree with big integers.
        #[test]
        fn the_error_of_the_largest_request(
            sums in prop::collection::vec((0i64..1 << 36, 0i64..1 << 36), 2..6),
        ) {
            let tokens = 1usize << 20;
            let units: Vec<Unit> = sums.iter().map(|_| sequence(tokens)).collect();
            let scores: Vec<UnitScores> = sums
                .iter()
                .map(|(a, b)| UnitScores {
                    base: Some(vec![score(-b)]),
                    adapted: Some(vec![score(-a)]),
                })
                .collect();
            let found = values(&[Metric::Error], &units, &scores, 9).unwrap().error.unwrap();
            let n = BigInt::from(tokens * sums.len());
            let d: Vec<BigInt> = sums.iter().map(|(a, b)| BigInt::from(b - a)).collect();
            let all: BigInt = d.iter().sum();
            let squares: BigInt =
                d.iter().map(|d| (&n * d - &all * BigInt::from(tokens)).pow(2)).sum();
            let needed = BigInt::from(1_000_000 * sums.len()) * squares;
            let scale = n.pow(4) * (BigInt::from(sums.len() - 1) << 18);
            let enough = |e: u32| BigInt::from(e).pow(2) * &scale >= needed;
            prop_assert!(found == MAX_ERROR || enough(found));
            prop_assert!(found == 0 || !enough(found - 1));
        }
    }

    type Side = crate::unit_scores::Side;

    #[test]
    fn units_that_only_the_adapter_cannot_score_are_worst() {
        let units = [sequence(3), sequence(1)];
        let base = |sum| Some(vec![score(sum)]);
        let all = [Metric::Greedy, Metric::LogProbability];
        let scores = [
            UnitScores { base: base(-512), adapted: None },
            UnitScores { base: base(-512), adapted: base(-512) },
        ];
        let found = values(&all, &units, &scores, 9).unwrap();
        let means = found.log_probability.unwrap();
        assert_eq!(means.base, -500);
        assert_eq!(means.adapted, mean(i128::from(-WORST * 3 - 512), 4, 9));
        assert_eq!(found.greedy, Some(Counts { base: 2, gained: 0, lost: 1 }));
        // What the base model cannot score counts nowhere, whatever the adapter does.
        for adapted in [None, base(-1)] {
            let scores = [UnitScores { base: None, adapted }, scores[1].clone()];
            let found = values(&all, &units, &scores, 9).unwrap();
            assert_eq!(found.log_probability, Some(Means { adapted: -1000, base: -1000 }));
        }
        let none = [UnitScores { base: None, adapted: None }];
        assert_eq!(values(&all, &units[..1], &none, 9), None);
    }

    #[test]
    fn choices_are_compared_exactly_and_the_first_of_equals_wins() {
        let side = |sums: &[i64]| Some(sums.iter().map(|sum| score(*sum)).collect());
        let metrics = [Metric::Accuracy, Metric::AccuracyNormalised, Metric::Confusion];
        let units = [question(&[2, 4, 2], 1), question(&[2, 4, 2], 0)];
        let scores = [
            UnitScores { base: side(&[-8, -12, -9]), adapted: side(&[-12, -12, -12]) },
            UnitScores { base: side(&[-5, -5, -5]), adapted: None },
        ];
        let found = values(&metrics, &units, &scores, 9).unwrap();
        assert_eq!(found.accuracy, Some(Counts { base: 1, gained: 0, lost: 1 }));
        // By length: -8/2, -12/4, -9/2 → 1; and -12/2, -12/4 → 1; -5/2, -5/4 → 1, not 0.
        assert_eq!(found.accuracy_normalised, Some(Counts { base: 1, gained: 0, lost: 0 }));
        let confusion = found.confusion.unwrap();
        assert_eq!(confusion.base, [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]);
        assert_eq!(confusion.adapted, [[0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]);
    }
}
