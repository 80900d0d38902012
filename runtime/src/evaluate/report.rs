//! What an evaluation says, for people: the numbers with their uncertainty, and how certain they
//! are.

use serde::Serialize;
use zklora_evaluation::{
    answer::Answer,
    digest::Digest,
    offer::SignedOffer,
    request::{FullRequest, scored_tokens, sequences},
    values::{Confusion, Counts, Means, Values},
};

use super::{
    folder::Folder,
    prove::Proven,
    settle::{Settlement, Verdict},
};
use crate::Error;

/// Two-sided quantile of the normal distribution for 95 %.
const QUANTILE: f64 = 1.96;
/// The same of Student's distributions with 1, 2, … degrees of freedom.
const QUANTILES: [f64; 10] =
    [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
/// The mean is rounded to this, in nats.
const ROUNDING: f64 = 1e-3;

/// An interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The value.
    pub value: f64,
    /// Half the width of the interval that has the true value with 95 %, as far as units are drawn
    /// at random; none if it was not asked for.
    pub plus_minus: Option<f64>,
}

/// A mean log-probability, as losses in nats a token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Loss {
    /// Without the adapter.
    pub base: f64,
    /// With it.
    pub adapted: f64,
    /// Base minus adapted: what the adapter gains.
    pub gain: Interval,
}

/// How many units are right, as parts of one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Right {
    /// Without the adapter.
    pub base: f64,
    /// With it.
    pub adapted: f64,
    /// Adapted minus base.
    pub gain: Interval,
    /// Units that only the adapted model gets right.
    pub gained: u64,
    /// Units that only the base model gets right.
    pub lost: u64,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupReport {
    /// Its name.
    pub name: String,
    /// Its units that count.
    pub units: u64,
    /// Its scored tokens.
    pub tokens: u64,
    /// [`zklora_evaluation::metric::Metric::LogProbability`].
    pub loss: Option<Loss>,
    /// [`zklora_evaluation::metric::Metric::Greedy`].
    pub greedy: Option<Right>,
    /// [`zklora_evaluation::metric::Metric::Accuracy`].
    pub accuracy: Option<Right>,
    /// [`zklora_evaluation::metric::Metric::AccuracyNormalised`].
    pub accuracy_normalised: Option<Right>,
    /// [`zklora_evaluation::metric::Metric::Confusion`].
    pub confusion: Option<Confusion>,
    /// The integers that were signed.
    pub signed: Option<Values>,
}

/// What an evaluation says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// `claimed`, `proven`, `not proven`, `settled` or `contradicted`.
    pub grade: &'static str,
    /// The grade in words.
    pub grade_text: &'static str,
    /// The adapter.
    pub adapter_id: Digest,
    /// The contributor's key.
    pub key: Digest,
    /// What the key says of itself.
    pub contact: String,
    /// The base model's name.
    pub base_model: String,
    /// The integer model.
    pub integer_model: Digest,
    /// Digest of the offer.
    pub offer: Digest,
    /// Digest of the request.
    pub request: Digest,
    /// Digest of the answer.
    pub answer: Digest,
    /// The groups.
    pub groups: Vec<GroupReport>,
    /// All units.
    pub units: u64,
    /// Units that the base model has no score of: they count nowhere.
    pub base_unscored: u64,
    /// Units that only the adapted model has no score of, as far as they are listed: they are
    /// scored worst.
    pub unscored: Vec<u64>,
    /// Whether there are others.
    pub more_unscored: bool,
    /// Whether scores of single units were answered.
    pub per_unit: bool,
    /// Rows of activations or deltas that the buyer has seen.
    pub rows_revealed: u64,
    /// Fractional bits of a score.
    pub score_bits: i32,
    /// Bits that the answer tells of the adapter, at most.
    pub bits: u64,
    /// What was proven of a sample.
    pub proven: Option<Proven>,
    /// The delivery's price, if there is a delivery.
    pub price: Option<String>,
    /// What settling found, if it was tried.
    pub settlement: Option<Settlement>,
}

