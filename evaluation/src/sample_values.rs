//! The values of a sample, and what a proof of them says of its results (docs/evaluation.md, "The
//! draw and the proof").

use ethnum::U256;

use crate::{
    Error,
    evidence::ANSWER,
    metric::{MAX_ERROR, Metric},
    request::{scored_tokens, sequences},
    sample::Sample,
    unit_scores::{Side, UnitScores},
    values::{self, Counts, Values, is_right, is_right_by_length, mean, squares_of_error},
};

const PROOF: &str = "proof.json";

/// A weighted sum of results lies in an interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SumBound {
    /// A weight for each unit.
    pub weights: Vec<i32>,
    /// The least sum.
    pub least: i64,
    /// The largest.
    pub most: i64,
}

/// `Σ(n·d_i − D·n_i)²` lies in an interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SquaresBound {
    /// n_i: scored tokens of each unit.
    pub tokens: Vec<u32>,
    /// The base model's score of each unit.
    pub base: Vec<i64>,
    /// The least sum.
    pub least: U256,
    /// The largest.
    pub most: U256,
}

/// What a proof says of the results of a sample's units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleTerms {
    /// Bounds of sums.
    pub bounds: Vec<SumBound>,
    /// A bound of squares.
    pub squares: Option<SquaresBound>,
}

impl Sample {
    /// Scored tokens of each unit, over all choices.
    pub fn scored_tokens(&self) -> impl Iterator<Item = u64> {
        let of = |unit| sequences(unit).iter().map(|of| scored_tokens(of) as u64).sum();
        self.units.iter().map(of)
    }

    /// What the log-probabilities of a question's choices are divided by.
    pub fn lengths(&self, lengths: &[usize]) -> Vec<u32> {
        let of = |length: &usize| u32::try_from(*length).unwrap_or(u32::MAX);
        match self.metric {
            Metric::AccuracyNormalised => lengths.iter().map(of).collect(),
            _ => vec![1; lengths.len()],
        }
    }

    /// The values of the sample, from the scores of its units. None: the base model has no score of
    /// any.
    pub fn values(&self, scores: &[UnitScores], score_bits: i32) -> Option<Values> {
        let metrics = match self.metric {
            Metric::LogProbability if self.units.len() > 1 => {
                vec![Metric::Error, Metric::LogProbability]
            }
            metric => vec![metric],
        };
        values::values(&metrics, &self.units, scores, score_bits)
    }

    /// What a proof of these values says, from the base model's scores of the units.
    ///
    /// # Errors
    /// [`Error::Mismatch`]: the base model has no score of a unit, or no sample has these values.
    pub fn terms(
        &self,
        values: &Values,
        base: &[Side],
        score_bits: i32,
    ) -> Result<SampleTerms, Error> {
        let base: Option<Vec<_>> = base.iter().map(Option::as_deref).collect();
        let Some(base) = base.filter(|base| base.len() == self.units.len()) else {
            let why = "the base model has no score of a drawn unit, and it does not say so";
            return Err(Error::mismatch(ANSWER, why));
        };
        let other = |why: &str| Err(Error::mismatch(PROOF, why));
        match self.metric {
            Metric::LogProbability => {
                let Some(means) = values.log_probability else {
                    return other("it has no mean");
                };
                let own = Values {
                    log_probability: Some(means),
                    error: values.error,
                    ..Values::default()
                };
                let units = self.units.len() as u64;
                if *values != own || values.error.is_some() != (units > 1) {
                    return other("it has other values than a mean and its error");
                }
                let sums: Vec<i64> =
                    base.iter().map(|scores| scores.iter().map(|of| of.sum).sum()).collect();
                let tokens: Vec<u64> = self.scored_tokens().collect();
                let all: u64 = tokens.iter().sum();
                let total = sums.iter().map(|sum| i128::from(*sum)).sum();
                if means.base != mean(total, all as i64, score_bits) {
                    return other(OTHER_BASE);
                }
                let (least, most) = sums_of_mean(means.adapted, all, score_bits);
                let weights = vec![1; self.units.len()];
                let squares = match values.error {
                    Some(error) if error > MAX_ERROR => return other("its error is too large"),
                    Some(error) => {
                        let (least, most) = squares_of_error(error, all, units, score_bits);
                        let tokens = tokens.iter().map(|n| *n as u32).collect();
                        Some(SquaresBound { tokens, base: sums, least, most })
                    }
                    None => None,
                };
                Ok(SampleTerms { bounds: vec![SumBound { weights, least, most }], squares })
            }
            metric => {
                let (counts, is_right): (_, fn(&_, &[_]) -> bool) = match metric {
                    Metric::Accuracy => (values.accuracy, is_right),
                    _ => (values.accuracy_normalised, is_right_by_length),
                };
                let Some(counts) = counts else { return other("it has no counts") };
                let own = match metric {
                    Metric::Accuracy => Values { accuracy: Some(counts), ..Values::default() },
                    _ => Values { accuracy_normalised: Some(counts), ..Values::default() },
                };
                if *values != own {
                    return other("it has other values than counts");
                }
                let each = self.units.iter().zip(&base);
                let right: Vec<bool> = each.map(|(unit, scores)| is_right(unit, scores)).collect();
                bounds_of_counts(&counts, &right)
            }
        }
    }
}

