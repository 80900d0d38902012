//! `zklora export`

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// `zklora export`
#[derive(ClapArgs)]
pub struct Export {
    /// PEFT folder.
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// Folder for the ONNX files.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Export only modules whose name matches (`*` and `?`); may be repeated.
    #[arg(long, value_name = "GLOB")]
    pub module: Vec<String>,
    /// Folder of the base model (safetensors): its fingerprint goes into the manifest; DoRA and
    /// VeRA need it.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
}
