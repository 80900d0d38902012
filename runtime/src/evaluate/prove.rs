//! The buyer's part of a proof: draw a sample, ask for its proof, verify it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zklora_evaluation::{
    Error as Statement,
    answer::Answer,
    digest::Digest,
    evidence::{ANSWER, OFFER},
    metric::Metric,
    offer::SignedOffer,
    proving::{MAX_PROOF, PROOF, PROOF_REQUEST},
    request::FullRequest,
    sample::{MAX_BYTES, ProofRequest, Sample, default_metric},
    unit_scores::{Side, side},
    values::Values,
};
use zklora_integer::score::{Score, score};
use zklora_proof::{keys::KeyStore, srs::Srs, verifier::SrsPolicy};

use super::{
    folder::Folder,
    memory::Memory,
    other_party::{Contributor, Step},
    sample_proof::{SampleVerdict, SampleVerifier},
    sent_units::{EarlierSamples, SentUnits},
    settle::other_signer,
    terms::{CheckedTerms, OfferFrom, TermsOptions},
};
use crate::Error;

/// What was proven of a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// The values of the sample: a mean and its error, or counts of right answers; none if the
    /// contributor says that a unit of the sample cannot be proven.
    pub values: Option<Values>,
    /// The answer.
    pub answer: Digest,
    /// What was asked for.
    pub metric: Metric,
    /// Units of the sample, counted from 0 over the whole request.
    pub units: Vec<u64>,
    /// Their scored tokens.
    pub tokens: u64,
    /// Bits that the proof tells of the adapter, at most.
    pub bits: u64,
    /// What the buyer's memory says of earlier samples of these units.
    #[serde(default)]
    pub earlier_samples: EarlierSamples,
}

/// What is asked of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleOptions {
    /// Units.
    pub units: u32,
    /// What is proven; none for the first metric that the request asks for and that can be proven.
    pub metric: Option<Metric>,
}

impl SampleOptions {
    /// What is proven of a request.
    pub(super) fn metric(&self, full: &FullRequest) -> Result<Metric, Error> {
        self.metric.map_or_else(|| Ok(default_metric(full)?), Ok)
    }
}

/// Asks for the proof of a sample, and verifies it.
pub(super) fn prove(
    contributor: &mut dyn Contributor,
    (folder, sent): (&Folder, Option<(&SentUnits, EarlierSamples)>),
    srs: &Srs,
    (terms, full, answer): (&CheckedTerms, &FullRequest, &Answer),
    options: SampleOptions,
    policy: SrsPolicy,
    progress: &mut dyn FnMut(Step),
) -> Result<Proven, Error> {
    let metric = options.metric(full)?;
    let nonce = folder.draw_nonce(&full.request)?;
    let request = ProofRequest::new(answer, nonce, metric, options.units)?;
    // All that can fail here fails before the nonce is shown, which is once.
    let drawn = Drawn::new(folder, terms, full, answer, request)?;
    let request = &drawn.request;
    let bytes = request.to_bytes()?;
    if folder.has_proof_request() && folder.read(PROOF_REQUEST, MAX_BYTES)? != bytes {
        let why = "another sample of this answer was asked for before: there is one draw an \
                   answer; ask for as many units, and the same metric, as then";
        return Err(Error::file(&folder.path, why));
    }
    // Kept before it is asked for: a proof that never came is remembered, too.
    if let Some((sent, _)) = sent {
        sent.asking(&terms.offer, full)?;
    }
    folder.write(PROOF_REQUEST, &bytes)?;
    if !folder.file(PROOF).exists() {
        let proof = contributor.prove(request, progress)?;
        folder.write(PROOF, &proof)?;
    }
    progress(Step::Local("verify the proof of the sample"));
    let proof = folder.read(PROOF, MAX_PROOF)?;
    let proven = drawn.verify(srs, terms, answer, &proof, policy);
    if proven.is_err() {
        // The contributor may still give a better one.
        std::fs::rename(folder.file(PROOF), folder.file("proof.refused"))
            .map_err(|error| Error::file(&folder.file(PROOF), error))?;
    }
    let mut proven = proven?;
    if let Some((sent, earlier)) = sent {
        proven.earlier_samples = earlier;
        if proven.values.is_some() {
            sent.proven(&terms.offer, full)?;
        }
    }
    let json = serde_json::to_vec(&proven).map_err(|e| Error::input(e.to_string()))?;
    folder.keep_sample(&json)?;
    Ok(proven)
}

