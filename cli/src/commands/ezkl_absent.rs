//! Stands for `ezkl` in a build without the feature: no folder is one of EZKL's, and `--backend
//! ezkl` is refused.

use std::path::Path;

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

pub fn is_ezkl(_: &Path) -> anyhow::Result<bool> {
    Ok(false)
}

pub fn refuse(_: &Path, _: &str) -> anyhow::Result<()> {
    Ok(())
}

pub fn chosen(args: &args::Verify) -> anyhow::Result<bool> {
    if args.backend == Some(Backend::Ezkl) { Err(absent()) } else { Ok(false) }
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
