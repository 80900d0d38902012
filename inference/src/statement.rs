//! What an inference proof is about (docs/inference-proof.md, "What is claimed" and "The order of
//! messages").

use zklora_integer::{program::Program, unit::Sequence};
use zklora_proof::{checked_manifest::CheckedManifest, framed::Framed, srs::Srs};

use crate::Error;

/// A sum of results lies in an interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// A weight for each result.
    pub weights: Vec<i32>,
    /// The least sum: of log-probabilities in units of 2^−score_bits nats, or of right answers.
    pub least: i64,
    /// The largest.
    pub most: i64,
}

/// Consecutive sequences, of which one is the right one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The right choice.
    pub answer: usize,
    /// What the log-probability of each choice is divided by.
    pub lengths: Vec<u32>,
}

/// What is proven of an adapter: sequences, and bounds of sums of their results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The tokens, and from which on they are scored.
    pub sequences: Vec<Sequence>,
    /// The questions whose choices the sequences are: then the results are whether the likeliest
    /// choices are right. None: the results are the log-probabilities of the sequences.
    pub questions: Vec<Question>,
    /// The bounds.
    pub bounds: Vec<Bound>,
    /// Whether the proof commits to its results, for a later proof about their sums.
    pub commits: bool,
    /// The digest of the integer model's file.
    pub model: [u8; 32],
    /// What the proof belongs to: the digests of offer, request and answer.
    pub context: [u8; 32],
}

/// Absorbs everything that both sides know.
///
/// # Errors
/// [`Error::Internal`]: the settings cannot be written.
pub(crate) fn absorb(
    srs: &Srs,
    manifest: &CheckedManifest,
    program: &Program,
    claimed: &Claimed,
) -> Result<Framed, Error> {
    let mut transcript = begin("inference", srs, manifest)?;
    let number = |bytes: &mut Vec<u8>, x: u64| bytes.extend_from_slice(&x.to_le_bytes());
    transcript.absorb("model", &claimed.model);
    let mut layers = Vec::new();
    for (at, step) in program.steps.iter().enumerate() {
        if let zklora_integer::program::Action::Linear { low_rank: Some(low_rank), .. } =
            &step.action
        {
            let name = &program.adapter.modules[low_rank.module].name;
            number(&mut layers, at as u64);
            number(&mut layers, name.len() as u64);
            layers.extend_from_slice(name.as_bytes());
        }
    }
    transcript.absorb("layers", &layers);
    let mut sequences = Vec::new();
    number(&mut sequences, claimed.sequences.len() as u64);
    for sequence in &claimed.sequences {
        number(&mut sequences, sequence.from as u64);
        number(&mut sequences, sequence.tokens.len() as u64);
        sequence.tokens.iter().for_each(|token| number(&mut sequences, u64::from(*token)));
    }
    transcript.absorb("sequences", &sequences);
    let mut questions = Vec::new();
    number(&mut questions, claimed.questions.len() as u64);
    for Question { answer, lengths } in &claimed.questions {
        number(&mut questions, *answer as u64);
        number(&mut questions, lengths.len() as u64);
        lengths.iter().for_each(|length| number(&mut questions, u64::from(*length)));
    }
    transcript.absorb("questions", &questions);
    transcript.absorb("bounds", &bound_bytes(&claimed.bounds));
    transcript.absorb("commits", &[u8::from(claimed.commits)]);
    transcript.absorb("context", &claimed.context);
    Ok(transcript)
}

/// Bounds, with the lengths of what they are made of.
pub(crate) fn bound_bytes(bounds: &[Bound]) -> Vec<u8> {
    let number = |bytes: &mut Vec<u8>, x: u64| bytes.extend_from_slice(&x.to_le_bytes());
    let mut bytes = Vec::new();
    number(&mut bytes, bounds.len() as u64);
    for bound in bounds {
        number(&mut bytes, bound.weights.len() as u64);
        bound.weights.iter().for_each(|weight| number(&mut bytes, i64::from(*weight) as u64));
        number(&mut bytes, bound.least as u64);
        number(&mut bytes, bound.most as u64);
    }
    bytes
}

/// Names the statement in the derivation of the prover's randomness: drawn when everything that
/// both sides know was absorbed.
pub(crate) fn name(transcript: &mut Framed) -> [u8; 32] {
    let mut name = [0u8; 32];
    name.copy_from_slice(&transcript.squeeze("s0")[..32]);
    name
}

/// What every proof of this crate absorbs first.
pub(crate) fn begin(kind: &str, srs: &Srs, manifest: &CheckedManifest) -> Result<Framed, Error> {
    let mut transcript = Framed::new("zklora v1 inference transcript");
    transcript.absorb("kind", kind.as_bytes());
    transcript.absorb("version", &crate::PROTOCOL_VERSION.to_le_bytes());
    transcript.absorb("srs", &srs.digest());
    transcript.absorb("settings", &manifest.settings().to_bytes()?);
    transcript.absorb("adapter", &manifest.id().0);
    Ok(transcript)
}
