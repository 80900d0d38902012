//! The draw of a sample, and the request to prove it (docs/evaluation.md, "The draw and the
//! proof").

use serde::{Deserialize, Serialize};
use zklora_integer::unit::Unit;

use crate::{
    Error,
    answer::Answer,
    canonical::{self, check_format},
    digest::Digest,
    metric::{Metric, counts_bits},
    offer::SignedOffer,
    request::FullRequest,
};

const FILE: &str = "proof-request.json";
const FORMAT: (&str, u32) = ("zklora-proof-request", 1);
const DRAW: &str = "zklora v1 evaluation draw";
const DIGEST: &str = "zklora v1 evaluation proof request";
const CONTEXT: &str = "zklora v1 evaluation proof";
/// Longest request, in bytes.
pub const MAX_BYTES: u64 = 4096;
/// Most units of a sample.
pub const MAX_SAMPLE: u32 = 256;

/// Asks for a proof of a sample that is drawn from the units of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofRequest {
    /// The digest of the answer.
    pub answer: Digest,
    format: String,
    /// What is proven, one of [`Metric::PROVABLE`].
    pub metric: Metric,
    /// The buyer's second nonce, whose digest is the request's `draw`.
    pub nonce: Digest,
    /// The digest of the request.
    pub request: Digest,
    /// Units of the sample.
    pub units: u32,
    version: u32,
}

/// A sample of an answer's units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// What is proven of it.
    pub metric: Metric,
    /// The numbers of the units over the whole request, in their order.
    pub numbers: Vec<u64>,
    /// The units.
    pub units: Vec<Unit>,
}

impl ProofRequest {
    /// A request. `nonce` are the buyer's secret bytes, which it shows to the contributor.
    ///
    /// # Errors
    /// [`Error::Form`]: there is no proof of such a metric, or of so many units.
    pub fn new(
        answer: &Answer,
        nonce: [u8; 32],
        metric: Metric,
        units: u32,
    ) -> Result<ProofRequest, Error> {
        let (format, version) = FORMAT;
        let of = ProofRequest {
            answer: answer.digest()?,
            format: format.into(),
            metric,
            nonce: Digest(nonce),
            request: answer.request,
            units,
            version,
        };
        of.check()?;
        Ok(of)
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`Error::Form`].
    pub fn parse(bytes: &[u8]) -> Result<ProofRequest, Error> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Error::form(FILE, format!("it is longer than {MAX_BYTES} bytes")));
        }
        let request: ProofRequest = canonical::parse(bytes, FILE)?;
        request.check()?;
        Ok(request)
    }

    fn check(&self) -> Result<(), Error> {
        check_format(FILE, (&self.format, self.version), FORMAT)?;
        if !Metric::PROVABLE.contains(&self.metric) {
            let why = format!("there is no proof of {}: {PROVABLE}", self.metric.name());
            return Err(Error::form(FILE, why));
        }
        match (1..=MAX_SAMPLE).contains(&self.units) {
            true => Ok(()),
            false => Err(Error::form(FILE, format!("a sample has 1 to {MAX_SAMPLE} units"))),
        }
    }

    /// Its bytes.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        canonical::to_bytes(self)
    }

    /// Its digest: the name of the charge.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn digest(&self) -> Result<Digest, Error> {
        Ok(Digest::derived(DIGEST, &self.to_bytes()?))
    }

    /// What proofs of a part of the sample belong to: the answer, hence offer and request; the
    /// draw; and the place of the part. The proof of the sum has the place after the last one.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn context(&self, offer: &Digest, place: u64) -> Result<[u8; 32], Error> {
        let mut bytes = self.to_bytes()?;
        bytes.extend_from_slice(&offer.0);
        bytes.extend_from_slice(&place.to_le_bytes());
        Ok(Digest::derived(CONTEXT, &bytes).0)
    }

    /// Whether an answer allows that a unit of the sample cannot be proven: it says that such units
    /// are scored worst, and lists the first ones.
    pub fn may_be_unprovable(&self, sample: &Sample, answer: &Answer) -> bool {
        let listed = &answer.unscored.listed;
        let is_listed = |unit: &u64| listed.contains(unit);
        let is_behind = |unit: &u64| listed.last().is_none_or(|last| unit > last);
        sample.numbers.iter().any(|unit| is_listed(unit) || answer.unscored.more && is_behind(unit))
    }

    /// The price in bits: the sample's values, and whether there is a proof at all.
    pub fn price(&self, offer: &SignedOffer) -> u64 {
        price(self.metric, self.units, offer)
    }

    /// The sample.
    ///
    /// # Errors
    /// [`Error::Mismatch`]: the nonce is not the one that the request named, or the request asks
    /// for another answer's proof. [`Error::Refused`]: there are fewer units to draw from.
    pub fn sample(&self, full: &FullRequest, answer: &Answer) -> Result<Sample, Error> {
        let differs = |why: &str| Err(Error::mismatch(FILE, why));
        if self.answer != answer.digest()? || self.request != full.digest {
            return differs("it asks for a proof of another answer");
        }
        if Digest::of(&self.nonce.0) != full.request.draw {
            return differs("its nonce is not the one that the request named before the answer");
        }
        let eligible = eligible(full, answer, self.metric);
        if eligible.len() < self.units as usize {
            return Err(Error::Refused(format!(
                "a sample of {} units, and {} can be drawn: units of groups that ask for {}, which \
                 the base model has a score of",
                self.units,
                eligible.len(),
                self.metric.name()
            )));
        }
        let numbers = draw(&self.answer, &self.nonce, eligible, self.units as usize);
        let units = numbers.iter().map(|unit| full.units[*unit as usize].clone()).collect();
        Ok(Sample { metric: self.metric, numbers, units })
    }
}

