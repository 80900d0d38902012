//! `zklora leak`

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{SrsFile, mapping::mapping};

/// `zklora leak`
#[derive(ClapArgs)]
pub struct Leak {
    /// Folder that compile wrote.
    #[arg(long, value_name = "DIR")]
    pub artifacts: PathBuf,
    /// The base model: an ONNX causal language model.
    #[arg(long, value_name = "MODEL.onnx")]
    pub base: PathBuf,
    /// Text such as a user would send: its first tokens give rows, the following ones are held
    /// out.
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Hold out this text instead. Choose one on which the adapter lowers the loss.
    #[arg(long, value_name = "FILE")]
    pub held_out: Option<PathBuf>,
    /// Largest number of rows per module; measured for 1, 2, 4 and so on up to it. Takes 16 bytes
    /// per row and feature.
    #[arg(long, value_name = "N", default_value_t = 512,
        value_parser = clap::value_parser!(u32).range(16..=8192))]
    pub rows: u32,
    /// Maximum number of held-out tokens.
    #[arg(long, value_name = "N", default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    pub held_out_tokens: u32,
    /// Context length, in tokens; at most the model's own.
    #[arg(long, value_name = "N", default_value_t = 512,
        value_parser = clap::value_parser!(u32).range(2..=1_048_576))]
    pub context: u32,
    /// Also plot the recovered shares into this file.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// The base model's tokenizer [default: tokenizer.json beside the base model].
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Folder of the base model's weights (safetensors), for comparing fingerprints [default: the
    /// fingerprint in the ONNX file].
    #[arg(long, value_name = "DIR")]
    pub base_weights: Option<PathBuf>,
    /// Continue although the base model is not the one that the adapter is for.
    #[arg(long)]
    pub allow_other_base: bool,
    /// The ONNX tensor that a layer outputs, for a layer that is not found by its name; may be
    /// repeated.
    #[arg(long, value_name = "MODULE=TENSOR", value_parser = mapping)]
    pub map: Vec<(String, String)>,
    #[command(flatten)]
    pub srs: SrsFile,
}
