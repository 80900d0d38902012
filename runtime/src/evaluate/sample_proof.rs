//! The proof of a sample, for both parties (docs/evaluation.md, "The draw and the proof").
//!
//! ```text
//! sample ─ parts → a proof each, with commitments to results
//! commitments + values ─ one proof that the results have these values
//! all of it → proof.tar
//! ```

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use zklora_artifacts::folder::Artifacts;
use zklora_evaluation::{
    Error as Statement, archive, canonical,
    proving::{ProofJob, ProofLimits, Prover as ProvesSamples},
    request::sequences,
    sample::{ProofRequest, Sample},
    sample_values::SquaresBound,
    unit_scores::{Scorer, Side},
    values::Values,
};
use zklora_files::Access;
use zklora_inference::{
    Error as Inference,
    plan::Plan,
    prover::{Prover, ResultOpening},
    registration::{self, Registered},
    squares::Squares,
    statement::{Bound, Claimed, Question},
    sums::{self, SumClaim},
    verifier::{self, ResultCommitment},
};
use zklora_integer::{program::Program, unit::Unit};
use zklora_proof::{
    checked_manifest::CheckedManifest, keys::KeyStore, srs::Srs, verifier::SrsPolicy,
};

use crate::Error;

/// Places of a part, unless one unit has more: what a proof needs of memory grows with them.
const PART_PLACES: usize = 64;
/// How often a process may die while it proves a part.
const MAX_ATTEMPTS: u8 = 3;
const FORMAT: (&str, u32) = ("zklora-sample-proof", 1);
const STATEMENT: &str = "proof.json";
const SUM: &str = "sum.proof";
/// The only entry of a proof that cannot be made.
const NOT_PROVABLE: &str = "not-provable";

/// What the contributor says beside the proofs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    format: String,
    /// The values of the sample.
    values: Values,
    version: u32,
}

/// What the parties agree on before a sample is proven.
struct Agreed<'a> {
    sample: &'a Sample,
    request: &'a ProofRequest,
    offer: zklora_evaluation::digest::Digest,
    model: [u8; 32],
    score_bits: i32,
}

/// Places that the tokens of some units take in a proof: all sequences are as long as a power of
/// two.
fn places(units: &[Unit]) -> usize {
    let all = || units.iter().flat_map(sequences);
    let longest = all().map(|of| of.tokens.len()).max().unwrap_or(0);
    all().count() * longest.next_power_of_two()
}

/// The parts of a sample: consecutive units.
fn parts(sample: &Sample) -> Vec<&[Unit]> {
    let mut parts = Vec::new();
    let mut rest = sample.units.as_slice();
    while !rest.is_empty() {
        let more = (2..=rest.len()).take_while(|count| places(&rest[..*count]) <= PART_PLACES);
        let (part, others) = rest.split_at(more.last().unwrap_or(1));
        parts.push(part);
        rest = others;
    }
    parts
}

/// What the proof of some units is about, but for what it belongs to.
fn claimed_of(sample: &Sample, units: &[Unit], model: [u8; 32]) -> Claimed {
    let question = |unit: &Unit| match unit {
        Unit::Choice { lengths, answer: Some(answer), .. } => {
            Some(Question { answer: *answer, lengths: sample.lengths(lengths) })
        }
        _ => None,
    };
    Claimed {
        sequences: units.iter().flat_map(sequences).cloned().collect(),
        questions: units.iter().filter_map(question).collect(),
        bounds: vec![],
        commits: true,
        model,
        context: [0; 32],
    }
}

impl Agreed<'_> {
    /// What the proof of a part is about.
    fn part(&self, place: usize, units: &[Unit]) -> Result<Claimed, Error> {
        let context = self.request.context(&self.offer, place as u64)?;
        Ok(Claimed { context, ..claimed_of(self.sample, units, self.model) })
    }

    /// What the proof of the values is about.
    fn sum(
        &self,
        results: Vec<ResultCommitment>,
        values: &Values,
        base: &[Side],
    ) -> Result<SumClaim, Error> {
        let terms = self.sample.terms(values, base, self.score_bits)?;
        let bounds = terms.bounds.into_iter();
        let bounds = bounds.map(|of| {
            let (weights, least, most) = (of.weights, of.least, of.most);
            Bound { weights, least, most }
        });
        let squares = terms.squares.map(|of| {
            let SquaresBound { tokens, base, least, most } = of;
            Squares { tokens, base, least, most }
        });
        let context = self.request.context(&self.offer, results.len() as u64)?;
        Ok(SumClaim { results, bounds: bounds.collect(), squares, context })
    }
}

