//! The user's side: verifies a proof (docs/inference-proof.md). It trusts nothing that comes with
//! the proof: program, manifest, sequences and bounds are its own.

use zklora_integer::program::Program;
use zklora_proof::{
    checked_manifest::CheckedManifest, field::G1Affine, keys::KeyStore, manifest::AdapterId,
    srs::Srs, verifier::SrsPolicy,
};

use crate::{
    Error,
    argument::{self, Shape, State},
    plan::Plan,
    pool::on_pool,
    proof::Proof,
    reduce::Reducer,
    registration::{Registered, check_srs},
    statement::{self, Claimed},
};

/// A commitment to the results of a claim, which a proof showed to be its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultCommitment {
    pub(crate) adapter: AdapterId,
    /// The integer model.
    pub(crate) model: [u8; 32],
    pub(crate) srs: [u8; 32],
    pub(crate) point: G1Affine,
    /// How many.
    pub(crate) results: usize,
    /// Each is at most so many table entries.
    pub(crate) tokens: u64,
    /// Answers to questions, and no log-probabilities.
    pub(crate) is_of_answers: bool,
}

/// Verifies a proof of a claim. `program` is the integer model with an adapter of the manifest's
/// shapes, whatever its integers. Returns the commitment to the results, if the claim has one.
///
/// # Errors
/// [`Error::Rejected`] or [`Error::Malformed`]: nothing was proven, as with any error.
pub fn verify(
    srs: &Srs,
    keys: &KeyStore,
    registered: &Registered<'_>,
    program: &Program,
    claimed: &Claimed,
    proof: &[u8],
    policy: SrsPolicy,
) -> Result<Option<ResultCommitment>, Error> {
    policy.check(srs)?;
    let manifest = registered.manifest();
    check_srs(srs, manifest)?;
    on_pool(|| {
        let plan = Plan::new(program, manifest, claimed)?;
        verify_planned(srs, keys, manifest, program, &plan, claimed, proof)
    })
}

/// The same with the plan of the claim.
pub(crate) fn verify_planned(
    srs: &Srs,
    keys: &KeyStore,
    manifest: &CheckedManifest,
    program: &Program,
    plan: &Plan,
    claimed: &Claimed,
    proof: &[u8],
) -> Result<Option<ResultCommitment>, Error> {
    let proof = Proof::parse(proof, plan.catalog.columns())?;
    let mut transcript = statement::absorb(srs, manifest, program, claimed)?;
    statement::name(&mut transcript);
    let reduce = |state: State<'_, '_>| {
        let State { channel, relations, openings, claims } = state;
        let secrets = None;
        Reducer { channel, relations, openings, claims, plan, program, claimed, secrets }.run()
    };
    argument::verify(&plan_shape(srs, keys, manifest, plan), transcript, &proof, reduce)?;
    Ok(commitment(srs, manifest, plan, claimed, &proof))
}

/// What both parties know of a plan.
pub(crate) fn plan_shape<'a>(
    srs: &'a Srs,
    keys: &'a KeyStore,
    manifest: &'a CheckedManifest,
    plan: &'a Plan,
) -> Shape<'a> {
    Shape { srs, keys, manifest, schedule: plan, earlier: &[] }
}

/// The commitment to results in a proof that its own prover verified before.
///
/// # Errors
/// It has none, or is malformed.
pub fn commitment_of(
    srs: &Srs,
    registered: &Registered<'_>,
    program: &Program,
    claimed: &Claimed,
    proof: &[u8],
) -> Result<ResultCommitment, Error> {
    let manifest = registered.manifest();
    let plan = Plan::new(program, manifest, claimed)?;
    let proof = Proof::parse(proof, plan.catalog.columns())?;
    let none = || Error::Statement("the claim commits to no results".into());
    commitment(srs, manifest, &plan, claimed, &proof).ok_or_else(none)
}

fn commitment(
    srs: &Srs,
    manifest: &CheckedManifest,
    plan: &Plan,
    claimed: &Claimed,
    proof: &Proof,
) -> Option<ResultCommitment> {
    let tensor = &plan.catalog.tensors[plan.sums?];
    // One column: the plan has seen to it.
    let [piece] = tensor.pieces.as_slice() else { return None };
    Some(ResultCommitment {
        adapter: manifest.id(),
        model: claimed.model,
        srs: srs.digest(),
        point: *proof.columns.get(plan.catalog.first_column(piece.pack))?,
        results: tensor.features,
        tokens: plan.results.iter().map(|result| result.tokens).max().unwrap_or(0),
        is_of_answers: plan.answers.is_some(),
    })
}
