//! Bounds of sums of results that earlier proofs committed to (docs/inference-proof.md, "Sums").

use zeroize::Zeroizing;
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
    argument::{self, Hidden, Made, Shape, State},
    axis::Axis,
    integers::Grid,
    pool::on_pool,
    proof::Proof,
    prover::ResultOpening,
    registration::{Registered, check_srs},
    schedule::{Schedule, Score},
    squares::Squares,
    statement::{self, Bound},
    tensors::TensorId,
    values::{Value, Values},
    verifier::ResultCommitment,
};

/// What is said of results.
#[derive(Debug, Clone, PartialEq)]
pub struct SumClaim {
    /// The commitments.
    pub results: Vec<ResultCommitment>,
    /// Bounds, with a weight for each result of all commitments, in order.
    pub bounds: Vec<Bound>,
    /// A bounded sum of squares of the results, which are scores.
    pub squares: Option<Squares>,
    /// What the proof belongs to.
    pub context: [u8; 32],
}

/// The schedule, and the tensor of each commitment.
fn schedule(
    srs: &Srs,
    manifest: &CheckedManifest,
    claim: &SumClaim,
) -> Result<(Schedule, Vec<TensorId>), Error> {
    check_srs(srs, manifest)?;
    let k = srs.k();
    let refuse = |why: &str| Err(Error::Statement(why.into()));
    let other = |of: &ResultCommitment| {
        of.adapter != manifest.id() || of.srs != srs.digest() || of.results > data_rows(k)
    };
    if claim.results.iter().any(other) {
        return refuse("a commitment is of another adapter or ceremony");
    }
    let is_of_answers = claim.results.first().is_some_and(|of| of.is_of_answers);
    if claim.results.iter().any(|of| of.is_of_answers != is_of_answers) {
        return refuse("some commitments are of scores, and some of answers");
    }
    if claim.results.iter().any(|of| of.model != claim.results[0].model) {
        return refuse("the commitments are of several integer models");
    }
    if claim.bounds.is_empty() || claim.results.is_empty() {
        return refuse("it says nothing: it has no bounds or no results");
    }
    let mut schedule = Schedule::new(k);
    let axis = schedule.catalog.axis(Axis::dense(1));
    let (mut tensors, mut results) = (Vec::new(), Vec::new());
    for (at, of) in claim.results.iter().enumerate() {
        let tensor = schedule.catalog.earlier(axis, of.results, at);
        tensors.push(tensor);
        results.extend((0..of.results).map(|feature| Score {
            tensor,
            cells: vec![(0, feature)],
            sign: 1,
            tokens: of.tokens,
        }));
    }
    schedule.bounds(&results, &claim.bounds)?;
    if let Some(squares) = &claim.squares {
        if is_of_answers {
            return refuse("squares are of scores, and the commitments are of answers");
        }
        squares.schedule(&mut schedule, &results)?;
    }
    Ok((schedule, tensors))
}

/// Reduces the claims on the squares to openings of the scores.
fn reduce(
    claim: &SumClaim,
    tensors: &[TensorId],
    schedule: &Schedule,
    scores: Option<&[i64]>,
    state: State<'_, '_>,
) -> Result<(), Error> {
    match &claim.squares {
        None => Ok(()),
        Some(squares) => squares.reduce(&schedule.catalog, tensors, scores, state),
    }
}

fn absorb(srs: &Srs, manifest: &CheckedManifest, claim: &SumClaim) -> Result<Framed, Error> {
    let mut transcript = statement::begin("sums", srs, manifest)?;
    let shapes = claim.results.iter();
    let shapes = shapes.flat_map(|of| [of.results as u64, of.tokens, u64::from(of.is_of_answers)]);
    let shapes: Vec<u8> = shapes.flat_map(u64::to_le_bytes).collect();
    transcript.absorb("results", &shapes);
    let points: Vec<_> = claim.results.iter().map(|of| of.point.into()).collect();
    transcript.absorb_points("commitments", &points);
    transcript.absorb("bounds", &statement::bound_bytes(&claim.bounds));
    transcript.absorb("squares", &claim.squares.as_ref().map(Squares::bytes).unwrap_or_default());
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
    openings: &[&ResultOpening],
) -> Result<Vec<u8>, Error> {
    let count = openings.iter().map(|opening| opening.results.len()).sum();
    // Allocated whole: a vector that grows leaves copies of its secrets in memory.
    let mut results = Zeroizing::new(Vec::<i64>::with_capacity(count));
    openings.iter().for_each(|opening| results.extend_from_slice(&opening.results));
    let mut values = Values::default();
    if let Some(squares) = &claim.squares {
        values.insert(Value::Squares, Grid::wide(1, vec![squares.value(&results)]));
    }
    let manifest = registered.manifest();
    let made =
        on_pool(|| attempt(srs, keys, manifest, mask_key, claim, openings, &values, &results))?;
    made.check()?;
    let bytes = made.proof.to_bytes();
    verify(srs, keys, registered, claim, &bytes, SrsPolicy::AllowUntrusted)?;
    Ok(bytes)
}

/// One attempt, with the squares and the scores in them as they are given.
#[expect(clippy::too_many_arguments)]
pub(crate) fn attempt(
    srs: &Srs,
    keys: &KeyStore,
    manifest: &CheckedManifest,
    mask_key: &MaskKey,
    claim: &SumClaim,
    openings: &[&ResultOpening],
    values: &Values,
    scores: &[i64],
) -> Result<Made, Error> {
    let (schedule, of_results) = schedule(srs, manifest, claim)?;
    let fits = openings.iter().map(|of| of.results.len());
    if !fits.eq(claim.results.iter().map(|of| of.results)) {
        return Err(Error::Statement("the openings are not of these commitments".into()));
    }
    let mut tensors: Vec<Grid> =
        schedule.catalog.tensors.iter().map(|_| Grid::small(0, vec![])).collect();
    for (tensor, opening) in of_results.iter().zip(openings) {
        tensors[*tensor] = Grid::small(opening.results.len(), opening.results.clone());
    }
    let indices = schedule.fill(&mut tensors, values)?;
    let mut transcript = absorb(srs, manifest, claim)?;
    let streams = ProofKey::fresh(mask_key, &statement::name(&mut transcript))?.into_streams();
    let masks = Secret(openings.iter().map(|opening| opening.mask).collect());
    let hidden =
        Hidden { tensors: &tensors, values, indices: &indices, mask_key, earlier_masks: &masks };
    let points: Vec<G1Affine> = claim.results.iter().map(|of| of.point).collect();
    let shape = Shape { srs, keys, manifest, schedule: &schedule, earlier: &points };
    let reduce = |state: State<'_, '_>| reduce(claim, &of_results, &schedule, Some(scores), state);
    argument::prove(&shape, transcript, &hidden, streams, reduce, &|_| {})
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
    let (schedule, of_results) = schedule(srs, manifest, claim)?;
    let proof = Proof::parse(proof, schedule.catalog.columns())?;
    let mut transcript = absorb(srs, manifest, claim)?;
    statement::name(&mut transcript);
    let points: Vec<G1Affine> = claim.results.iter().map(|of| of.point).collect();
    let shape = Shape { srs, keys, manifest, schedule: &schedule, earlier: &points };
    let reduce = |state: State<'_, '_>| reduce(claim, &of_results, &schedule, None, state);
    on_pool(|| argument::verify(&shape, transcript, &proof, reduce))
}
