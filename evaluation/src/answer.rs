//! The answer to a request: a function of offer, request, units and scores.

use serde::{Deserialize, Serialize};
use zklora_integer::unit::Unit;

use crate::{
    Error,
    canonical::{self, check_format},
    digest::Digest,
    envelope::{Envelope, Kind},
    metric::{MAX_ERROR, Metric, WORST},
    offer::{Offer, SignedOffer},
    request::{FullRequest, Request, scored_tokens, sequences},
    signing_key::SigningKey,
    unit_scores::UnitScores,
    values::{Counts, Matrix, Means, Values, values},
};

const FILE: &str = "answer.json";
const FORMAT: (&str, u32) = ("zklora-answer", 1);

/// The values of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupValues {
    /// None if the base model has a score of no unit.
    pub metrics: Option<Values>,
    /// The group's name.
    pub name: String,
}

/// Units that only the adapted model has no score of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unscored {
    /// The first of them, as many as the request asks for.
    pub listed: Vec<u64>,
    /// Whether there are others.
    pub more: bool,
}

/// Sum and greediness of each sequence of a unit.
pub type UnitValues = Vec<(i64, bool)>;

/// The payload of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The pin.
    pub adapter_id: Digest,
    /// Units that the base model has no score of.
    pub base_unscored: Vec<u64>,
    /// The price.
    pub bits: u64,
    /// Of the request.
    pub draw: Digest,
    format: String,
    /// The values.
    pub groups: Vec<GroupValues>,
    /// Of the offer.
    pub integer_model: Digest,
    /// Of the request.
    pub nonce: Digest,
    /// Digest of the offer.
    pub offer: Digest,
    /// For each unit the adapted scores of its sequences, if the request asks for them.
    pub per_unit: Option<Vec<Option<UnitValues>>>,
    /// Digest of the request.
    pub request: Digest,
    /// Of the offer.
    pub rules: u32,
    /// Units that only the adapted model has no score of.
    pub unscored: Unscored,
    version: u32,
}

impl Answer {
    /// The answer that these scores make.
    ///
    /// # Errors
    /// The offer does not allow the request, or there is another number of scores than units.
    pub fn compute(
        offer: &SignedOffer,
        request: &FullRequest,
        scores: &[UnitScores],
    ) -> Result<Answer, Error> {
        if scores.len() != request.units.len() {
            return Err(Error::Internal("there are other scores than units".into()));
        }
        let bits = request.price(offer)?;
        let of = &request.request;
        let lacking = |lacks: fn(&UnitScores) -> bool| {
            let units = scores.iter().enumerate().filter(move |(_, scores)| lacks(scores));
            units.map(|(at, _)| at as u64)
        };
        let mut unscored = lacking(|scores| scores.base.is_some() && scores.adapted.is_none());
        let listed: Vec<u64> = unscored.by_ref().take(of.list_unscored as usize).collect();
        let more = unscored.next().is_some();
        let mut rest = scores;
        let groups = of.with_units(&request.units).map(|(group, units)| {
            let (own, others) = rest.split_at(units.len());
            rest = others;
            let metrics = values(&group.metrics, units, own, offer.offer.score_bits);
            GroupValues { metrics, name: group.name.clone() }
        });
        let groups = groups.collect();
        let single = |scores: &UnitScores| -> Option<UnitValues> {
            let adapted = scores.base.as_ref().and(scores.adapted.as_ref())?;
            Some(adapted.iter().map(|score| (score.sum, score.greedy)).collect())
        };
        let (format, version) = FORMAT;
        Ok(Answer {
            adapter_id: offer.offer.adapter_id,
            base_unscored: lacking(|scores| scores.base.is_none()).collect(),
            bits,
            draw: of.draw,
            format: format.into(),
            groups,
            integer_model: offer.offer.integer_model,
            nonce: of.nonce,
            offer: offer.digest,
            per_unit: of.per_unit.then(|| scores.iter().map(single).collect()),
            request: request.digest,
            rules: offer.offer.rules,
            unscored: Unscored { listed, more },
            version,
        })
    }

