//! `zklora run`

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::TrustedSrs;

/// `zklora run`
#[derive(ClapArgs)]
pub struct Run {
    /// PEFT folder (adapter_config.json, adapter_model.safetensors).
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// Folder of the base model (safetensors): its fingerprint goes into the manifest; DoRA and
    /// VeRA need it.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Number of pseudo-random rows per module [default: use the adapter folder's
    /// activations.safetensors if it exists, else 64].
    #[arg(long, value_name = "N", conflicts_with = "trace",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rows: Option<u32>,
    /// Activations to run on: safetensors with one tensor `<module>.x` per module.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Keep every file in this folder [default: a temporary folder, removed at the end unless the
    /// process is killed].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub srs: TrustedSrs,
}
