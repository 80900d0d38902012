//! Reads what `run` and `check` need: the integer model, its base model, and an adapter.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use zklora_artifacts::folder::Artifacts;
use zklora_integer::{
    adapter::Adapter, lower::lower, model, model::IntegerModel, program::Program,
};

use zklora_proof::{commit, srs::Srs};

use super::adapter;
use crate::{
    Error,
    infer::{self, Point},
};

/// The base model, and what may differ about it.
#[derive(Debug, Clone)]
pub struct BaseModel {
    /// The ONNX file.
    pub base: PathBuf,
    /// The folder of its weights, to compare fingerprints.
    pub base_weights: Option<PathBuf>,
    /// Accept another base model than the adapter is for.
    pub allow_other_base: bool,
    /// Layers that are not found by name: module and ONNX tensor.
    pub maps: Vec<(String, String)>,
    /// The digest that the integer model must have.
    pub digest: Option<String>,
}

/// An integer model, with an adapter if there is one.
pub struct Setup {
    pub(super) model: IntegerModel,
    pub(super) adapted: Option<Program>,
    pub(super) points: Vec<Point>,
    pub(super) artifacts: Option<Arc<Artifacts>>,
    /// BLAKE3 of `integer-model.json`, as hex.
    pub digest: String,
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
        if let Some(artifacts) = &artifacts {
            committed(artifacts, srs)?;
        }
        let points = match &artifacts {
            None => Vec::new(),
            Some(artifacts) => {
                let name = artifacts.folder.display().to_string();
                infer::points(&[(&name, &artifacts.manifest)], &base.maps)?
            }
        };
        let injections: Vec<_> = points.iter().map(|point| point.injection.clone()).collect();
        let lowered = lower(&base.base, &injections)?;
        if let Some(artifacts) = artifacts.as_ref().filter(|_| !base.allow_other_base) {
            let fingerprint = infer::fingerprint(base.base_weights.as_deref(), &lowered.metadata)?;
            let name = artifacts.folder.display().to_string();
            infer::compare(&name, &artifacts.manifest, fingerprint.as_deref())?;
        }
        let model = IntegerModel::load_with(folder, &lowered.graph)?;
        let adapted = match &artifacts {
            None => None,
            Some(artifacts) => {
                let adapter = adapter::of_artifacts(artifacts, &points, &lowered.points)?;
                Some(model.program(adapter)?)
            }
        };
        let digest = blake3::hash(&model.to_bytes()?).to_hex().to_string();
        if let Some(expected) = base.digest.as_ref().filter(|expected| **expected != digest) {
            return Err(Error::file(
                &folder.join(model::FILE),
                format!(
                    "its digest is {digest}, not {expected}: this is another function; make it \
                     with `zklora integer compile`, and compare the base model and tokenizer"
                ),
            ));
        }
        Ok(Setup { model, adapted, points, artifacts: artifacts.map(Arc::new), digest })
    }

    /// The program without the adapter.
    pub(super) fn base_program(&self) -> Result<Program, Error> {
        Ok(self.model.program(Adapter::default())?)
    }

    /// The adapter's id, if there is an adapter.
    pub fn adapter_id(&self) -> Option<String> {
        self.artifacts.as_ref().map(|artifacts| artifacts.manifest.id().to_string())
    }
}