    /// The payload.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        canonical::to_bytes(self)
    }

    /// The digest of the statement.
    pub fn digest(&self) -> Result<Digest, Error> {
        Ok(Digest::of(&self.to_bytes()?))
    }

    /// The signed answer.
    pub fn sign(&self, key: &SigningKey) -> Result<Vec<u8>, Error> {
        Envelope::sign(key, Kind::Answer, &self.to_bytes()?).to_bytes()
    }

    /// Reads a signed answer, and checks all that can be checked without scores.
    ///
    /// # Errors
    /// It is not signed by the offer's key, or is not an answer to this request.
    pub fn read(bytes: &[u8], offer: &SignedOffer, request: &FullRequest) -> Result<Answer, Error> {
        let answer = Answer::signed(bytes, offer)?;
        answer.check(offer, request)?;
        Ok(answer)
    }

    /// Reads an answer that the offer's key signed for this offer.
    ///
    /// # Errors
    /// It is not signed by the offer's key, or is for another offer.
    pub fn signed(bytes: &[u8], offer: &SignedOffer) -> Result<Answer, Error> {
        let payload = Envelope::parse(bytes, Kind::Answer)?.open(Kind::Answer, &offer.offer.key)?;
        let answer: Answer = canonical::parse(&payload, FILE)?;
        check_format(FILE, (&answer.format, answer.version), FORMAT)?;
        let same = |what: &str, is_same: bool| match is_same {
            true => Ok(()),
            false => Err(Error::mismatch(FILE, format!("it names another {what} than the offer"))),
        };
        same("offer", answer.offer == offer.digest)?;
        same("adapter", answer.adapter_id == offer.offer.adapter_id)?;
        same("integer model", answer.integer_model == offer.offer.integer_model)?;
        same("version of the rules", answer.rules == offer.offer.rules)?;
        Ok(answer)
    }

    fn check(&self, offer: &SignedOffer, request: &FullRequest) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::mismatch(FILE, why));
        let of = &request.request;
        self.check_request(of, &request.digest)?;
        let bits = request.price(offer)?;
        if self.bits != bits {
            return refuse(format!("its price is {} bits, and the request's is {bits}", self.bits));
        }
        let count = request.units.len() as u64;
        let is_list =
            |list: &[u64]| list.is_sorted_by(|a, b| a < b) && list.iter().all(|at| *at < count);
        let Unscored { listed, more } = &self.unscored;
        let both = listed.iter().any(|at| self.base_unscored.binary_search(at).is_ok());
        let full = listed.len() == of.list_unscored as usize;
        if !is_list(&self.base_unscored)
            || !is_list(listed)
            || both
            || listed.len() > of.list_unscored as usize
            || *more && !full
        {
            return refuse("its lists of units without a score are none".into());
        }
        let mut first = 0;
        for (values, (group, units)) in self.groups.iter().zip(of.with_units(&request.units)) {
            let counted: Vec<&Unit> = units
                .iter()
                .enumerate()
                .filter(|(at, _)| self.base_unscored.binary_search(&(first + *at as u64)).is_err())
                .map(|(_, unit)| unit)
                .collect();
            first += group.units;
            check_values(values.metrics.as_ref(), &counted, offer.offer.score_bits)
                .or_else(|why| refuse(format!("group {}: {why}", group.name)))?;
        }
        self.check_units(request).or_else(refuse)
    }

    /// Checks what can be checked against a request without its units.
    ///
    /// # Errors
    /// It answers another request, or has other groups or metrics.
    pub fn check_request(&self, request: &Request, digest: &Digest) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::mismatch(FILE, why));
        if (self.request, self.nonce, self.draw) != (*digest, request.nonce, request.draw) {
            let own = self.request;
            return refuse(format!("it answers request {own}, and not this one, {digest}"));
        }
        if self.groups.len() != request.groups.len() {
            return refuse("it has other groups than the request".into());
        }
        for (values, group) in self.groups.iter().zip(&request.groups) {
            if values.name != group.name {
                return refuse(format!("it has group {}, expected {}", values.name, group.name));
            }
            if let Some(of) = &values.metrics {
                has_metrics(of, &group.metrics)
                    .or_else(|why| refuse(format!("group {}: {why}", group.name)))?;
            }
        }
        match self.per_unit.is_some() == request.per_unit {
            true => Ok(()),
            false => refuse("it has scores of single units, or lacks them".into()),
        }
    }

    fn check_units(&self, request: &FullRequest) -> Result<(), String> {
        let Some(units) = &self.per_unit else { return Ok(()) };
        if units.len() != request.units.len() {
            return Err("its scores of single units are not those of the request's units".into());
        }
        for (at, (unit, values)) in request.units.iter().zip(units).enumerate() {
            let is_base_unscored = self.base_unscored.binary_search(&(at as u64)).is_ok();
            let fits = match values {
                None => is_base_unscored || self.is_unscored(at as u64),
                Some(values) => {
                    !is_base_unscored
                        && !self.unscored.listed.contains(&(at as u64))
                        && values.len() == sequences(unit).len()
                        && values.iter().zip(sequences(unit)).all(|((sum, _), sequence)| {
                            (-WORST * scored_tokens(sequence) as i64..=0).contains(sum)
                        })
                }
            };
            if !fits {
                return Err(format!("the scores of unit {at} are none"));
            }
        }
        Ok(())
    }

    /// Whether a unit is, or may be, one of those that only the adapter has no score of.
    fn is_unscored(&self, at: u64) -> bool {
        self.unscored.listed.contains(&at) || self.unscored.more
    }
}

