//! The user's base model: its tokenizer, and the check that it is the one that an adapter was made
//! for.

use std::{collections::BTreeMap, path::Path};

use zklora_models::language_model::Tokenizer;
use zklora_proof::checked_manifest::CheckedManifest;

use crate::Error;

/// Metadata key in which `models/make` stores the fingerprint of the exported weights.
pub(super) const FINGERPRINT: &str = "zklora.base_fingerprint";

/// The fingerprint of the user's base model: of the folder of its weights, else the one in its ONNX
/// file.
pub(crate) fn fingerprint(
    weights: Option<&Path>,
    metadata: &BTreeMap<String, String>,
) -> Result<Option<String>, Error> {
    match weights {
        Some(folder) => Ok(Some(zklora_models::fingerprint(folder)?)),
        None => Ok(metadata.get(FINGERPRINT).cloned()),
    }
}

/// Compares it with the fingerprint in a manifest. A manifest without one is not compared.
///
/// # Errors
/// An input error: another base model, or one without a fingerprint.
pub(crate) fn compare(
    url: &str,
    manifest: &CheckedManifest,
    found: Option<&str>,
) -> Result<(), Error> {
    let base = &manifest.contents().base_model;
    let Some(expected) = &base.fingerprint else { return Ok(()) };
    let refuse = |why: String| {
        Err(Error::input(format!(
            "{url}: this adapter is for the base model `{}` with fingerprint {expected}; {why}, or pass --allow-other-base",
            base.name
        )))
    };
    match found {
        None => refuse(
            "yours has no fingerprint: name the folder of its weights with --base-weights (the safetensors that the ONNX file was made from)".into(),
        ),
        Some(found) if found != expected => refuse(format!("yours has {found}: use the model that the adapter was trained on")),
        Some(_) => Ok(()),
    }
}

/// Loads the tokenizer of a base model: the named file, or `tokenizer.json` beside the model.
pub fn tokenizer(base: &Path, named: Option<&Path>) -> Result<Tokenizer, Error> {
    let path = named.map_or_else(|| base.with_file_name("tokenizer.json"), Path::to_path_buf);
    if named.is_none() && !path.exists() {
        return Err(Error::input(format!(
            "{} does not exist: name the tokenizer.json of the base model with --tokenizer",
            path.display()
        )));
    }
    Ok(Tokenizer::load(&path)?)
}
