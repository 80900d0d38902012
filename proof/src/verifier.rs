//! The user's side. Trusts nothing that comes with the proof: the keys are derived here, the SRS,
//! the pin and the trace are the verifier's own (protocol sections 5, 8, 9).

use crate::{
    Error, PROTOCOL_VERSION, argument,
    error::Check,
    field::{G1, powers},
    keys::{KeyStore, Keys},
    manifest::{AdapterId, Manifest, Pinned},
    msm::msm,
    projection::Public,
    proof::Proof,
    relations::{Challenges, PublicColumns, a_weights, combine, pair_weights, relations},
    span,
    srs::{Provenance, Srs},
    trace::Trace,
    transcript::{Statement, Transcript},
};

/// Which parameters the verifier accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SrsPolicy {
    /// Only a ceremony that this build knows.
    TrustedOnly,
    /// Any that pass the checks: the caller has been told whose secret the proof rests on.
    AllowUntrusted,
}

impl SrsPolicy {
    /// Refuses parameters that the policy does not accept.
    pub fn check(self, srs: &Srs) -> Result<(), Error> {
        if self == SrsPolicy::TrustedOnly && !srs.provenance().is_trusted() {
            return Err(Error::Srs(format!(
                "{}: refused unless you say otherwise (--insecure-srs)",
                srs.provenance()
            )));
        }
        Ok(())
    }
}

/// What an accepted proof says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The adapter that computed every delta of the trace.
    pub adapter: AdapterId,
    /// Rows per module. The claim is empty for a module that has none.
    pub rows: Vec<(String, usize)>,
    /// Whose ceremony the verdict rests on.
    pub ceremony: Provenance,
}

/// Whether the manifest was made for this SRS. A longer basis would commit to other polynomials
/// without a word (protocol section 9), so k counts, too.
pub(crate) fn check_srs(srs: &Srs, manifest: &Manifest) -> Result<(), Error> {
    if manifest.srs_digest != srs.digest_hex() {
        return Err(Error::SrsMismatch {
            manifest: manifest.srs_digest.clone(),
            own: srs.digest_hex(),
        });
    }
    if manifest.k != srs.k() {
        return Err(Error::Manifest(format!(
            "k = {}, but its SRS has 2^{} points",
            manifest.k,
            srs.k()
        )));
    }
    Ok(())
}

/// The statement of a session (protocol 5.1). All of it comes from the caller's own side.
pub(crate) fn statement(
    srs: &Srs,
    keys: &Keys,
    pinned: &Pinned,
    trace: &Trace<'_>,
) -> Result<Statement, Error> {
    check_srs(srs, pinned.manifest())?;
    // Another manifest's shapes would read the same integers as other rows.
    if trace.adapter() != pinned.id() {
        return Err(Error::Trace(format!(
            "it was checked against adapter {}, not {}",
            trace.adapter(),
            pinned.id()
        )));
    }
    Ok(Statement {
        version: PROTOCOL_VERSION,
        srs_digest: srs.digest(),
        vk: keys.fingerprint(),
        settings: pinned.settings().to_bytes()?,
        adapter: pinned.id(),
        trace: trace.digest(),
        context: *trace.context(),
    })
}

/// Verifies the proof of a session against the pinned manifest and the verifier's own trace.
///
/// # Errors
/// Anything but `Ok` means that nothing was shown. [`Error::Rejected`] names the check that said
/// no.
pub fn verify(
    srs: &Srs,
    keys: &KeyStore,
    pinned: &Pinned,
    trace: &Trace<'_>,
    proof: &[u8],
    policy: SrsPolicy,
) -> Result<Verdict, Error> {
    policy.check(srs)?;
    check_srs(srs, pinned.manifest())?;
    let layout = pinned.layout();
    let keys = keys.get(srs, layout)?;
    let statement = statement(srs, &keys, pinned, trace)?;
    let proof = Proof::parse(proof, &layout)?;
    let (transcript, opening) = Transcript::open(&statement);
    let public = Public::of(pinned, trace, &opening)?;
    verify_parsed(srs, &keys, pinned, &public, transcript, &proof)?;
    Ok(Verdict {
        adapter: pinned.id(),
        rows: pinned
            .modules()
            .iter()
            .zip(trace.counts())
            .map(|(m, rows)| (m.name.clone(), *rows))
            .collect(),
        ceremony: srs.provenance(),
    })
}

/// Everything after the pass over the trace.
pub(crate) fn verify_parsed(
    srs: &Srs,
    keys: &Keys,
    pinned: &Pinned,
    public: &Public,
    mut transcript: Transcript,
    proof: &Proof,
) -> Result<(), Error> {
    let layout = pinned.layout();
    let pairs = pinned.pairs();
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
    let manifest = pinned.points().iter().zip(a_weights.iter().zip(&b_weights)).flat_map(
        |(points, (a, b))| {
            let a_side = points.a.iter().zip(chi_a).map(move |(point, chi)| (*point, -(*chi * a)));
            let b_side = points.b.iter().zip(chi_b).map(move |(point, chi)| (*point, -(*chi * b)));
            a_side.chain(b_side)
        },
    );
    let bases = span::mask_bases(&layout, srs.lagrange());
    let (points, scalars) =
        span::equation(&bases, &proof.z, proof.r, epsilon, rerandomised.chain(manifest));
    if msm(&points, &scalars) != crate::commit::zero() {
        return Err(Error::Rejected(Check::MaskSpan));
    }

    // Steps 7 and 8.
    let challenges = Challenges { beta, r, eta };
    let sum = combine(&relations(&layout, pairs, public, &challenges), eta);
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
