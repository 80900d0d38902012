//! A contributor that answers requests for its offer.

use std::{path::PathBuf, sync::Arc};

use zklora_artifacts::folder::{Artifacts, read_registration};
use zklora_evaluation::{
    answering::Answering, digest::Digest, evidence, identity::Identity, proving::ProofLimits,
    unit_scores::Scorer,
};
use zklora_inference::registration;
use zklora_proof::{keys::KeyStore, srs::Srs, verifier::SrsPolicy};

use super::{offer::read_offer, sample_proof::SampleProver, scorer::ModelScorer};
use crate::{
    Error,
    integer::{BaseModel, Setup},
};

/// What answering needs beside the artifacts.
#[derive(Debug, Clone)]
pub struct ContributorOptions {
    /// The folder of the identity.
    pub identity: PathBuf,
    /// The folder of the integer model; it is made if it has none.
    pub model: PathBuf,
    /// The base model.
    pub base: BaseModel,
    /// Its tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// Also prove samples.
    pub prove: Option<ProofLimits>,
}

/// Answers requests for the offer in the public folder of the artifacts.
///
/// # Errors
/// There is no offer, it is by another identity, or for another adapter or model.
pub fn answering(
    artifacts: Artifacts,
    srs: &Srs,
    options: &ContributorOptions,
) -> Result<Answering, Error> {
    let path = artifacts.folder.join("public").join(evidence::OFFER);
    if !path.exists() {
        return Err(Error::file(&path, "there is no offer: make one with `zklora offer make`"));
    }
    let offer = read_offer(&path)?;
    let differs = |what: &str| {
        let why = format!("it is for another {what}: make the offer again (zklora offer make)");
        Error::file(&path, why)
    };
    if offer.offer.adapter_id != Digest(artifacts.manifest.id().0) {
        return Err(differs("adapter than this folder's"));
    }
    let ContributorOptions { identity, model, base, tokenizer, prove } = options;
    let setup = Setup::load_or_make(model, base, tokenizer.as_deref(), artifacts, srs)?;
    if offer.offer.integer_model.to_string() != setup.bound.digest {
        return Err(differs("integer model than this base model's"));
    }
    if offer.offer.layers != setup.bound.layers() {
        return Err(differs("choice of layers"));
    }
    let proves = prove.map(|limits| sample_prover(&setup, srs, limits)).transpose()?;
    let scorer = scorer(setup)?;
    let prover = proves.map(|proves| Arc::new(proves(Arc::clone(&scorer))));
    let answering = Answering::new(offer, Identity::open(identity)?, scorer)?;
    Ok(match prover {
        Some(prover) => answering.with_prover(prover),
        None => answering,
    })
}

/// Proves samples with the adapter of a setup, whose manifest must be registered, once it has a
/// scorer.
fn sample_prover(
    setup: &Setup,
    srs: &Srs,
    limits: ProofLimits,
) -> Result<impl FnOnce(Arc<dyn Scorer>) -> SampleProver + use<>, Error> {
    let artifacts =
        setup.artifacts.clone().ok_or_else(|| Error::input("there is no adapter to prove with"))?;
    let public = artifacts.folder.join("public");
    let registration = read_registration(&public)?.ok_or_else(|| {
        let why = "the adapter is not registered, and nothing can be proven of its scores: \
                   compile it again with --registered";
        Error::file(&public, why)
    })?;
    let keys = KeyStore::default();
    let policy = SrsPolicy::AllowUntrusted;
    registration::verify(srs, &keys, &artifacts.manifest, &registration, policy)?;
    let program = setup.bound.program(&artifacts.manifest, &artifacts.weights)?;
    let mut model = [0; 32];
    hex::decode_to_slice(&setup.bound.digest, &mut model)
        .map_err(|error| Error::input(error.to_string()))?;
    let (srs, score_bits) = (srs.clone(), setup.bound.model.score_bits);
    Ok(move |scorer| SampleProver {
        srs,
        keys,
        artifacts,
        registration,
        program,
        scorer,
        model,
        score_bits,
        limits,
    })
}

/// Scores units without and with the adapter of a setup.
///
/// # Errors
/// The setup has no adapter.
pub fn scorer(setup: Setup) -> Result<Arc<dyn Scorer>, Error> {
    let base = setup.bound.base_program()?;
    let adapted = setup.adapted.ok_or_else(|| Error::input("there is no adapter to score with"))?;
    Ok(Arc::new(ModelScorer { base, adapted }))
}
