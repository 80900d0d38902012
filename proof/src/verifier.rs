//! The user's side: verifies the proof of a session (docs/protocol.md, "Steps").
//!
//! The verifier trusts nothing that comes with the proof. It derives the keys itself; the SRS, the
//! manifest and the trace are its own.
//!
//! A proof that is well-formed is rejected in one of two places. This module rejects with
//! [`Check::MaskSpan`], [`argument::verify`] with [`Check::Relations`]. A trace that is not of the
//! user's session is rejected before, by `own_session` of the crate `zklora-artifacts`.

use group::Group;

use crate::{
    Error, argument,
    checked_manifest::CheckedManifest,
    error::Check,
    field::{G1, powers},
    keys::{KeyStore, Keys},
    manifest::AdapterId,
    msm::msm,
    projection::Projection,
    proof::Proof,
    relations::{Challenges, PublicColumns, a_weights, combine, pair_weights, relations},
    span,
    srs::{Provenance, Srs},
    statement::Statement,
    trace::Trace,
    transcript::Transcript,
};

/// Which ceremonies a verifier accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SrsPolicy {
    /// Only a ceremony that this build knows.
    TrustedOnly,
    /// Any ceremony whose points pass the checks. The caller knows whose secret the proof rests on.
    AllowUntrusted,
}

impl SrsPolicy {
    /// Refuses parameters that the policy does not accept.
    ///
    /// # Errors
    /// [`Error::UntrustedSrs`].
    pub fn check(self, srs: &Srs) -> Result<(), Error> {
        if self == SrsPolicy::TrustedOnly && !srs.provenance().is_trusted() {
            return Err(Error::UntrustedSrs(srs.provenance().to_string()));
        }
        Ok(())
    }
}

/// The claim of an accepted proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The adapter that computed every delta of the trace.
    pub adapter: AdapterId,
    /// Rows per module. The claim is empty for a module that has none.
    pub rows: Vec<(String, usize)>,
    /// The ceremony that the verdict rests on.
    pub ceremony: Provenance,
}

/// Verifies the proof of a session against the pinned manifest and the verifier's own trace.
///
/// # Errors
/// [`Error::Rejected`] names the check that failed. Any error means that nothing was proven.
pub fn verify(
    srs: &Srs,
    keys: &KeyStore,
    manifest: &CheckedManifest,
    trace: &Trace<'_>,
    proof: &[u8],
    policy: SrsPolicy,
) -> Result<Verdict, Error> {
    policy.check(srs)?;
    let srs = manifest.parameters(srs)?;
    let (statement, keys) = Statement::of(srs, keys, manifest, trace)?;
    let proof = Proof::parse(proof, &keys.layout())?;
    let (transcript, first) = Transcript::open(&statement);
    let projection = Projection::of(manifest, trace, &first)?;
    verify_parsed(srs, &keys, manifest, &projection, transcript, &proof)?;
    Ok(Verdict {
        adapter: manifest.id(),
        rows: manifest
            .modules()
            .iter()
            .zip(trace.counts())
            .map(|(m, rows)| (m.name.clone(), *rows))
            .collect(),
        ceremony: srs.provenance(),
    })
}

/// The steps after the projection (docs/protocol.md, "Steps", from step 3).
pub(crate) fn verify_parsed(
    srs: &Srs,
    keys: &Keys,
    manifest: &CheckedManifest,
    projection: &Projection,
    mut transcript: Transcript,
    proof: &Proof,
) -> Result<(), Error> {
    let layout = manifest.layout();
    let pairs = manifest.pairs();
    let projective =
        |points: &[crate::field::G1Affine]| -> Vec<G1> { points.iter().map(G1::from).collect() };

    let beta = transcript.products(&projective(&proof.t), &projective(&proof.u));
    let r: Vec<_> = proof.s.iter().map(|round| transcript.round(&G1::from(round))).collect();
    let chi = transcript.columns(&projective(&proof.a), &projective(&proof.b));
    let epsilon = transcript.span(&G1::from(proof.r));
    let eta = transcript.relations(&proof.z);

    // Step 6: P = Σ_k χ^k (C'_k − C_k), where C_k combines the manifest's commitments, column by
    // column.
    let chi = powers(chi, layout.a_columns + layout.b_columns);
    let (chi_a, chi_b) = chi.split_at(layout.a_columns);
    let b_weights = pair_weights(beta, pairs);
    let a_weights = a_weights(pairs, &b_weights, &r);
    let rerandomised = proof
        .a
        .iter()
        .zip(chi_a)
        .chain(proof.b.iter().zip(chi_b))
        .map(|(point, chi)| (*point, *chi));
    let published = manifest.points().iter().zip(a_weights.iter().zip(&b_weights)).flat_map(
        |(points, (a, b))| {
            let a_side = points.a.iter().zip(chi_a).map(move |(point, chi)| (*point, -(*chi * a)));
            let b_side = points.b.iter().zip(chi_b).map(move |(point, chi)| (*point, -(*chi * b)));
            a_side.chain(b_side)
        },
    );
    let bases = span::mask_bases(&layout, srs.lagrange());
    let (points, scalars) =
        span::equation(&bases, &proof.z, proof.r, epsilon, rerandomised.chain(published));
    if msm(&points, &scalars) != G1::identity() {
        return Err(Error::Rejected(Check::MaskSpan));
    }

    // Steps 7 and 8.
    let challenges = Challenges { beta, r, eta };
    let sum = combine(&relations(&layout, pairs, projection, &challenges), eta);
    let public_columns = PublicColumns::lay_out(&layout, &sum);
    argument::verify(
        srs,
        keys,
        &proof.columns(),
        &public_columns,
        transcript.finish(),
        &proof.argument,
    )
}
