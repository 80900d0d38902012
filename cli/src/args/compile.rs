//! `zklora compile`

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{SrsFile, ezkl};

/// `zklora compile`
#[derive(ClapArgs)]
pub struct Compile {
    /// ONNX files, or folders that export wrote.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Folder for public/ and private/.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// File with 64 hex digits: the seed of all masks [default: the seed in the output folder,
    /// else a fresh one].
    #[arg(long, value_name = "FILE")]
    pub seed_file: Option<PathBuf>,
    /// Activations on which to choose bit widths by measured error: .safetensors (`<module>.x`),
    /// or .npy or .json for a single module.
    #[arg(long, value_name = "FILE")]
    pub calibrate: Option<PathBuf>,
    /// Give every weight at most 16 bits, and publish a proof of that, public/registration.proof. A
    /// valid one in the folder is kept. With --locked, it is verified.
    #[arg(long)]
    pub registered: bool,
    /// log₂ of the rows of a column, 8 to 12 [default: that of the manifest in the output folder,
    /// else the one that takes least time to prove and verify; 12 with --registered].
    #[arg(long, value_name = "K")]
    pub k: Option<u32>,
    /// Write nothing: show how each ONNX node was lowered, and the terms of each module. Shows
    /// scalar factors, so keep the output private.
    #[arg(long, conflicts_with_all = ["plan", "locked"])]
    pub explain: bool,
    /// Write nothing: estimate the cost of committing, proving and verifying on this machine.
    #[arg(long, conflicts_with = "locked")]
    pub plan: bool,
    /// Write nothing: regenerate everything in memory, compare it with the folder, and exit with 1
    /// if anything differs.
    #[arg(long)]
    pub locked: bool,
    /// Proof system.
    #[arg(long, value_enum, default_value = "halo2")]
    pub backend: ezkl::Backend,
    #[command(flatten)]
    pub srs: SrsFile,
    #[command(flatten)]
    pub circuit: ezkl::Circuit,
    /// Import the keys of an EZKL run for the single ONNX file: a folder with settings.json,
    /// vk.key and, to prove, model.compiled and pk.key.
    #[arg(long, value_name = "DIR", help_heading = "EZKL")]
    pub ezkl_run: Option<PathBuf>,
    #[command(flatten)]
    pub insecure: ezkl::InsecureDevSrs,
    #[command(flatten)]
    pub python: ezkl::Interpreter,
}