impl Report {
    /// Reads a buyer's folder. Signatures and digests are checked once more.
    ///
    /// # Errors
    /// A file is missing, or does not belong to the others.
    pub fn of(folder: &Folder) -> Result<Report, Error> {
        let offer = folder.offer()?;
        let request = folder.request()?;
        let answer = folder.answer(&offer, &request)?;
        let price = match folder.has_delivery() {
            // One for another answer is none for this report.
            true => folder.delivery(&offer, &answer).ok().map(|delivery| delivery.price),
            false => None,
        };
        let settlement: Option<Settlement> = match folder.settlement()? {
            Some(json) => serde_json::from_slice(&json).ok(),
            None => None,
        };
        // One of another answer does not count.
        let digest = answer.digest()?;
        let settlement = settlement.filter(|of| of.answer == Some(digest));
        let mut report = Report::new(&offer, &request, &answer)?;
        let proven: Option<Proven> = match folder.sample()? {
            Some(json) => serde_json::from_slice(&json).ok(),
            None => None,
        };
        let proven = proven.filter(|of| of.answer == digest);
        (report.grade, report.grade_text) = match settlement.as_ref() {
            found @ Some(of) if of.is_decided() => grade(found),
            // One that says that nothing can be proven is none.
            _ if folder.has_proof() && proven.is_none() => NOT_VERIFIED,
            _ if folder.has_proof_request() => NOT_PROVEN,
            found => grade(found),
        };
        (report.price, report.settlement) = (price, settlement);
        Ok(report.with_proven(proven))
    }

    /// With what was proven of a sample, if it is.
    pub(super) fn with_proven(mut self, proven: Option<Proven>) -> Report {
        let Some(proven) = proven else { return self };
        if !self.settlement.as_ref().is_some_and(Settlement::is_decided) {
            (self.grade, self.grade_text) =
                if proven.values.is_some() { PROVEN } else { NOT_PROVEN };
        }
        Report { proven: Some(proven), ..self }
    }

    /// Whether what the contributor says of all units that could be drawn lies outside of the
    /// interval of the sample that is proven.
    pub fn is_far_from_sample(&self) -> bool {
        let Some(proven) = &self.proven else { return false };
        let units = proven.units.len() as u64;
        let sample = of_group("", units, proven.tokens, proven.values.as_ref());
        let is_far = |of: Option<Interval>,
                      claimed: fn(&GroupReport) -> Option<(Interval, u64)>| {
            let Some(Interval { value, plus_minus: Some(half) }) = of else { return false };
            let (mut sum, mut all) = (0.0, 0.0);
            for (gain, weight) in self.groups.iter().filter_map(claimed) {
                sum += gain.value * weight as f64;
                all += weight as f64;
            }
            all > 0.0 && (sum / all - value).abs() > half
        };
        is_far(sample.loss.map(|of| of.gain), |group| Some((group.loss?.gain, group.tokens)))
            || is_far(sample.accuracy.map(|of| of.gain), |group| {
                Some((group.accuracy?.gain, group.units))
            })
            || is_far(sample.accuracy_normalised.map(|of| of.gain), |group| {
                Some((group.accuracy_normalised?.gain, group.units))
            })
    }

    /// Bits that the answer and the proof tell of the adapter, at most.
    pub fn bits_revealed(&self) -> u64 {
        self.bits.saturating_add(self.proven.as_ref().map_or(0, |proven| proven.bits))
    }

    /// The report of an answer that is not settled.
    ///
    /// # Errors
    /// The answer cannot be written, which is a bug.
    pub fn new(
        offer: &SignedOffer,
        request: &FullRequest,
        answer: &Answer,
    ) -> Result<Report, Error> {
        let mut first = 0;
        let mut groups = Vec::new();
        let each = request.request.with_units(&request.units).zip(&answer.groups);
        for ((group, units), values) in each {
            let counted = units.iter().enumerate().filter(|(at, _)| {
                answer.base_unscored.binary_search(&(first + *at as u64)).is_err()
            });
            let (mut count, mut tokens) = (0u64, 0);
            for (_, unit) in counted {
                count += 1;
                tokens += sequences(unit).iter().map(scored_tokens).sum::<usize>() as u64;
            }
            first += group.units;
            groups.push(of_group(&group.name, count, tokens, values.metrics.as_ref()));
        }
        let (grade, grade_text) = grade(None);
        Ok(Report {
            grade,
            grade_text,
            adapter_id: offer.offer.adapter_id,
            key: offer.offer.key,
            contact: offer.offer.contact.clone(),
            base_model: offer.offer.base_model.clone(),
            integer_model: offer.offer.integer_model,
            offer: offer.digest,
            request: request.digest,
            answer: answer.digest()?,
            groups,
            units: request.units.len() as u64,
            base_unscored: answer.base_unscored.len() as u64,
            unscored: answer.unscored.listed.clone(),
            more_unscored: answer.unscored.more,
            per_unit: answer.per_unit.is_some(),
            rows_revealed: 0,
            score_bits: offer.offer.score_bits,
            bits: answer.bits,
            proven: None,
            price: None,
            settlement: None,
        })
    }
}

const PROVEN: (&str, &str) = (
    "proven",
    "The values of the drawn sample are proven for the pinned adapter, without showing anything \
     else of it. All other numbers are the contributor's word, signed with its key.",
);
const NOT_PROVEN: (&str, &str) = (
    "not proven",
    "You asked for the proof of a sample, and there is none. The numbers are the contributor's \
     word, signed with its key.",
);

