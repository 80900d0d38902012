//! Stands for `ezkl` in a build without the feature: it refuses folders of EZKL and
//! `--backend ezkl`.

use std::path::Path;

use zklora_artifacts::folder;

use super::outcome::Outcome;
use crate::{
    args::{self, ezkl::Backend},
    output::Output,
};

fn absent() -> anyhow::Error {
    anyhow::anyhow!(
        "this zklora was built without EZKL: build the package zklora-cli with its feature `ezkl`"
    )
}

/// Whether a folder is of the EZKL backend: never, or an error.
pub fn is_ezkl(folder: &Path) -> anyhow::Result<bool> {
    match folder::manifest_format(folder)?.as_deref() {
        Some("zklora-ezkl-manifest") => Err(absent()),
        _ => Ok(false),
    }
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