/// Why a sample cannot be proven, for public reasons.
pub(super) fn refusal(
    sample: &Sample,
    program: &Program,
    manifest: &CheckedManifest,
    most_leaves: u64,
) -> Option<String> {
    parts(sample).into_iter().find_map(|units| {
        let claimed = claimed_of(sample, units, [0; 32]);
        match Plan::new(program, manifest, &claimed).map(|plan| plan.size().leaves) {
            Ok(leaves) if leaves as u64 > most_leaves => Some(format!(
                "a unit that takes {} places needs more memory than this contributor gives to a \
                 proof",
                places(units)
            )),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        }
    })
}

/// A contributor that proves samples.
pub(super) struct SampleProver {
    pub srs: Srs,
    pub keys: KeyStore,
    pub artifacts: Arc<Artifacts>,
    /// The registration of the manifest.
    pub registration: Vec<u8>,
    pub program: Program,
    pub scorer: Arc<dyn Scorer>,
    /// Digest of the integer model.
    pub model: [u8; 32],
    pub score_bits: i32,
    pub limits: ProofLimits,
}

impl ProvesSamples for SampleProver {
    fn limits(&self) -> ProofLimits {
        self.limits
    }

    fn refuses(&self, sample: &Sample) -> Option<String> {
        refusal(sample, &self.program, &self.artifacts.manifest, self.limits.leaves)
    }

    fn prove(
        &self,
        job: &ProofJob,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Option<Vec<u8>>, Statement> {
        match self.prove_parts(job, progress) {
            Ok(proof) => Ok(proof),
            Err(Error::Inference(Inference::OutOfRange)) => {
                let mut bytes = Vec::new();
                archive::write([(NOT_PROVABLE, &[][..])], &mut bytes)?;
                Ok(Some(bytes))
            }
            Err(Error::Evaluation(error)) => Err(error),
            Err(error) => Err(Statement::Refused(error.to_string())),
        }
    }
}

/// How often proving a part was begun and not ended: a part that is too large for the machine kills
/// the process each time.
struct Attempts(PathBuf);

impl Attempts {
    fn of(folder: &Path, place: usize) -> Attempts {
        Attempts(folder.join(format!("{place}.attempts")))
    }

    /// How many there were.
    ///
    /// # Errors
    /// There were too many.
    fn allowed(&self) -> Result<u8, Error> {
        let Attempts(path) = self;
        let before = match path.is_file() {
            true => zklora_files::read(path, 1)?.first().copied().unwrap_or(0),
            false => 0,
        };
        match before >= MAX_ATTEMPTS {
            true => {
                let why = format!(
                    "{MAX_ATTEMPTS} processes ended while they proved this part: give the machine \
                     more memory, and remove this file"
                );
                Err(Error::file(path, why))
            }
            false => Ok(before),
        }
    }

    fn begin(self) -> Result<Attempts, Error> {
        let before = self.allowed()?;
        zklora_files::write(&self.0, &[before + 1], Access::Private)?;
        Ok(self)
    }

