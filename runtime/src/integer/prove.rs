//! Proves the scores of units on this machine: what a proof takes, and whether there can be one.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use cpu_time::ProcessTime;
use zklora_artifacts::folder::read_registration;
pub use zklora_inference::plan::PlanSize;
use zklora_inference::{
    Error as Inference, plan::Plan, prover::Prover, registration, statement::Claimed, vectors,
    verifier,
};
use zklora_integer::unit::{Sequence, Unit};
use zklora_models::language_model::Tokenizer;
use zklora_proof::{keys::KeyStore, srs::Srs, verifier::SrsPolicy};

use super::{run::units_of_text, setup::Setup};
use crate::Error;

/// What is proven.
#[derive(Debug, Clone)]
pub struct ProveOptions {
    /// A text, whose first tokens are scored.
    pub text: PathBuf,
    /// Tokens of a sequence.
    pub context: usize,
    /// Sequences in one proof.
    pub sequences: usize,
    /// Scored tokens at the end of a sequence; all after the first if there are fewer.
    pub scored: usize,
    /// Make the proof, and verify it.
    pub prove: bool,
    /// Without wide vector instructions, for the whole process.
    pub portable: bool,
}

/// Whether scores with an adapter can be proven.
#[derive(Debug, Clone, PartialEq)]
pub enum Provable {
    /// Yes, and what it takes.
    Yes(Proved),
    /// No, and why.
    No(String),
}

/// What proving takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Proved {
    /// Sequences.
    pub sequences: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Scored tokens.
    pub scored: usize,
    /// How large the proof is, before it is made.
    pub size: PlanSize,
    /// What was measured; none if nothing was proven.
    pub measured: Option<Measured>,
}

/// A proof that was made and verified.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Making it, including the prover's own verification.
    pub prove: Duration,
    /// The processors' time of that.
    pub prove_cpu: Duration,
    /// Verifying it.
    pub verify: Duration,
    /// The proof.
    pub bytes: usize,
}

/// What a proof takes, as far as its size tells: measured on SmolLM2-135M on an AMD EPYC with AVX2
/// (docs/benchmarks.md, "Inference proofs").
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Processors' time.
    pub cpu: Duration,
    /// Memory, in bytes, beside that of the base model.
    pub memory: usize,
    /// The proof, in bytes.
    pub bytes: usize,
}

/// Seconds of what grows little with the size, such as the prover's own verification.
const FIXED: f64 = 20.0;
/// Nanoseconds of a committed value.
const VALUE: f64 = 800.0;
/// Nanoseconds of a leaf of the tree.
const LEAF: f64 = 500.0;
/// Bytes of memory of a leaf.
const LEAF_BYTES: usize = 60;
/// Messages of a proof, in bytes: less than what columns take.
const MESSAGES: usize = 300_000;

/// What a proof of this size takes.
pub fn estimate(size: &PlanSize) -> Estimate {
    let nanoseconds = VALUE * size.values as f64 + LEAF * size.leaves as f64;
    Estimate {
        cpu: Duration::from_secs_f64(FIXED + nanoseconds * 1e-9),
        memory: size.leaves * LEAF_BYTES + size.values * 8,
        bytes: 48 * size.columns + MESSAGES,
    }
}

/// The leaves of a proof that takes so many bytes of memory, beside that of the base model. A leaf
/// comes with at most one value.
pub fn leaves_within(memory: u64) -> u64 {
    memory / (LEAF_BYTES as u64 + 8)
}

/// The first sequences of a text.
fn sequences(
    setup: &Setup,
    tokenizer: &Tokenizer,
    options: &ProveOptions,
) -> Result<Vec<Sequence>, Error> {
    let longest = setup.bound.model.tokens;
    let units = units_of_text(&options.text, tokenizer, options.context, longest)?;
    let of = |unit| match unit {
        Unit::LogProbability(of) => {
            let from = of.tokens.len().saturating_sub(options.scored).max(of.from);
            Some(Sequence { from, ..of })
        }
        _ => None,
    };
    Ok(units.into_iter().take(options.sequences).filter_map(of).collect())
}

/// Plans the proof of a text's scores with the adapter of a setup, and makes it if that is asked.
///
/// # Errors
/// The adapter is not registered, a value leaves its range, or the text cannot be read.
pub fn prove(
    setup: &Setup,
    srs: &Srs,
    tokenizer: &Tokenizer,
    options: &ProveOptions,
) -> Result<Provable, Error> {
    let sequences = sequences(setup, tokenizer, options)?;
    let none = || Error::input("there is no adapter to prove with: name its --artifacts");
    let artifacts = setup.artifacts.as_ref().ok_or_else(none)?;
    let program = setup.adapted.as_ref().ok_or_else(none)?;
    let tokens = sequences.iter().map(|of| of.tokens.len()).sum();
    let scored = sequences.iter().map(|of| of.tokens.len() - of.from).sum();
    let count = sequences.len();
    let claimed = Claimed {
        sequences,
        questions: vec![],
        bounds: vec![],
        commits: true,
        model: [0; 32],
        context: [0; 32],
    };
    let size = match Plan::new(program, &artifacts.manifest, &claimed) {
        Ok(plan) => plan.size(),
        Err(error @ Inference::Unsupported(_)) => return Ok(Provable::No(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let mut proved = Proved { sequences: count, tokens, scored, size, measured: None };
    if options.portable {
        vectors::leave_out();
    }
    if !options.prove {
        return Ok(Provable::Yes(proved));
    }
    let keys = KeyStore::default();
    let policy = SrsPolicy::AllowUntrusted;
    let public = artifacts.folder.join("public");
    let proof = read_registration(&public)?.ok_or_else(|| {
        let why = "the adapter is not registered: compile it again with --registered";
        Error::file(&public, why)
    })?;
    let registered = registration::verify(srs, &keys, &artifacts.manifest, &proof, policy)?;
    let mask_key = &artifacts.mask_key;
    let prover = Prover { srs, keys: &keys, registered: &registered, mask_key, program };
    let (started, cpu) = (Instant::now(), ProcessTime::now());
    let (bytes, _) = prover.prove(&claimed)?;
    let (prove, prove_cpu) = (started.elapsed(), cpu.elapsed());
    let started = Instant::now();
    verifier::verify(srs, &keys, &registered, program, &claimed, &bytes, policy)?;
    let (verify, bytes) = (started.elapsed(), bytes.len());
    proved.measured = Some(Measured { prove, prove_cpu, verify, bytes });
    Ok(Provable::Yes(proved))
}