/// Whether values are some that scores of the `counted` units could make.
fn check_values(values: Option<&Values>, counted: &[&Unit], score_bits: i32) -> Result<(), String> {
    let Some(values) = values else {
        return match counted.is_empty() {
            true => Ok(()),
            false => Err("it has no values".into()),
        };
    };
    if counted.is_empty() {
        return Err("it has values of no units".into());
    }
    let Values { accuracy, accuracy_normalised, confusion, error, greedy, log_probability } =
        values;
    let count = counted.len() as u64;
    let fits = |counts: &Counts| {
        counts.base <= count && counts.lost <= counts.base && counts.gained <= count - counts.base
    };
    if [accuracy, accuracy_normalised, greedy].into_iter().flatten().any(|counts| !fits(counts)) {
        return Err(format!("its counts are none of {count} units"));
    }
    if error.is_some_and(|error| error > MAX_ERROR) {
        return Err(format!("its error is larger than {MAX_ERROR}"));
    }
    if let Some(Means { adapted, base }) = log_probability {
        let least = -((1000 * WORST) >> score_bits) - 1;
        if !(least..=0).contains(adapted) || !(least..=0).contains(base) {
            return Err("its mean log-probabilities are none".into());
        }
    }
    if let Some(confusion) = confusion {
        check_matrix(&confusion.base, counted, true)?;
        check_matrix(&confusion.adapted, counted, false)?;
    }
    Ok(())
}

/// Whether a group's values are those of these metrics.
fn has_metrics(values: &Values, metrics: &[Metric]) -> Result<(), String> {
    let Values { accuracy, accuracy_normalised, confusion, error, greedy, log_probability } =
        values;
    let has = [
        (Metric::Accuracy, accuracy.is_some()),
        (Metric::AccuracyNormalised, accuracy_normalised.is_some()),
        (Metric::Confusion, confusion.is_some()),
        (Metric::Error, error.is_some()),
        (Metric::Greedy, greedy.is_some()),
        (Metric::LogProbability, log_probability.is_some()),
    ];
    for (metric, has) in has {
        if has != metrics.contains(&metric) {
            return Err(format!("{} is asked for and missing, or the reverse", metric.name()));
        }
    }
    Ok(())
}

fn check_matrix(matrix: &Matrix, counted: &[&Unit], is_base: bool) -> Result<(), String> {
    let choices = counted.first().map_or(0, |unit| sequences(unit).len());
    let mut rows = vec![0u64; choices];
    for unit in counted {
        if let Unit::Choice { answer: Some(answer), .. } = unit {
            rows[*answer] += 1;
        }
    }
    let fits = |(row, count): (&Vec<u64>, &u64)| {
        let sum = row.iter().try_fold(0u64, |all, more| all.checked_add(*more));
        row.len() == choices + 1 && sum == Some(*count) && (!is_base || row[choices] == 0)
    };
    match matrix.len() == choices && matrix.iter().zip(&rows).all(fits) {
        true => Ok(()),
        false => Err("its confusion matrix is none of these units".into()),
    }
}

/// Whether answers to two offers are by one key, and about the same adapter on the same layers of
/// the same model: values of the same units are then equal.
pub fn is_same_function(first: &Offer, second: &Offer) -> bool {
    let function = |offer: &Offer| {
        let Offer { key, adapter_id, integer_model, rules, score_bits, .. } = *offer;
        (key, adapter_id, integer_model, rules, score_bits)
    };
    function(first) == function(second) && first.layers == second.layers
}

/// Whether two answers contradict each other: one key signed both, for the same adapter on the same
/// layers, and they give another value to a metric of groups with the same units. Returns the names
/// of the groups.
pub fn contradiction(
    first: (&SignedOffer, &Request, &Answer),
    second: (&SignedOffer, &Request, &Answer),
) -> Option<(String, String)> {
    if !is_same_function(&first.0.offer, &second.0.offer) {
        return None;
    }
    for (a, of) in first.2.groups.iter().zip(&first.1.groups) {
        for (b, with) in second.2.groups.iter().zip(&second.1.groups) {
            if of.root == with.root && differ(a.metrics.as_ref(), b.metrics.as_ref()) {
                return Some((a.name.clone(), b.name.clone()));
            }
        }
    }
    None
}

/// Whether some metric has a value in both.
pub fn is_comparable(a: Option<&Values>, b: Option<&Values>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return true };
    let has = |of: &Values| {
        [
            of.accuracy.is_some(),
            of.accuracy_normalised.is_some(),
            of.confusion.is_some(),
            of.error.is_some(),
            of.greedy.is_some(),
            of.log_probability.is_some(),
        ]
    };
    has(a).into_iter().zip(has(b)).any(|(a, b)| a && b)
}

fn differ(a: Option<&Values>, b: Option<&Values>) -> bool {
    fn both<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
        matches!((a, b), (Some(a), Some(b)) if a != b)
    }
    let (Some(a), Some(b)) = (a, b) else { return a.is_some() != b.is_some() };
    both(&a.accuracy, &b.accuracy)
        || both(&a.accuracy_normalised, &b.accuracy_normalised)
        || both(&a.confusion, &b.confusion)
        || both(&a.error, &b.error)
        || both(&a.greedy, &b.greedy)
        || both(&a.log_probability, &b.log_probability)
}
