//! The proof of a sample, for both parties (docs/evaluation.md, "The draw and the proof").
//!
//! ```text
//! sample ─ parts → a proof each, with commitments to scores
//! commitments + mean ─ one proof that the mean is that of their sum
//! all of it → proof.tar
//! ```

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use zklora_artifacts::folder::Artifacts;
use zklora_evaluation::{
    Error as Statement, archive, canonical,
    proving::{ProofJob, Prover as ProvesSamples},
    sample::{ProofRequest, Sample, sums_of_mean},
};
use zklora_files::Access;
use zklora_inference::{
    Error as Inference,
    plan::Plan,
    prover::{Prover, ScoreOpening},
    registration::{self, Registered},
    statement::{Bound, Claimed},
    sums::{self, SumClaim},
    verifier::{self, ScoreCommitment},
};
use zklora_integer::{
    program::Program,
    score::{Score, score},
    unit::{Sequence, Unit},
};
use zklora_proof::{keys::KeyStore, srs::Srs, verifier::SrsPolicy};

use crate::Error;

/// Most tokens of a part, unless one sequence has more: what a proof needs of memory.
const PART_TOKENS: usize = 96;
/// Largest tree of lookups of a part: what a proof needs of memory.
const MAX_LEAVES: usize = 1 << 27;
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
    /// Mean log-probability of a token of the sample with the adapter, in 10⁻³ nats.
    adapted: i64,
    format: String,
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

/// The parts of a sample: consecutive sequences.
fn parts(sample: &Sample) -> Vec<&[Sequence]> {
    let mut parts = Vec::new();
    let mut rest = sample.sequences.as_slice();
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = |of: &&Sequence| {
            tokens += of.tokens.len();
            tokens <= PART_TOKENS
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (part, others) = rest.split_at(count);
        parts.push(part);
        rest = others;
    }
    parts
}

impl Agreed<'_> {
    /// What the proof of a part is about.
    fn part(&self, place: usize, sequences: &[Sequence]) -> Result<Claimed, Error> {
        Ok(Claimed {
            sequences: sequences.to_vec(),
            bounds: vec![],
            commits: true,
            model: self.model,
            context: self.request.context(&self.offer, place as u64)?,
        })
    }

    /// What the proof of the mean is about.
    fn sum(&self, scores: Vec<ScoreCommitment>, mean: i64) -> Result<SumClaim, Error> {
        let (least, most) = sums_of_mean(mean, self.sample.tokens, self.score_bits);
        let weights = vec![1; self.sample.sequences.len()];
        let context = self.request.context(&self.offer, scores.len() as u64)?;
        Ok(SumClaim { scores, bounds: vec![Bound { weights, least, most }], context })
    }
}

/// A contributor that proves samples.
pub(super) struct SampleProver {
    pub srs: Srs,
    pub keys: KeyStore,
    pub artifacts: Arc<Artifacts>,
    /// The registration of the manifest.
    pub registration: Vec<u8>,
    pub program: Program,
    /// Digest of the integer model.
    pub model: [u8; 32],
    pub score_bits: i32,
    pub most_tokens: u64,
}

impl ProvesSamples for SampleProver {
    fn most_tokens(&self) -> u64 {
        self.most_tokens
    }

    fn refuses(&self, sample: &Sample) -> Option<String> {
        parts(sample).into_iter().find_map(|sequences| {
            let claimed = Claimed {
                sequences: sequences.to_vec(),
                bounds: vec![],
                commits: true,
                model: self.model,
                context: [0; 32],
            };
            let plan = Plan::new(&self.program, &self.artifacts.manifest, &claimed);
            match plan.map(|plan| plan.size().leaves) {
                Ok(leaves) if leaves > MAX_LEAVES => {
                    Some(format!("a unit of {} tokens is too long", sequences[0].tokens.len()))
                }
                Ok(_) => None,
                Err(error) => Some(error.to_string()),
            }
        })
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
    fn begin(path: PathBuf) -> Result<Attempts, Error> {
        let before = match path.is_file() {
            true => zklora_files::read(&path, 1)?.first().copied().unwrap_or(0),
            false => 0,
        };
        if before >= MAX_ATTEMPTS {
            let why = format!(
                "{MAX_ATTEMPTS} processes ended while they proved this part: give the machine more \
                 memory, and remove this file"
            );
            return Err(Error::file(&path, why));
        }
        zklora_files::write(&path, &[before + 1], Access::Private)?;
        Ok(Attempts(path))
    }

    fn end(self) -> Result<(), Error> {
        Ok(zklora_files::remove(&self.0)?)
    }
}

impl SampleProver {
    /// Whether every sequence has a score.
    fn all_in_range(&self, sample: &Sample) -> Result<bool, Error> {
        let units: Vec<Unit> = sample.sequences.iter().cloned().map(Unit::LogProbability).collect();
        let (scores, _) = score(&self.program, &units)?;
        Ok(!scores.iter().any(|score| matches!(score, Score::OutOfRange(_))))
    }