const OTHER_BASE: &str = "its values of the base model are not those of the buyer's base model";

fn bounds_of_counts(counts: &Counts, right: &[bool]) -> Result<SampleTerms, Error> {
    let other = |why: &str| Err(Error::mismatch(PROOF, why));
    let of_right = right.iter().filter(|right| **right).count() as u64;
    if counts.base != of_right {
        return other(OTHER_BASE);
    }
    if counts.gained > right.len() as u64 - of_right || counts.lost > of_right {
        return other("it counts more units than there are");
    }
    let bound = |is_right: bool, sum: u64| {
        let weights = right.iter().map(|right| i32::from(*right == is_right)).collect();
        SumBound { weights, least: sum as i64, most: sum as i64 }
    };
    let bounds = vec![bound(false, counts.gained), bound(true, of_right - counts.lost)];
    Ok(SampleTerms { bounds, squares: None })
}

/// The least and the largest sum of `tokens` log-probabilities whose mean is rounded to `mean`
/// (docs/evaluation.md, "Metrics"). The first is above the second if no sum is.
fn sums_of_mean(mean: i64, tokens: u64, score_bits: i32) -> (i64, i64) {
    // (2000·S + n·2^f) / (n·2^(f+1)) is at least `mean` and below `mean + 1`.
    let unit = i128::from(tokens) << score_bits;
    let least_above = |mean: i128| {
        (unit * (2 * mean - 1)).div_euclid(2000)
            + i128::from((unit * (2 * mean - 1)).rem_euclid(2000) > 0)
    };
    let clamp = |x: i128| i64::try_from(x).unwrap_or(if x < 0 { i64::MIN } else { i64::MAX });
    let mean = i128::from(mean);
    (clamp(least_above(mean)), clamp(least_above(mean + 1) - 1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use zklora_integer::unit::{Normalisation, Sequence, Unit};

    use super::*;
    use crate::{unit_scores::SequenceScore, values::Means};

    #[test]
    fn the_interval_of_a_mean_has_the_sums_that_round_to_it_and_no_others() {
        for (tokens, bits) in [(1u64, 10), (7, 10), (64, 10), (1000, 8), (3, 0)] {
            let mean = |sum: i64| {
                let n = i128::from(tokens);
                (2000 * i128::from(sum) + (n << bits)).div_euclid(n << (bits + 1)) as i64
            };
            for sum in (-5_000_i64..5_000).step_by(7) {
                let (least, most) = sums_of_mean(mean(sum), tokens, bits);
                assert!(least <= sum && sum <= most);
                assert_ne!(mean(least - 1), mean(sum));
                assert_ne!(mean(most + 1), mean(sum));
            }
        }
    }

    fn side(sums: &[i64]) -> Side {
        Some(sums.iter().map(|sum| SequenceScore { sum: *sum, greedy: false }).collect())
    }

    fn of_sequences() -> (Sample, Vec<UnitScores>) {
        let unit =
            |scored: usize| Unit::LogProbability(Sequence { tokens: vec![0; scored + 1], from: 1 });
        let units = vec![unit(3), unit(5)];
        let sample = Sample { metric: Metric::LogProbability, numbers: vec![2, 4], units };
        let scores = vec![
            UnitScores { base: side(&[-900]), adapted: side(&[-500]) },
            UnitScores { base: side(&[-1900]), adapted: side(&[-1777]) },
        ];
        (sample, scores)
    }

    fn of_questions(metric: Metric) -> (Sample, Vec<UnitScores>) {
        let unit = |answer| Unit::Choice {
            choices: vec![Sequence { tokens: vec![0, 1], from: 1 }; 2],
            lengths: vec![3, 7],
            normalisation: Normalisation::None,
            answer: Some(answer),
        };
        let units = vec![unit(0), unit(1), unit(0)];
        let sample = Sample { metric, numbers: vec![0, 1, 2], units };
        let of =
            |base: &[i64], adapted: &[i64]| UnitScores { base: side(base), adapted: side(adapted) };
        let scores =
            vec![of(&[-5, -9], &[-9, -5]), of(&[-5, -9], &[-8, -8]), of(&[-9, -5], &[-5, -6])];
        (sample, scores)
    }

    fn base(scores: &[UnitScores]) -> Vec<Side> {
        scores.iter().map(|of| of.base.clone()).collect()
    }

    #[test]
    fn terms_hold_for_the_true_values() {
        let (sample, scores) = of_sequences();
        let values = sample.values(&scores, 9).unwrap();
        let SampleTerms { bounds, squares } = sample.terms(&values, &base(&scores), 9).unwrap();
        assert!(bounds[0].least <= -2277 && -2277 <= bounds[0].most);
        let squares = squares.unwrap();
        assert_eq!((squares.tokens, squares.base), (vec![3, 5], vec![-900, -1900]));
        // d = 400 and 123, n = 8, D = 523.
        let sum: i64 = [8 * 400 - 3 * 523, 8 * 123 - 5 * 523i64].iter().map(|y| y * y).sum();
        assert!(squares.least <= U256::from(sum as u64) && U256::from(sum as u64) <= squares.most);
        for (metric, base_right, gained) in
            [(Metric::Accuracy, 1, 1), (Metric::AccuracyNormalised, 1, 0)]
        {
            let (sample, scores) = of_questions(metric);
            let values = sample.values(&scores, 9).unwrap();
            let counts = values.accuracy.or(values.accuracy_normalised).unwrap();
            assert_eq!((counts.base, counts.gained), (base_right, gained), "{metric:?}");
            let SampleTerms { bounds, squares } = sample.terms(&values, &base(&scores), 9).unwrap();
            assert!(squares.is_none());
            let of = |unit: &Unit, scores: &UnitScores| {
                let scores = scores.adapted.as_ref().unwrap();
                let is = match metric {
                    Metric::Accuracy => is_right(unit, scores),
                    _ => is_right_by_length(unit, scores),
                };
                i64::from(is)
            };
            for SumBound { weights, least, most } in bounds {
                let each = sample.units.iter().zip(&scores).zip(weights);
                let sum: i64 =
                    each.map(|((unit, of_unit), w)| i64::from(w) * of(unit, of_unit)).sum();
                assert_eq!((least, most), (sum, sum), "{metric:?}");
            }
        }
    }

    #[test]
    fn other_values_are_no_terms() {
        let (sample, scores) = of_sequences();
        let honest = sample.values(&scores, 9).unwrap();
        let refused = |change: &dyn Fn(&mut Values)| {
            let mut values = honest.clone();
            change(&mut values);
            sample.terms(&values, &base(&scores), 9).is_err()
        };
        assert!(!refused(&|_| ()));
        assert!(refused(&|of| of.error = None));
        assert!(refused(&|of| of.error = Some(MAX_ERROR + 1)));
        assert!(refused(&|of| of.log_probability = None));
        assert!(refused(&|of| of.log_probability = Some(Means { adapted: 0, base: 0 })));
        assert!(refused(&|of| of.greedy = Some(Counts { base: 0, gained: 0, lost: 0 })));
        let mut none = base(&scores);
        none[1] = None;
        assert!(sample.terms(&honest, &none, 9).is_err());
        assert!(sample.terms(&honest, &none[..1], 9).is_err());

        let (sample, scores) = of_questions(Metric::Accuracy);
        let honest = sample.values(&scores, 9).unwrap().accuracy.unwrap();
        let refused = |counts: Counts| {
            let values = Values { accuracy: Some(counts), ..Values::default() };
            sample.terms(&values, &base(&scores), 9).is_err()
        };
        assert!(!refused(honest));
        assert!(refused(Counts { base: honest.base + 1, ..honest }));
        assert!(refused(Counts { gained: 3, ..honest }));
        assert!(refused(Counts { lost: 2, ..honest }));
        assert!(refused(Counts { lost: u64::MAX, ..honest }));
    }
}
