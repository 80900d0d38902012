//! The buyer's part of a proof: draw a sample, ask for its proof, verify it.

use serde::{Deserialize, Serialize};
use zklora_evaluation::{
    Error as Statement,
    answer::Answer,
    digest::Digest,
    evidence::ANSWER,
    offer::SignedOffer,
    proving::{MAX_PROOF, PROOF, PROOF_REQUEST},
    request::{FullRequest, scored_tokens, sequences},
    sample::{MAX_BYTES, ProofRequest},
    values::mean,
};
use zklora_integer::score::{Score, score};
use zklora_proof::{keys::KeyStore, srs::Srs, verifier::SrsPolicy};

use super::{
    folder::Folder,
    other_party::{Contributor, Step},
    sample_proof::{SampleVerdict, SampleVerifier},
    terms::CheckedTerms,
};
use crate::Error;

/// What was proven of a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// The mean log-probability of a token of the sample with the adapter, in 10⁻³ nats; none if
    /// the contributor says that a unit of the sample cannot be proven.
    pub adapted: Option<i64>,
    /// The same without the adapter, computed here.
    pub base: i64,
    /// The answer.
    pub answer: Digest,
    /// Units of the sample, counted from 0 over the whole request.
    pub units: Vec<u64>,
    /// Their scored tokens.
    pub tokens: u64,
    /// Bits that the proof tells of the adapter, at most.
    pub bits: u64,
}

impl Proven {
    /// Base minus adapted loss, in 10⁻³ nats a token.
    pub fn gain(&self) -> Option<i64> {
        self.adapted.map(|adapted| adapted - self.base)
    }
}

/// Asks for the proof of a sample, and verifies it.
pub(super) fn prove(
    contributor: &mut dyn Contributor,
    folder: &Folder,
    srs: &Srs,
    (terms, full, answer): (&CheckedTerms, &FullRequest, &Answer),
    units: u32,
    policy: SrsPolicy,
    progress: &mut dyn FnMut(Step),
) -> Result<Proven, Error> {
    let request = ProofRequest::new(answer, folder.draw_nonce(&full.request)?, units)?;
    // All that can fail here fails before the nonce is shown, which is once.
    let registration = folder.registration()?.ok_or_else(|| {
        Error::input("the adapter is not registered, and nothing can be proven of its scores")
    })?;
    request.sample(full, answer)?;
    check_base_unscored(terms, full, answer)?;
    let bytes = request.to_bytes()?;
    if folder.has_proof_request() && folder.read(PROOF_REQUEST, MAX_BYTES)? != bytes {
        let why = "another sample of this answer was asked for before: there is one draw an \
                   answer; ask for as many units as then";
        return Err(Error::file(&folder.path, why));
    }
    // Kept before it is asked for: a proof that never came is remembered, too.
    folder.write(PROOF_REQUEST, &bytes)?;
    if !folder.file(PROOF).exists() {
        let proof = contributor.prove(&request, progress)?;
        folder.write(PROOF, &proof)?;
    }
    progress(Step::Local("verify the proof of the sample"));
    let proof = folder.read(PROOF, MAX_PROOF)?;
    let proofs = (registration.as_slice(), proof.as_slice());
    let proven = verify_sample(srs, (terms, full, answer), &request, proofs, policy);
    if proven.is_err() {
        // The contributor may still give a better one.
        std::fs::rename(folder.file(PROOF), folder.file("proof.refused"))
            .map_err(|error| Error::file(&folder.file(PROOF), error))?;
    }
    let proven = proven?;
    let json = serde_json::to_vec(&proven).map_err(|e| Error::input(e.to_string()))?;
    folder.keep_sample(&json, &full.request)?;
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

/// Verifies the proof of a sample, and computes the base model's mean.
fn verify_sample(
    srs: &Srs,
    (terms, full, answer): (&CheckedTerms, &FullRequest, &Answer),
    request: &ProofRequest,
    (registration, proof): (&[u8], &[u8]),
    policy: SrsPolicy,
) -> Result<Proven, Error> {
    let sample = request.sample(full, answer)?;
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
    let verdict = verifier.verify(&sample, request, proof)?;
    if verdict == SampleVerdict::NotProvable && !request.may_be_unprovable(&sample, answer) {
        return Err(Statement::Mismatch {
            what: PROOF.into(),
            why: "it says that a unit of the sample cannot be proven, and the signed answer says \
                  that every unit has a score"
                .into(),
        }
        .into());
    }
    let drawn: Vec<_> = sample.units.iter().map(|at| full.units[*at as usize].clone()).collect();
    let mut sum = 0i128;
    for scored in score(&terms.base, &drawn)?.0 {
        match scored {
            Score::LogProbability(of) => sum += i128::from(of.sum()),
            // Such units cannot be drawn: the answer lists them, or its list is false.
            _ => {
                let why = "the base model has no score of a drawn unit, and it does not say so";
                return Err(Statement::Mismatch { what: ANSWER.into(), why: why.into() }.into());
            }
        }
    }
    let tokens = drawn.iter().flat_map(sequences).map(scored_tokens).sum::<usize>() as u64;
    Ok(Proven {
        adapted: match verdict {
            SampleVerdict::Proven(adapted) => Some(adapted),
            SampleVerdict::NotProvable => None,
        },
        base: mean(sum, tokens as i64, offer.score_bits),
        answer: answer.digest()?,
        units: sample.units,
        tokens,
        bits: request.price(&terms.offer),
    })
}
