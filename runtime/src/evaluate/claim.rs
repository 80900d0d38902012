//! Public claims: the contributor's answer to its own request, for everybody.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zklora_evaluation::{
    Error as Statement,
    answer::{Answer, GroupValues, contradiction, is_comparable, is_same_function},
    answering::{Answering, CLAIMS, Known},
    canonical,
    digest::Digest,
    envelope::{Envelope, Kind},
    evidence,
    offer::SignedOffer,
    request::{Choices, FullRequest, Group, Request, UnitGroup, digest_of},
};

use crate::Error;

const WHAT: &str = "claim";
const FORMAT: &str = "zklora-claim";
const VERSION: u32 = 1;
const MAX_BYTES: u64 = 64 << 20;

/// The file of a claim.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    answer: Envelope,
    format: String,
    offer: Envelope,
    request: Request,
    version: u32,
}

/// A claim with a valid signature.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The offer that it is for.
    pub offer: SignedOffer,
    /// The request.
    pub request: Request,
    /// The answer.
    pub answer: Answer,
    file: File,
}

/// How a claim compares with an answer to a buyer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimComparison {
    /// No group of both has the same units and a metric in common.
    NothingInCommon,
    /// Groups with the same units have the same values.
    Same(Vec<String>),
    /// A group with the same units has other values: evidence against the contributor.
    Contradicts(String),
    /// The claim is by another key, or for another adapter, other layers or another model.
    OtherOffer,
}

/// Scores units, and signs the result for everybody. `progress` is told how many units are scored.
///
/// # Errors
/// A unit is refused, or the budget is spent.
pub fn make_claim(
    answering: &Answering,
    groups: Vec<UnitGroup>,
    list_unscored: u32,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Claim, Vec<u8>), Error> {
    let choices =
        Choices { nonce: Digest::ZERO, draw: Digest::ZERO, list_unscored, per_unit: false };
    let offer = answering.offer.clone();
    let full = FullRequest::new(offer.digest, &choices, groups)?;
    let answer = match answering.known(&full.digest, CLAIMS)? {
        Known::Answered(answer) => answer,
        known => {
            if known == Known::New {
                answering.accept(&full, CLAIMS)?;
            }
            let answer = answering.answer(&full.digest, &mut |scored, units| {
                progress(scored, units);
                true
            })?;
            answer.ok_or_else(|| Statement::Internal("scoring was stopped".into()))?
        }
    };
    let file = File {
        answer: Envelope::parse(&answer, Kind::Answer)?,
        format: FORMAT.into(),
        offer: Envelope::parse(&offer.bytes, Kind::Offer)?,
        request: full.request,
        version: VERSION,
    };
    let bytes = canonical::to_bytes(&file)?;
    Ok((Claim::parse(&bytes)?, bytes))
}

impl Claim {
    /// Reads a claim.
    ///
    /// # Errors
    /// It is none, or not signed by the key of its offer.
    pub fn read(path: &Path) -> Result<Claim, Error> {
        Claim::parse(&zklora_files::read(path, MAX_BYTES)?)
    }

    fn parse(bytes: &[u8]) -> Result<Claim, Error> {
        let refuse =
            |why: &str| Error::from(Statement::Form { what: WHAT.into(), why: why.into() });
        let file: File = canonical::parse(bytes, WHAT)?;
        if file.format != FORMAT || file.version != VERSION {
            return Err(refuse("another format or version"));
        }
        let offer = SignedOffer::parse(&file.offer.to_bytes()?)?;
        let request = canonical::to_bytes(&file.request)?;
        let answer = Answer::signed(&file.answer.to_bytes()?, &offer)?;
        let digest = digest_of(&request);
        let request = Request::parse(&request)?;
        answer.check_request(&request, &digest)?;
        if !request.is_claim() {
            return Err(refuse("it answers a buyer, and is no public claim"));
        }
        Ok(Claim { offer, request, answer, file })
    }

    /// Compares the claim with an answer.
    pub fn compare(
        &self,
        offer: &SignedOffer,
        request: &Request,
        answer: &Answer,
    ) -> ClaimComparison {
        // Layers and rules, too: otherwise nothing was compared.
        if !is_same_function(&self.offer.offer, &offer.offer) {
            return ClaimComparison::OtherOffer;
        }
        let both = (&self.offer, &self.request, &self.answer);
        if let Some((_, name)) = contradiction(both, (offer, request, answer)) {
            return ClaimComparison::Contradicts(name);
        }
        let groups = || request.groups.iter().zip(&answer.groups);
        let own = || self.request.groups.iter().zip(&self.answer.groups);
        let is_shared = |(group, values): &(&Group, &GroupValues)| {
            own().any(|(of, claimed)| {
                of.root == group.root
                    && is_comparable(values.metrics.as_ref(), claimed.metrics.as_ref())
            })
        };
        let shared: Vec<String> =
            groups().filter(is_shared).map(|(group, _)| group.name.clone()).collect();
        match shared.is_empty() {
            true => ClaimComparison::NothingInCommon,
            false => ClaimComparison::Same(shared),
        }
    }

    /// The evidence that the claim and an answer contradict each other.
    ///
    /// # Errors
    /// [`Statement::Internal`].
    pub fn evidence(
        &self,
        (offer, request, answer): (&[u8], &[u8], &[u8]),
    ) -> Result<Vec<u8>, Error> {
        let own = (
            self.file.offer.to_bytes()?,
            canonical::to_bytes(&self.request)?,
            self.file.answer.to_bytes()?,
        );
        let first = (&own.0[..], &own.1[..], &own.2[..]);
        Ok(evidence::write_two_answers(first, (offer, request, answer))?)
    }
}