    fn end(self) -> Result<(), Error> {
        Ok(zklora_files::remove(&self.0)?)
    }
}

impl SampleProver {
    fn prove_parts(
        &self,
        job: &ProofJob,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Option<Vec<u8>>, Error> {
        let parts = parts(&job.sample);
        // At once: a buyer may ask again and again for what is not tried any more.
        for place in 0..parts.len() {
            Attempts::of(&job.folder, place).allowed()?;
        }
        let manifest = &self.artifacts.manifest;
        let policy = SrsPolicy::AllowUntrusted;
        let registered =
            registration::verify(&self.srs, &self.keys, manifest, &self.registration, policy)?;
        let agreed = Agreed {
            sample: &job.sample,
            request: &job.request,
            offer: job.offer.digest,
            model: self.model,
            score_bits: self.score_bits,
        };
        let prover = Prover {
            srs: &self.srs,
            keys: &self.keys,
            registered: &registered,
            mask_key: &self.artifacts.mask_key,
            program: &self.program,
        };
        let (mut proofs, mut openings, mut commitments) = (Vec::new(), Vec::new(), Vec::new());
        // Before the first part: which part it would be at tells of the adapter.
        let scores = self.scorer.score(&job.sample.units)?;
        if scores.iter().any(|of| of.adapted.is_none()) {
            return Err(Inference::OutOfRange.into());
        }
        for (place, units) in parts.iter().enumerate() {
            let claimed = agreed.part(place, units)?;
            let path = job.folder.join(format!("{place}.part"));
            // The opening is secret: both lie in one private file, and are removed at the end.
            let stored = match path.is_file() {
                true => {
                    let bytes = zeroize::Zeroizing::new(zklora_files::read(&path, 1 << 28)?);
                    read_part(&bytes, &claimed.context)
                }
                false => None,
            };
            let (proof, opening) = match stored {
                Some(stored) => stored,
                None => {
                    if !progress(place as u64, parts.len() as u64) {
                        return Ok(None);
                    }
                    let attempts = Attempts::of(&job.folder, place).begin()?;
                    let (proof, opening) = prover.prove(&claimed)?;
                    let opening =
                        opening.ok_or_else(|| internal("a proof commits to no results"))?;
                    let bytes = part_bytes(&proof, &opening, &claimed.context);
                    zklora_files::write(&path, &bytes, Access::Private)?;
                    attempts.end()?;
                    (proof, opening)
                }
            };
            let program = &self.program;
            commitments.push(verifier::commitment_of(
                &self.srs,
                &registered,
                program,
                &claimed,
                &proof,
            )?);
            proofs.push(proof);
            openings.push(opening);
        }
        let values = job.sample.values(&scores, self.score_bits);
        let values = values.ok_or_else(|| internal("a sample has no values"))?;
        let base: Vec<Side> = scores.into_iter().map(|of| of.base).collect();
        let claim = agreed.sum(commitments, &values, &base)?;
        let of: Vec<&ResultOpening> = openings.iter().collect();
        let mask_key = &self.artifacts.mask_key;
        let sum = sums::prove(&self.srs, &self.keys, &registered, mask_key, &claim, &of)?;
        let said = Said { format: FORMAT.0.into(), values, version: FORMAT.1 };
        Ok(Some(pack(&said, &sum, &proofs)?))
    }
}

fn internal(why: &str) -> Error {
    Statement::Internal(why.into()).into()
}

fn pack(said: &Said, sum: &[u8], proofs: &[Vec<u8>]) -> Result<Vec<u8>, Error> {
    let said = canonical::to_bytes(said)?;
    let names: Vec<String> = (0..proofs.len()).map(|at| format!("{at}.proof")).collect();
    let fixed = [(STATEMENT, said.as_slice()), (SUM, sum)];
    let parts = names.iter().zip(proofs).map(|(name, proof)| (name.as_str(), proof.as_slice()));
    let mut bytes = Vec::new();
    archive::write(fixed.into_iter().chain(parts), &mut bytes)?;
    Ok(bytes)
}

/// A part as a private file: a digest, the mask, the results, the proof.
fn part_bytes(
    proof: &[u8],
    opening: &ResultOpening,
    context: &[u8; 32],
) -> zeroize::Zeroizing<Vec<u8>> {
    let length = 72 + 8 * opening.results.len() + proof.len();
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(length));
    bytes.extend_from_slice(&[0; 32]);
    bytes.extend_from_slice(&opening.mask.to_bytes_le());
    bytes.extend_from_slice(&(opening.results.len() as u64).to_le_bytes());
    opening.results.iter().for_each(|result| bytes.extend_from_slice(&result.to_le_bytes()));
    bytes.extend_from_slice(proof);
    let digest = part_digest(&bytes[32..], context);
    bytes[..32].copy_from_slice(&digest);
    bytes
}

fn part_digest(rest: &[u8], context: &[u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("zklora v1 part of a proof");
    hasher.update(context).update(rest);
    hasher.finalize().into()
}

/// A part from its file; none if it is damaged or of another statement: then it is made again.
fn read_part(bytes: &[u8], context: &[u8; 32]) -> Option<(Vec<u8>, ResultOpening)> {
    let (digest, rest) = bytes.split_first_chunk::<32>()?;
    if *digest != part_digest(rest, context) {
        return None;
    }
    let (mask, rest) = rest.split_first_chunk::<32>()?;
    let (count, rest) = rest.split_first_chunk::<8>()?;
    let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
    let (results, proof) = rest.split_at_checked(count.checked_mul(8)?)?;
    let results = results.as_chunks::<8>().0.iter();
    let results = results.map(|result| i64::from_le_bytes(*result)).collect();
    let mask = Option::from(zklora_proof::field::F::from_bytes_le(mask))?;
    Some((proof.to_vec(), ResultOpening { results, mask }))
}

/// What a proof of a sample says, once it is verified.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum SampleVerdict {
    /// The values of the sample.
    Proven(Values),
    /// A unit of the sample leaves a range of the integer model.
    NotProvable,
}

/// What a buyer verifies a sample's proof with.
pub(super) struct SampleVerifier<'a> {
    pub srs: &'a Srs,
    pub keys: &'a KeyStore,
    pub manifest: &'a CheckedManifest,
    /// Its registration.
    pub registration: &'a [u8],
    /// With the manifest's shapes.
    pub program: &'a Program,
    pub model: [u8; 32],
    pub score_bits: i32,
    pub offer: zklora_evaluation::digest::Digest,
    pub policy: SrsPolicy,
}

