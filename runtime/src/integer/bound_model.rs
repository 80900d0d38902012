//! An integer model with its base model, and where the modules of a manifest act in it.

use std::path::{Path, PathBuf};

use zklora_integer::{
    adapter::Adapter, lower::lower, model, model::IntegerModel, program::Program,
};
use zklora_proof::{checked_manifest::CheckedManifest, weights::Weights};

use super::{adapter, compile};
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

/// An integer model, and where the modules of a manifest act in it.
pub struct BoundModel {
    /// The model.
    pub model: IntegerModel,
    /// BLAKE3 of `integer-model.json`, as hex.
    pub digest: String,
    pub(super) points: Vec<Point>,
    /// The operator of each point.
    operators: Vec<usize>,
}

impl BoundModel {
    /// Reads the model in `folder` for its base model, and finds the layers of a manifest. `name`
    /// stands for the manifest in errors.
    ///
    /// # Errors
    /// The files do not fit each other.
    pub fn load(
        folder: &Path,
        base: &BaseModel,
        manifest: Option<(&str, &CheckedManifest)>,
    ) -> Result<BoundModel, Error> {
        let points = match manifest {
            None => Vec::new(),
            Some(named) => infer::points(&[named], &base.maps)?,
        };
        let injections: Vec<_> = points.iter().map(|point| point.injection.clone()).collect();
        let lowered = lower(&base.base, &injections)?;
        if let Some((name, manifest)) = manifest.filter(|_| !base.allow_other_base) {
            let fingerprint = infer::fingerprint(base.base_weights.as_deref(), &lowered.metadata)?;
            infer::compare(name, manifest, fingerprint.as_deref())?;
        }
        let model = IntegerModel::load_with(folder, &lowered.graph)?;
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
        Ok(BoundModel { model, digest, points, operators: lowered.points })
    }

    /// As [`BoundModel::load`], and makes the model first if the folder has none.
    ///
    /// # Errors
    /// Those of [`BoundModel::load`] and of [`compile`](super::compile()).
    pub fn load_or_make(
        folder: &Path,
        base: &BaseModel,
        tokenizer: Option<&Path>,
        manifest: Option<(&str, &CheckedManifest)>,
    ) -> Result<BoundModel, Error> {
        if !folder.join(model::FILE).exists() {
            compile(&base.base, tokenizer, false, folder)?;
        }
        BoundModel::load(folder, base, manifest)
    }

    /// The program without an adapter.
    ///
    /// # Errors
    /// A bound of the model is exceeded.
    pub fn base_program(&self) -> Result<Program, Error> {
        Ok(self.model.program(Adapter::default())?)
    }

    /// The program with the weights of the manifest.
    ///
    /// # Errors
    /// The adapter has no integer model.
    pub fn program(&self, manifest: &CheckedManifest, weights: &Weights) -> Result<Program, Error> {
        let adapter = adapter::of_weights(manifest, weights, &self.points, &self.operators)?;
        Ok(self.model.program(adapter)?)
    }

    /// For each module of the manifest, the operator that it adapts.
    pub fn layers(&self) -> Vec<u32> {
        let modules = self.points.iter().map(|point| point.modules.len()).sum();
        let mut layers = vec![0; modules];
        for (point, operator) in self.points.iter().zip(&self.operators) {
            for module in &point.modules {
                layers[module.module] = u32::try_from(*operator).unwrap_or(u32::MAX);
            }
        }
        layers
    }
}
