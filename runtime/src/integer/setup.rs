//! Reads what `run` and `check` need: the integer model, its base model, and an adapter.

use std::{path::Path, sync::Arc};

use zklora_artifacts::folder::Artifacts;
use zklora_integer::program::Program;
use zklora_proof::{checked_manifest::CheckedManifest, commit, srs::Srs};

use super::bound_model::{BaseModel, BoundModel};
use crate::Error;

/// An integer model, with an adapter if there is one.
pub struct Setup {
    /// The model.
    pub bound: BoundModel,
    pub(crate) adapted: Option<Program>,
    /// The adapter.
    pub artifacts: Option<Arc<Artifacts>>,
}

/// Checks that the integers in an artifacts folder are those of its adapter id.
fn committed(artifacts: &Artifacts, srs: &Srs) -> Result<(), Error> {
    let Artifacts { manifest, weights, mask_key, folder } = artifacts;
    let differing = commit::audit(srs, manifest, weights, mask_key)?;
    match differing.first() {
        None => Ok(()),
        Some(_) => Err(Error::file(
            folder,
            format!(
                "its private part has other weights than adapter {}: compile the adapter again",
                manifest.id()
            ),
        )),
    }
}

impl Setup {
    /// Reads the model in `folder` for its base model, and an adapter, whose integers are compared
    /// with the manifest's commitments: scores are those of the adapter id.
    ///
    /// # Errors
    /// The files do not fit each other, or the adapter has no integer model.
    pub fn load(
        folder: &Path,
        base: &BaseModel,
        artifacts: Option<Artifacts>,
        srs: &Srs,
    ) -> Result<Setup, Error> {
        Setup::with(artifacts, srs, |manifest| BoundModel::load(folder, base, manifest))
    }

    /// As [`Setup::load`], for an adapter, and makes the model first if the folder has none.
    ///
    /// # Errors
    /// Those of [`Setup::load`] and of [`compile`](super::compile()).
    pub fn load_or_make(
        folder: &Path,
        base: &BaseModel,
        tokenizer: Option<&Path>,
        artifacts: Artifacts,
        srs: &Srs,
    ) -> Result<Setup, Error> {
        Setup::with(Some(artifacts), srs, |manifest| {
            BoundModel::load_or_make(folder, base, tokenizer, manifest)
        })
    }

    fn with(
        artifacts: Option<Artifacts>,
        srs: &Srs,
        bind: impl FnOnce(Option<(&str, &CheckedManifest)>) -> Result<BoundModel, Error>,
    ) -> Result<Setup, Error> {
        if let Some(artifacts) = &artifacts {
            committed(artifacts, srs)?;
        }
        let name = artifacts.as_ref().map(|artifacts| artifacts.folder.display().to_string());
        let named = name.as_deref().zip(artifacts.as_ref().map(|artifacts| &artifacts.manifest));
        let bound = bind(named)?;
        let adapted = artifacts
            .as_ref()
            .map(|artifacts| bound.program(&artifacts.manifest, &artifacts.weights))
            .transpose()?;
        Ok(Setup { bound, adapted, artifacts: artifacts.map(Arc::new) })
    }

    /// The adapter's id, if there is an adapter.
    pub fn adapter_id(&self) -> Option<String> {
        self.artifacts.as_ref().map(|artifacts| artifacts.manifest.id().to_string())
    }
}