/// Checks that the base model has no score of the units that the answer leaves out: otherwise a
/// contributor could choose which units can be drawn.
fn check_base_unscored(
    terms: &CheckedTerms,
    full: &FullRequest,
    answer: &Answer,
) -> Result<(), Error> {
    let named = answer.base_unscored.iter().filter_map(|at| full.units.get(*at as usize));
    let named: Vec<_> = named.cloned().collect();
    let scores = score(&terms.base, &named)?.0;
    match scores.iter().all(|score| matches!(score, Score::OutOfRange(_))) {
        true => Ok(()),
        false => Err(Statement::Mismatch {
            what: ANSWER.into(),
            why: "it leaves out units that the base model has a score of: the contributor chooses \
                  which units count"
                .into(),
        }
        .into()),
    }
}

/// A sample, and what its proof is verified with.
struct Drawn {
    request: ProofRequest,
    sample: Sample,
    /// The base model's scores of the units.
    base: Vec<Side>,
    registration: Vec<u8>,
}

impl Drawn {
    /// Draws a sample, and checks what needs no proof.
    fn new(
        folder: &Folder,
        terms: &CheckedTerms,
        full: &FullRequest,
        answer: &Answer,
        request: ProofRequest,
    ) -> Result<Drawn, Error> {
        let registration = folder.registration()?.ok_or_else(|| {
            Error::input("the adapter is not registered, and nothing can be proven of its scores")
        })?;
        let sample = request.sample(full, answer)?;
        check_base_unscored(terms, full, answer)?;
        let base: Vec<Side> = score(&terms.base, &sample.units)?.0.iter().map(side).collect();
        if base.iter().any(Option::is_none) {
            let why = "the base model has no score of a drawn unit, and it does not say so";
            return Err(Statement::Mismatch { what: ANSWER.into(), why: why.into() }.into());
        }
        Ok(Drawn { request, sample, base, registration })
    }

    fn verify(
        &self,
        srs: &Srs,
        terms: &CheckedTerms,
        answer: &Answer,
        proof: &[u8],
        policy: SrsPolicy,
    ) -> Result<Proven, Error> {
        let Drawn { request, sample, base, registration } = self;
        let (keys, program) = (KeyStore::default(), terms.adapted_shape()?);
        let SignedOffer { offer, digest, .. } = &terms.offer;
        let verifier = SampleVerifier {
            srs,
            keys: &keys,
            manifest: &terms.manifest,
            registration,
            program: &program,
            model: offer.integer_model.0,
            score_bits: offer.score_bits,
            offer: *digest,
            policy,
        };
        let values = match verifier.verify(sample, request, base, proof)? {
            SampleVerdict::Proven(values) => Some(values),
            SampleVerdict::NotProvable if request.may_be_unprovable(sample, answer) => None,
            SampleVerdict::NotProvable => {
                let why = "it says that a unit of the sample cannot be proven, and the signed \
                           answer says that every unit has a score";
                return Err(Statement::Mismatch { what: PROOF.into(), why: why.into() }.into());
            }
        };
        Ok(Proven {
            values,
            answer: answer.digest()?,
            metric: request.metric,
            units: sample.numbers.clone(),
            tokens: sample.scored_tokens().sum(),
            bits: request.price(&terms.offer),
            earlier_samples: EarlierSamples::default(),
        })
    }
}

/// Verifies the proof in the folder of an evaluation, also of somebody else's, without the
/// contributor. The offer must be signed by `signer`, if one is named. Returns the offer, too.
///
/// # Errors
/// A check fails: nothing was proven.
pub fn verify_sample(
    path: &Path,
    srs: &Srs,
    options: &TermsOptions,
    signer: Option<Digest>,
) -> Result<(SignedOffer, Proven), Error> {
    let folder = Folder::new(path, &Memory::default());
    let offer = folder.offer()?;
    if let Some(signer) = signer.filter(|signer| *signer != offer.offer.key) {
        let why = other_signer(&offer.offer.key, &signer);
        return Err(Statement::Mismatch { what: OFFER.into(), why }.into());
    }
    let published = (folder.manifest()?, folder.registration()?);
    let published = (published.0.as_slice(), published.1.as_deref());
    let terms = CheckedTerms::check((offer, OfferFrom::Others), published, srs, options)?;
    let full = folder.request()?;
    let answer = folder.answer(&terms.offer, &full)?;
    if !folder.has_proof_request() {
        return Err(Error::file(path, "no proof of a sample was asked for (evaluate --prove)"));
    }
    let request = ProofRequest::parse(&folder.read(PROOF_REQUEST, MAX_BYTES)?)?;
    let proof = folder.read(PROOF, MAX_PROOF)?;
    let drawn = Drawn::new(&folder, &terms, &full, &answer, request)?;
    let proven = drawn.verify(srs, &terms, &answer, &proof, options.policy)?;
    Ok((terms.offer, proven))
}
