//! `zklora export`

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// `zklora export`
#[derive(ClapArgs)]
pub struct Export {
    /// The adapter: a folder of PEFT or MLX, or a file of kohya's scripts, LyCORIS, diffusers or
    /// llama.cpp (GGUF).
    #[arg(long, value_name = "PATH")]
    pub adapter: PathBuf,
    /// Folder for the ONNX files.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Export only modules whose name matches (`*` and `?`); may be repeated. The others are not
    /// read.
    #[arg(long, value_name = "GLOB")]
    pub module: Vec<String>,
    /// Folder of the base model (safetensors): its fingerprint goes into the manifest; DoRA and
    /// VeRA need it.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// The name of the base model for the public manifest, where the adapter's own is a path or
    /// missing.
    #[arg(long, value_name = "NAME")]
    pub base_name: Option<String>,
    /// Leave layers that were trained whole (`modules_to_save`, `bias`, `trainable_token_indices`)
    /// out instead of exporting them as differences from the base model. Without --base they are
    /// left out anyway. The manifest says what is left out.
    #[arg(long)]
    pub lora_only: bool,
    /// Read TO in the place of FROM in the names of tensors; with an empty FROM, put TO before
    /// them. For what wrappers leave in names (`_orig_mod.=`); may be repeated.
    #[arg(long, value_name = "FROM=TO", value_parser = renaming)]
    pub rename: Vec<(String, String)>,
}

fn renaming(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) => Ok((from.into(), to.into())),
        None => Err("give the text, `=`, and what is read in its place".into()),
    }
}
