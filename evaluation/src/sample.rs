//! The draw of a sample, and the request to prove it (docs/evaluation.md, "The draw and the
//! proof").

use serde::{Deserialize, Serialize};
use zklora_integer::unit::{Sequence, Unit};

use crate::{
    Error,
    answer::Answer,
    canonical::{self, check_format},
    digest::Digest,
    metric::Metric,
    offer::SignedOffer,
    request::{FullRequest, scored_tokens, sequences},
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
    /// The units, counted over the whole request, in their order.
    pub units: Vec<u64>,
    /// Their sequences.
    pub sequences: Vec<Sequence>,
    /// Scored tokens of all of them.
    pub tokens: u64,
}

impl ProofRequest {
    /// A request. `nonce` are the buyer's secret bytes, which it shows to the contributor.
    pub fn new(answer: &Answer, nonce: [u8; 32], units: u32) -> Result<ProofRequest, Error> {
        let (format, version) = FORMAT;
        let of = ProofRequest {
            answer: answer.digest()?,
            format: format.into(),
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
        answer.unscored.more || sample.units.iter().any(|unit| listed.contains(unit))
    }

    /// The price in bits: the sample's mean, and whether there is a proof at all.
    pub fn price(&self, offer: &SignedOffer) -> u64 {
        Metric::LogProbability.bits(&[], offer.offer.score_bits) + 1
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
        let eligible = eligible(full, answer);
        if eligible.len() < self.units as usize {
            return Err(Error::Refused(format!(
                "a sample of {} units, and {} can be drawn: sequences of groups that ask for \
                 {}, which the base model has a score of",
                self.units,
                eligible.len(),
                Metric::LogProbability.name()
            )));
        }
        let units = draw(&self.answer, &self.nonce, eligible, self.units as usize);
        let of = |unit: &u64| sequences(&full.units[*unit as usize]).iter().cloned();
        let sequences: Vec<Sequence> = units.iter().flat_map(of).collect();
        let tokens = sequences.iter().map(|of| scored_tokens(of) as u64).sum();
        Ok(Sample { units, sequences, tokens })
    }
}

/// The units that can be drawn, before the answer says which ones the base model has no score of.
pub fn candidates(full: &FullRequest) -> impl Iterator<Item = (u64, &Unit)> {
    let groups = full.request.with_units(&full.units);
    let asked = groups.flat_map(|(group, units)| {
        let asked = group.metrics.contains(&Metric::LogProbability);
        units.iter().map(move |unit| (asked, unit))
    });
    let numbered = (0..).zip(asked);
    numbered.filter_map(|(at, (asked, unit))| {
        (asked && matches!(unit, Unit::LogProbability(_))).then_some((at, unit))
    })
}

/// The units that can be drawn.
fn eligible(full: &FullRequest, answer: &Answer) -> Vec<u64> {
    let counts = |at: &u64| answer.base_unscored.binary_search(at).is_err();
    candidates(full).map(|(at, _)| at).filter(counts).collect()
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

/// The least and the largest sum of `tokens` log-probabilities whose mean is rounded to `mean`
/// (docs/evaluation.md, "Metrics"). The first is above the second if no sum is.
pub fn sums_of_mean(mean: i64, tokens: u64, score_bits: i32) -> (i64, i64) {
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
    use super::*;

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