const PROVABLE: &str = "log_probability, accuracy and accuracy_normalised can be proven";

/// What a proof costs, in bits.
pub fn price(metric: Metric, units: u32, offer: &SignedOffer) -> u64 {
    let values = match metric {
        Metric::LogProbability => {
            let bits = |metric: Metric| metric.bits(&[], offer.offer.score_bits);
            let error = if units > 1 { bits(Metric::Error) } else { 0 };
            bits(metric) + error
        }
        _ => counts_bits(u64::from(units)),
    };
    values + 1
}

/// What a proof shows if the buyer does not say: the first of [`Metric::PROVABLE`] that a request
/// asks for.
///
/// # Errors
/// [`Error::Refused`]: it asks for none.
pub fn default_metric(full: &FullRequest) -> Result<Metric, Error> {
    let asked =
        |metric: &Metric| full.request.groups.iter().any(|group| group.metrics.contains(metric));
    Metric::PROVABLE.into_iter().find(asked).ok_or_else(|| {
        Error::Refused(format!("the request asks for nothing that can be proven: {PROVABLE}"))
    })
}

/// The units that can be drawn, before the answer says which ones the base model has no score of.
pub fn candidates(full: &FullRequest, metric: Metric) -> impl Iterator<Item = (u64, &Unit)> {
    let groups = full.request.with_units(&full.units);
    let asked = groups.flat_map(move |(group, units)| {
        let asked = group.metrics.contains(&metric);
        units.iter().map(move |unit| (asked, unit))
    });
    (0..).zip(asked).filter_map(|(at, (asked, unit))| asked.then_some((at, unit)))
}

/// The units that can be drawn.
fn eligible(full: &FullRequest, answer: &Answer, metric: Metric) -> Vec<u64> {
    let counts = |at: &u64| answer.base_unscored.binary_search(at).is_err();
    candidates(full, metric).map(|(at, _)| at).filter(counts).collect()
}

/// `count` of the units, each set of them equally likely, in their order.
fn draw(answer: &Digest, nonce: &Digest, mut units: Vec<u64>, count: usize) -> Vec<u64> {
    let mut hasher = blake3::Hasher::new_derive_key(DRAW);
    hasher.update(&answer.0);
    hasher.update(&nonce.0);
    let mut stream = hasher.finalize_xof();
    let mut below = |bound: u64| loop {
        let mut bytes = [0; 8];
        stream.fill(&mut bytes);
        let number = u64::from_le_bytes(bytes);
        // Numbers from the last whole multiple of the bound on would prefer small results.
        if number < u64::MAX - u64::MAX % bound {
            return number % bound;
        }
    };
    for at in 0..count {
        let other = at + below((units.len() - at) as u64) as usize;
        units.swap(at, other);
    }
    units.truncate(count);
    units.sort_unstable();
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_has_no_preference_and_depends_on_all_of_it() {
        let nonce = |at: u64| Digest::of(&at.to_le_bytes());
        let answer = Digest::of(b"answer");
        let mut counts = [0u32; 10];
        for at in 0..2000 {
            let drawn = draw(&answer, &nonce(at), (0..10).collect(), 3);
            assert!(drawn.is_sorted_by(|a, b| a < b) && drawn.len() == 3);
            drawn.iter().for_each(|unit| counts[*unit as usize] += 1);
        }
        assert!(counts.iter().all(|count| (500..700).contains(count)), "{counts:?}");
        let of = |answer: &[u8], at| draw(&Digest::of(answer), &nonce(at), (0..1000).collect(), 5);
        assert_eq!(of(b"a", 1), of(b"a", 1));
        assert_ne!(of(b"a", 1), of(b"b", 1));
        assert_ne!(of(b"a", 1), of(b"a", 2));
    }
}
