//! Stands for `ezkl` in a build without the feature: it refuses folders of EZKL and
//! `--backend ezkl`.

use std::path::Path;

use zklora_artifacts::folder;

use super::outcome::Outcome;
use crate::{
    args::{self, ezkl::Backend},
    output::Output,
};

/// Largest manifest of either backend, in bytes.
const MAX_MANIFEST: u64 = 1 << 28;

fn absent() -> anyhow::Error {
    anyhow::anyhow!(
        "this zklora was built without EZKL: build the package zklora-cli with its feature `ezkl`"
    )
}

/// Whether a folder is of the EZKL backend: never, or an error.
pub fn is_ezkl(folder: &Path) -> anyhow::Result<bool> {
    let manifest = folder::public_folder(folder)?.join(folder::MANIFEST);
    let bytes =
        zklora_files::read(&manifest, MAX_MANIFEST).map_err(zklora_artifacts::Error::from)?;
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if json["format"] == "zklora-ezkl-manifest" { Err(absent()) } else { Ok(false) }
}

pub fn refuse(folder: &Path, _: &str) -> anyhow::Result<()> {
    // The code that reads the folder reports what is wrong with it.
    match is_ezkl(folder) {
        Err(error) if !error.is::<zklora_artifacts::Error>() => Err(error),
        _ => Ok(()),
    }
}

pub fn chosen(args: &args::Verify) -> anyhow::Result<bool> {
    if args.backend == Some(Backend::Ezkl) { Err(absent()) } else { is_ezkl(&args.public) }
}

pub fn compile(_: &args::Compile, _: &Output) -> Outcome {
    Err(absent())
}

pub fn record(_: &args::Record, _: &Output) -> Outcome {
    Err(absent())
}

pub fn prove(_: &args::Prove, _: &Output) -> Outcome {
    Err(absent())
}

pub fn verify(_: &args::Verify, _: &Output) -> Outcome {
    Err(absent())
}
