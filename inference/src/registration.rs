//! The registration of a manifest: every committed weight is an integer of 16 bits
//! (docs/inference-proof.md, "Registration").

use zklora_proof::{
    checked_manifest::CheckedManifest, keys::KeyStore, masks::MaskKey, randomness::ProofKey,
    srs::Srs, verifier::SrsPolicy, weights::Weights,
};

use crate::{
    Error,
    argument::{self, Hidden, Shape},
    axis::Axis,
    integers::Grid,
    lookups::{Input, Live},
    pool::on_pool,
    proof::Proof,
    schedule::{LIMB, Schedule},
    statement,
    tensors::TensorId,
    values::Values,
};

/// A manifest whose registration was verified.
#[derive(Debug)]
pub struct Registered<'a>(&'a CheckedManifest);

impl Registered<'_> {
    /// The manifest.
    pub fn manifest(&self) -> &CheckedManifest {
        self.0
    }
}

/// What a registration looks up.
pub(crate) struct Plan {
    pub schedule: Schedule,
    /// For each side of a term, its tensor, and its pairs.
    pub sides: Vec<(TensorId, Vec<usize>, bool)>,
}

impl Plan {
    pub fn new(manifest: &CheckedManifest) -> Result<Plan, Error> {
        let mut schedule = Schedule::new(manifest.contents().k);
        let mut sides = Vec::new();
        let mut first = 0;
        for module in manifest.modules() {
            if module.a_bits > LIMB || module.b_bits > LIMB {
                return Err(Error::Unsupported(format!(
                    "module `{}` has integers of {} bits, more than {LIMB}: compile with \
                     --registered",
                    module.name,
                    module.a_bits.max(module.b_bits)
                )));
            }
            for term in &module.terms {
                let pairs: Vec<usize> = (first..first + term.rank).collect();
                first += term.rank;
                let (a, b) = module.side_lengths(term);
                let axis = schedule.catalog.axis(Axis::dense(term.rank));
                for (features, is_b) in [(a, false), (b, true)] {
                    if features == 0 {
                        continue;
                    }
                    let tensor = schedule.catalog.published(axis, features, &pairs, is_b);
                    let input = Input::tensor(tensor, 1 << (LIMB - 1));
                    schedule.look_up(axis, features, Live::All, input);
                    sides.push((tensor, pairs.clone(), is_b));
                }
            }
        }
        check_features(&schedule)?;
        Ok(Plan { schedule, sides })
    }
}

/// Most features of all sides of all terms, over all pairs of a term.
const MAX_FEATURES: usize = 1 << 26;

/// Refuses manifests that take more of a verifier's memory than any adapter's does: it keeps a
/// weight of each feature, and at large k a manifest of some kilobytes names millions.
pub(crate) fn check_features(schedule: &Schedule) -> Result<(), Error> {
    let features: usize = schedule.lookups.iter().map(|lookup| lookup.features).sum();
    if features > MAX_FEATURES {
        return Err(Error::Unsupported(format!(
            "the adapter's terms have {features} features; at most {MAX_FEATURES} can be registered"
        )));
    }
    Ok(())
}

/// Proves that every committed weight has 16 bits, and verifies the proof.
///
/// # Errors
/// [`Error::Unsupported`]: the manifest allows more bits. [`Error::Rejected`]: weights, mask key
/// and manifest do not belong together.
pub fn prove(
    srs: &Srs,
    keys: &KeyStore,
    manifest: &CheckedManifest,
    weights: &Weights,
    mask_key: &MaskKey,
) -> Result<Vec<u8>, Error> {
    check_srs(srs, manifest)?;
    weights.check(manifest.modules())?;
    let plan = Plan::new(manifest)?;
    let mut tensors: Vec<Grid> =
        plan.schedule.catalog.tensors.iter().map(|_| Grid::small(0, vec![])).collect();
    for (tensor, pairs, is_b) in &plan.sides {
        let of = pairs.iter().map(|pair| &weights.pairs()[*pair]);
        let cells = of.flat_map(|pair| if *is_b { &pair.b } else { &pair.a });
        let cells = cells.map(|x| i64::from(*x)).collect();
        tensors[*tensor] = Grid::small(plan.schedule.catalog.tensors[*tensor].features, cells);
    }
    let proof = on_pool(|| attempt(srs, keys, manifest, mask_key, &plan, &mut tensors))?;
    let bytes = proof.to_bytes();
    verify(srs, keys, manifest, &bytes, SrsPolicy::AllowUntrusted)?;
    Ok(bytes)
}

fn attempt(
    srs: &Srs,
    keys: &KeyStore,
    manifest: &CheckedManifest,
    mask_key: &MaskKey,
    plan: &Plan,
    tensors: &mut [Grid],
) -> Result<Proof, Error> {
    let values = Values::default();
    let indices = plan.schedule.fill(tensors, &values)?;
    let mut transcript = statement::begin("registration", srs, manifest)?;
    let streams = ProofKey::fresh(mask_key, &statement::name(&mut transcript))?.into_streams();
    let (indices, values) = (&indices, &values);
    let hidden = Hidden { tensors, values, indices, mask_key, earlier_masks: &[] };
    let shape = Shape { srs, keys, manifest, schedule: &plan.schedule, earlier: &[] };
    Ok(argument::prove(&shape, transcript, &hidden, streams, |_| Ok(()), &|_| {})?.proof)
}

/// Checks that the parameters of a manifest are the caller's whole ceremony: registrations and
/// proofs of results are made with it. With fewer powers, their verifier would need many times as
/// many columns.
pub(crate) fn check_srs(srs: &Srs, manifest: &CheckedManifest) -> Result<(), Error> {
    manifest.parameters(srs)?;
    match manifest.contents().k {
        k if k == srs.k() => Ok(()),
        k => Err(Error::Unsupported(format!(
            "its k is {k}, and registrations are made with k = {}: compile with --registered",
            srs.k()
        ))),
    }
}

/// Verifies a registration.
///
/// # Errors
/// [`Error::Rejected`] or [`Error::Malformed`]: the manifest is not registered.
pub fn verify<'a>(
    srs: &Srs,
    keys: &KeyStore,
    manifest: &'a CheckedManifest,
    proof: &[u8],
    policy: SrsPolicy,
) -> Result<Registered<'a>, Error> {
    policy.check(srs)?;
    check_srs(srs, manifest)?;
    let plan = Plan::new(manifest)?;
    let proof = Proof::parse(proof, plan.schedule.catalog.columns())?;
    let mut transcript = statement::begin("registration", srs, manifest)?;
    statement::name(&mut transcript);
    let shape = Shape { srs, keys, manifest, schedule: &plan.schedule, earlier: &[] };
    on_pool(|| argument::verify(&shape, transcript, &proof, |_| Ok(())))?;
    Ok(Registered(manifest))
}
