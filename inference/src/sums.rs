//! Bounds of sums of scores that earlier proofs committed to (docs/inference-proof.md, "Sums").

use zklora_proof::{
    checked_manifest::CheckedManifest,
    field::{G1Affine, Secret},
    framed::Framed,
    keys::KeyStore,
    layout::data_rows,
    masks::MaskKey,
    randomness::ProofKey,
    srs::Srs,
    verifier::SrsPolicy,
};

use crate::{
    Error,
    argument::{self, Hidden, Shape},
    axis::Axis,
    integers::Grid,
    proof::Proof,
    prover::ScoreOpening,
    registration::Registered,
    schedule::{Schedule, Score},
    statement::{self, Bound},
    tensors::TensorId,
    values::Values,
    verifier::ScoreCommitment,
};

/// What is said of scores.
#[derive(Debug, Clone, PartialEq)]
pub struct SumClaim {
    /// The commitments.
    pub scores: Vec<ScoreCommitment>,
    /// Bounds, with a weight for each sequence of all commitments, in order.
    pub bounds: Vec<Bound>,
    /// What the proof belongs to.
    pub context: [u8; 32],
}

/// The schedule, and the tensor of each commitment.
fn schedule(
    srs: &Srs,
    manifest: &CheckedManifest,
    claim: &SumClaim,
) -> Result<(Schedule, Vec<TensorId>), Error> {
    manifest.check_srs(srs)?;
    let k = srs.k();
    let other = |of: &ScoreCommitment| {
        of.adapter != manifest.id() || of.srs != srs.digest() || of.sequences > data_rows(k)
    };
    if claim.scores.iter().any(other) {
        return Err(Error::Statement("a commitment is of another adapter or ceremony".into()));
    }
    if claim.bounds.is_empty() || claim.scores.is_empty() {
        return Err(Error::Statement("it says nothing: it has no bounds or no scores".into()));
    }
    let mut schedule = Schedule::new(k);
    let axis = schedule.catalog.axis(Axis::dense(1));
    let (mut tensors, mut scores) = (Vec::new(), Vec::new());
    for (at, of) in claim.scores.iter().enumerate() {
        let tensor = schedule.catalog.earlier(axis, of.sequences, at);
        tensors.push(tensor);
        scores.extend((0..of.sequences).map(|feature| Score {
            tensor,
            cells: vec![(0, feature)],
            sign: 1,
            tokens: of.tokens,
        }));
    }
    schedule.bounds(&scores, &claim.bounds)?;
    Ok((schedule, tensors))
}

fn absorb(srs: &Srs, manifest: &CheckedManifest, claim: &SumClaim) -> Result<Framed, Error> {
    let mut transcript = statement::begin("sums", srs, manifest)?;
    let shapes = claim.scores.iter().flat_map(|of| [of.sequences as u64, of.tokens]);
    let shapes: Vec<u8> = shapes.flat_map(u64::to_le_bytes).collect();
    transcript.absorb("scores", &shapes);
    let points: Vec<_> = claim.scores.iter().map(|of| of.point.into()).collect();
    transcript.absorb_points("commitments", &points);
    transcript.absorb("bounds", &statement::bound_bytes(&claim.bounds));
    transcript.absorb("context", &claim.context);
    Ok(transcript)
}

/// Proves a claim about sums, and verifies the proof.
///
/// # Errors
/// [`Error::OutOfRange`]: the claim is false.
pub fn prove(
    srs: &Srs,
    keys: &KeyStore,
    registered: &Registered<'_>,
    mask_key: &MaskKey,
    claim: &SumClaim,
    openings: &[&ScoreOpening],
) -> Result<Vec<u8>, Error> {
    let manifest = registered.manifest();
    let (schedule, of_scores) = schedule(srs, manifest, claim)?;
    let fits = openings.iter().map(|of| of.scores.len());
    if !fits.eq(claim.scores.iter().map(|of| of.sequences)) {
        return Err(Error::Statement("the openings are not of these commitments".into()));
    }
    let mut tensors: Vec<Grid> =
        schedule.catalog.tensors.iter().map(|_| Grid::small(0, vec![])).collect();
    for (tensor, opening) in of_scores.iter().zip(openings) {
        tensors[*tensor] = Grid::small(opening.scores.len(), opening.scores.clone());
    }
    let values = Values::default();
    let indices = schedule.fill(&mut tensors, &values)?;
    let mut transcript = absorb(srs, manifest, claim)?;
    let streams = ProofKey::fresh(mask_key, &statement::name(&mut transcript))?.into_streams();
    let masks = Secret(openings.iter().map(|opening| opening.mask).collect());
    let hidden = Hidden {
        tensors: &tensors,
        values: &values,
        indices: &indices,
        mask_key,
        earlier_masks: &masks,
    };
    let points: Vec<G1Affine> = claim.scores.iter().map(|of| of.point).collect();
    let shape = Shape { srs, keys, manifest, schedule: &schedule, earlier: &points };
    let made = argument::prove(&shape, transcript, &hidden, streams, |_| Ok(()), &|_| {})?;
    made.check()?;
    let bytes = made.proof.to_bytes();
    verify(srs, keys, registered, claim, &bytes, SrsPolicy::AllowUntrusted)?;
    Ok(bytes)
}

/// Verifies a claim about sums.
///
/// # Errors
/// [`Error::Rejected`] or [`Error::Malformed`]: nothing was proven, as with any error.
pub fn verify(
    srs: &Srs,
    keys: &KeyStore,
    registered: &Registered<'_>,
    claim: &SumClaim,
    proof: &[u8],
    policy: SrsPolicy,
) -> Result<(), Error> {
    policy.check(srs)?;
    let manifest = registered.manifest();
    let (schedule, _) = schedule(srs, manifest, claim)?;
    let proof = Proof::parse(proof, schedule.catalog.columns())?;
    let mut transcript = absorb(srs, manifest, claim)?;
    statement::name(&mut transcript);
    let points: Vec<G1Affine> = claim.scores.iter().map(|of| of.point).collect();
    let shape = Shape { srs, keys, manifest, schedule: &schedule, earlier: &points };
    argument::verify(&shape, transcript, &proof, |_| Ok(()))
}
