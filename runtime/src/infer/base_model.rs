//! Whether the user's base model is the one that an adapter was made for.

use std::{collections::BTreeMap, path::Path};

use zklora_proof::checked_manifest::CheckedManifest;

use crate::Error;

/// Where `models/make` writes the fingerprint of the weights that it exports.
pub(super) const FINGERPRINT: &str = "zklora.base_fingerprint";

/// The fingerprint of the user's base model: of the folder of its weights, else what its ONNX file
/// says.
pub(crate) fn fingerprint(
    weights: Option<&Path>,
    metadata: &BTreeMap<String, String>,
) -> Result<Option<String>, Error> {
    match weights {
        Some(folder) => Ok(Some(zklora_models::fingerprint(folder)?)),
        None => Ok(metadata.get(FINGERPRINT).cloned()),
    }
}

/// Compares it with what a manifest names.
///
/// # Errors
/// [`Error::Input`]: another base model, or one that cannot be compared. A manifest without a fingerprint is not compared.
pub(crate) fn compare(
    url: &str,
    manifest: &CheckedManifest,
    own: Option<&str>,
) -> Result<(), Error> {
    let base = &manifest.contents().base_model;
    let Some(theirs) = &base.fingerprint else { return Ok(()) };
    let refuse = |why: String| {
        Err(Error::input(format!(
            "{url}: this adapter is for the base model `{}` with fingerprint {theirs}; {why}, or pass --allow-other-base",
            base.name
        )))
    };
    match own {
        None => refuse(
            "yours says nothing of its weights: name their folder with --base-weights (the safetensors that the ONNX file was made of)".into(),
        ),
        Some(own) if own != theirs => refuse(format!("yours has {own}: use the model that the adapter was trained on")),
        Some(_) => Ok(()),
    }
}