impl SampleVerifier<'_> {
    /// Verifies a proof. `base` are the base model's scores of the sample's units.
    ///
    /// # Errors
    /// A check fails: nothing was proven.
    pub fn verify(
        &self,
        sample: &Sample,
        request: &ProofRequest,
        base: &[Side],
        bytes: &[u8],
    ) -> Result<SampleVerdict, Error> {
        let what = "proof.tar";
        let refuse =
            |why: &str| Error::from(Statement::Form { what: what.into(), why: why.into() });
        let entries = archive::read(bytes, what)?;
        if let [entry] = entries.as_slice()
            && entry.name == NOT_PROVABLE
        {
            return match entry.bytes.is_empty() {
                true => Ok(SampleVerdict::NotProvable),
                false => Err(refuse("its only file is not empty")),
            };
        }
        let parts = parts(sample);
        let named = |name: &str| {
            let entry = entries.iter().find(|entry| entry.name == name);
            entry
                .map(|entry| entry.bytes.as_slice())
                .ok_or_else(|| refuse(&format!("it has no {name}")))
        };
        if entries.len() != parts.len() + 2 {
            return Err(refuse("it has other files than a proof of this sample"));
        }
        let said: Said = canonical::parse(named(STATEMENT)?, STATEMENT)?;
        if (said.format.as_str(), said.version) != FORMAT {
            return Err(refuse("it is of a version that this zklora does not read"));
        }
        let SampleVerifier { srs, keys, manifest, program, policy, .. } = *self;
        let registered: Registered<'_> =
            registration::verify(srs, keys, manifest, self.registration, policy)?;
        let agreed = Agreed {
            sample,
            request,
            offer: self.offer,
            model: self.model,
            score_bits: self.score_bits,
        };
        let mut commitments = Vec::new();
        for (place, units) in parts.iter().enumerate() {
            let claimed = agreed.part(place, units)?;
            let proof = named(&format!("{place}.proof"))?;
            let commitment =
                verifier::verify(srs, keys, &registered, program, &claimed, proof, policy)?;
            commitments.push(commitment.ok_or_else(|| internal("a proof commits to no results"))?);
        }
        let claim = agreed.sum(commitments, &said.values, base)?;
        sums::verify(srs, keys, &registered, &claim, named(SUM)?, policy)?;
        Ok(SampleVerdict::Proven(said.values))
    }
}