const NOT_VERIFIED: (&str, &str) = (
    "not proven",
    "There is a proof of a sample here that this user's tool did not verify: `zklora verify-sample` \
     does. Until then, the numbers are the contributor's word, signed with its key.",
);

fn grade(settlement: Option<&Settlement>) -> (&'static str, &'static str) {
    match settlement.map(|of| of.verdict) {
        Some(Verdict::Settled) => (
            "settled",
            "These numbers are true: the delivered adapter is the pinned one, and you computed \
             every number again with it.",
        ),
        Some(Verdict::Contradicted) => (
            "contradicted",
            "The contributor's signatures contradict each other, which anybody with the evidence \
             can check.",
        ),
        Some(Verdict::Undecidable | Verdict::Payable) | None => (
            "claimed",
            "These numbers are the contributor's word, signed with its key. After payment you can \
             compute every one of them again with the delivered adapter (zklora settle).",
        ),
    }
}

/// What a group's values say.
pub(super) fn of_group(
    name: &str,
    units: u64,
    tokens: u64,
    values: Option<&Values>,
) -> GroupReport {
    let right =
        |of: fn(&Values) -> Option<Counts>| values.and_then(of).map(|counts| right(&counts, units));
    GroupReport {
        name: name.into(),
        units,
        tokens,
        loss: values.and_then(|values| Some(loss(&values.log_probability?, values.error, units))),
        greedy: right(|values| values.greedy),
        accuracy: right(|values| values.accuracy),
        accuracy_normalised: right(|values| values.accuracy_normalised),
        confusion: values.and_then(|values| values.confusion.clone()),
        signed: values.cloned(),
    }
}

/// Student's quantile for the error of a mean of `units` units: an error that was estimated from
/// few units may itself be far too small.
fn quantile(units: u64) -> f64 {
    let freedom = units.saturating_sub(1).max(1);
    let tabled = usize::try_from(freedom - 1).ok().and_then(|at| QUANTILES.get(at));
    let (z, n) = (QUANTILE, freedom as f64);
    let cubic = (z.powi(3) + z) / (4.0 * n);
    let fifth = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n);
    tabled.copied().unwrap_or(z + cubic + fifth)
}

fn loss(means: &Means, error: Option<u32>, units: u64) -> Loss {
    let nats = |milli: i64| milli as f64 / 1000.0;
    let value = nats(means.adapted.saturating_sub(means.base));
    let error = error.filter(|error| *error < zklora_evaluation::metric::MAX_ERROR);
    let plus_minus = error.map(|error| quantile(units) * f64::from(error) / 1000.0 + ROUNDING);
    let gain = Interval { value, plus_minus };
    Loss { base: -nats(means.base), adapted: -nats(means.adapted), gain }
}

/// The difference of two proportions over the same units. The interval is that of Agresti and Min:
/// half a unit more in each of the four cells, so that few changed units do not look certain.
fn right(counts: &Counts, units: u64) -> Right {
    let n = units.max(1) as f64;
    let value = (counts.gained as f64 - counts.lost as f64) / n;
    let (gained, lost, all) = (counts.gained as f64 + 0.5, counts.lost as f64 + 0.5, n + 2.0);
    let variance = gained + lost - (gained - lost).powi(2) / all;
    Right {
        base: counts.base as f64 / n,
        adapted: counts.adapted() as f64 / n,
        gain: Interval { value, plus_minus: Some(QUANTILE * variance.sqrt() / all) },
        gained: counts.gained,
        lost: counts.lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_units_have_wide_intervals_and_many_those_of_the_normal_distribution() {
        let expected =
            [(2, 12.706), (3, 4.303), (11, 2.228), (12, 2.201), (31, 2.042), (257, 1.969)];
        for (units, student) in expected {
            assert!((quantile(units) - student).abs() < 0.003, "{units}: {}", quantile(units));
        }
        assert!((quantile(1 << 20) - QUANTILE).abs() < 1e-4);
        let means = Means { adapted: -2484, base: -2011 };
        let half = loss(&means, Some(122), 2).gain.plus_minus.unwrap_or(0.0);
        assert!((half - 1.551).abs() < 0.001, "{half}");
    }

    /// A folder may be somebody else's.
    #[test]
    fn hostile_numbers_are_no_panic() {
        let values = Values {
            accuracy: Some(Counts { base: u64::MAX, gained: u64::MAX, lost: 1 }),
            error: Some(u32::MAX),
            log_probability: Some(Means { adapted: i64::MAX, base: i64::MIN }),
            ..Values::default()
        };
        assert!(of_group("", u64::MAX, u64::MAX, Some(&values)).accuracy.is_some());
    }
}
