//! `zklora leak`

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{SrsFile, mapping};

/// `zklora leak`
#[derive(ClapArgs)]
pub struct Leak {
    /// Folder that compile wrote.
    #[arg(long, value_name = "DIR")]
    pub artifacts: PathBuf,
    /// The base model: an ONNX causal language model.
    #[arg(long, value_name = "MODEL.onnx")]
    pub base: PathBuf,
    /// Text such as a user would send: its first tokens give rows, the next ones are held out.
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Hold this text out instead: choose one that the adapter is good at.
    #[arg(long, value_name = "FILE")]
    pub held_out: Option<PathBuf>,
    /// Most rows of a module: it is measured for 1, 2, 4 and so on. Takes 16 bytes a row and
    /// feature.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(16..=8192))]
    pub rows: u32,
    /// Most tokens that are held out.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    pub held_out_tokens: u32,
    /// Tokens that the model sees at once; at most as many as the model can.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..=1_048_576))]
    pub context: u32,
    /// Draw the shares into this file, too.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// The base model's tokenizer [default: tokenizer.json beside the base model].
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Folder of the base model's weights (safetensors), to compare fingerprints [default: what
    /// the ONNX file says].
    #[arg(long, value_name = "DIR")]
    pub base_weights: Option<PathBuf>,
    /// Go on with another base model than the adapter is for.
    #[arg(long)]
    pub allow_other_base: bool,
    /// Where a layer is that is not found by its name: the ONNX tensor that it puts out; may be
    /// repeated.
    #[arg(long, value_name = "MODULE=TENSOR", value_parser = mapping)]
    pub map: Vec<(String, String)>,
    #[command(flatten)]
    pub srs: SrsFile,
}