    fn prove_parts(
        &self,
        job: &ProofJob,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Option<Vec<u8>>, Error> {
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
        let parts = parts(&job.sample);
        let (mut proofs, mut openings, mut commitments) = (Vec::new(), Vec::new(), Vec::new());
        // Before the first part: which part it would be at tells of the adapter.
        if !self.all_in_range(&job.sample)? {
            return Err(Inference::OutOfRange.into());
        }
        for (place, sequences) in parts.iter().enumerate() {
            let claimed = agreed.part(place, sequences)?;
            let path = job.folder.join(format!("{place}.part"));
            // The opening is secret: both lie in one private file, and are removed at the end.
            let stored = match path.is_file() {
                true => read_part(&zklora_files::read(&path, 1 << 28)?, &claimed.context),
                false => None,
            };
            let (proof, opening) = match stored {
                Some(stored) => stored,
                None => {
                    if !progress(place as u64, parts.len() as u64) {
                        return Ok(None);
                    }
                    let attempts = Attempts::begin(job.folder.join(format!("{place}.attempts")))?;
                    let (proof, opening) = prover.prove(&claimed)?;
                    let opening =
                        opening.ok_or_else(|| internal("a proof commits to no scores"))?;
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
        let total: i128 = openings.iter().flat_map(|of| &of.scores).map(|x| i128::from(*x)).sum();
        let adapted = zklora_evaluation::values::mean(
            total,
            i64::try_from(job.sample.tokens).unwrap_or(i64::MAX),
            self.score_bits,
        );
        let claim = agreed.sum(commitments, adapted)?;
        let of: Vec<&ScoreOpening> = openings.iter().collect();
        let mask_key = &self.artifacts.mask_key;
        let sum = sums::prove(&self.srs, &self.keys, &registered, mask_key, &claim, &of)?;
        let said = Said { adapted, format: FORMAT.0.into(), version: FORMAT.1 };
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

/// A part as a private file: a digest, the mask, the scores, the proof.
fn part_bytes(
    proof: &[u8],
    opening: &ScoreOpening,
    context: &[u8; 32],
) -> zeroize::Zeroizing<Vec<u8>> {
    let length = 72 + 8 * opening.scores.len() + proof.len();
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(length));
    bytes.extend_from_slice(&[0; 32]);
    bytes.extend_from_slice(&opening.mask.to_bytes_le());
    bytes.extend_from_slice(&(opening.scores.len() as u64).to_le_bytes());
    opening.scores.iter().for_each(|score| bytes.extend_from_slice(&score.to_le_bytes()));
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
fn read_part(bytes: &[u8], context: &[u8; 32]) -> Option<(Vec<u8>, ScoreOpening)> {
    let (digest, rest) = bytes.split_first_chunk::<32>()?;
    if *digest != part_digest(rest, context) {
        return None;
    }
    let (mask, rest) = rest.split_first_chunk::<32>()?;
    let (count, rest) = rest.split_first_chunk::<8>()?;
    let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
    let (scores, proof) = rest.split_at_checked(count.checked_mul(8)?)?;
    let scores = scores.as_chunks::<8>().0.iter().map(|score| i64::from_le_bytes(*score)).collect();
    let mask = Option::from(zklora_proof::field::F::from_bytes_le(mask))?;
    Some((proof.to_vec(), ScoreOpening { scores, mask }))
}

/// What a proof of a sample says, once it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SampleVerdict {
    /// The mean of the sample with the adapter, in 10⁻³ nats a token.
    Proven(i64),
    /// A unit of the sample leaves a range of the integer model.
    NotProvable,
}

/// What a buyer verifies a sample's proof with.
pub(super) struct SampleVerifier<'a> {
    pub srs: &'a Srs,
    pub keys: &'a KeyStore,
    pub manifest: &'a zklora_proof::checked_manifest::CheckedManifest,
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
    /// Verifies a proof.
    ///
    /// # Errors
    /// A check fails: nothing was proven.
    pub fn verify(
        &self,
        sample: &Sample,
        request: &ProofRequest,
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
        for (place, sequences) in parts.iter().enumerate() {
            let claimed = agreed.part(place, sequences)?;
            let proof = named(&format!("{place}.proof"))?;
            let commitment =
                verifier::verify(srs, keys, &registered, program, &claimed, proof, policy)?;
            commitments.push(commitment.ok_or_else(|| internal("a proof commits to no scores"))?);
        }
        let claim = agreed.sum(commitments, said.adapted)?;
        sums::verify(srs, keys, &registered, &claim, named(SUM)?, policy)?;
        Ok(SampleVerdict::Proven(said.adapted))
    }
}
