//! `zklora infer`

use std::path::PathBuf;

use clap::Args as ClapArgs;
use zklora_proof::manifest::AdapterId;

use super::{TrustedSrs, mapping::mapping, transport::Transport};

/// A contributor on the command line: `URL` or `URL=ADAPTER_ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contributor {
    /// The URL.
    pub url: String,
    /// The pin.
    pub pin: Option<AdapterId>,
}

fn contributor(text: &str) -> Result<Contributor, String> {
    let (url, pin) = match text.rsplit_once('=') {
        Some((url, pin)) => (
            url,
            Some(pin.parse().map_err(|e: zklora_proof::Error| {
                format!("{e} (expected URL or URL=ADAPTER_ID)")
            })?),
        ),
        None => (text, None),
    };
    if !url.contains("://") {
        return Err(
            "expected a URL such as http://127.0.0.1:7443 or https://example.org:7443".into()
        );
    }
    Ok(Contributor { url: url.trim_end_matches('/').to_string(), pin })
}

/// A token file on the command line: `FILE` or `URL=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    /// The contributor that the token is for.
    pub url: Option<String>,
    /// The file.
    pub file: PathBuf,
}

fn token_file(text: &str) -> Result<TokenFile, String> {
    Ok(match text.split_once('=') {
        Some((url, file)) if url.contains("://") => {
            TokenFile { url: Some(url.trim_end_matches('/').to_string()), file: file.into() }
        }
        _ => TokenFile { url: None, file: text.into() },
    })
}

/// How a delta changes the output of its base layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// base + delta
    AddDelta,
    /// the delta alone
    Replace,
}

/// `zklora infer`
#[derive(ClapArgs)]
pub struct Infer {
    /// The base model: an ONNX causal language model. If it has a cache of keys and values
    /// (`past_key_values.N.key`, as optimum exports it), each token of --generate is run once.
    #[arg(long, value_name = "MODEL.onnx")]
    pub base: PathBuf,
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
    /// A contributor that serves deltas, with the adapter id that you pinned; may be repeated.
    #[arg(long, value_name = "URL[=ADAPTER_ID]", required = true, value_parser = contributor)]
    pub contributor: Vec<Contributor>,
    /// Text whose loss is measured, with and without the adapters.
    #[arg(long, value_name = "TEXT", conflicts_with = "text_file", allow_hyphen_values = true)]
    pub text: Option<String>,
    /// File with the text whose loss is measured.
    #[arg(long, value_name = "FILE")]
    pub text_file: Option<PathBuf>,
    /// Context length for the loss, in tokens; at most the model's own.
    #[arg(long, value_name = "N", default_value_t = 512,
        value_parser = clap::value_parser!(u32).range(2..=1_048_576))]
    pub context: u32,
    /// Tokens to generate with the adapters.
    #[arg(long, value_name = "N", default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub generate: u32,
    /// The prompt to continue [default: the text].
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// Sampling temperature; 0 always takes the likeliest token.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub temperature: f32,
    /// Sample among this many likeliest tokens; 0 for all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub top_k: usize,
    /// Sample among the likeliest tokens whose probabilities sum to this.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f32,
    /// Seed of the sampling.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Do not generate with the base model alone for comparison.
    #[arg(long)]
    pub no_base_text: bool,
    /// How a delta changes the output of its base layer.
    #[arg(long, value_enum, default_value = "add-delta")]
    pub mode: Mode,
    /// The ONNX tensor that a layer outputs, for a layer that is not found by its name; may be
    /// repeated.
    #[arg(long, value_name = "MODULE=TENSOR", value_parser = mapping)]
    pub map: Vec<(String, String)>,
    /// File with the token that the contributor gave you; with several contributors URL=FILE,
    /// repeated.
    #[arg(long, value_name = "[URL=]FILE", value_parser = token_file)]
    pub token_file: Vec<TokenFile>,
    /// Seconds that a proof may take, including its time in the server's queue.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600,
        value_parser = clap::value_parser!(u32).range(1..=604_800))]
    pub proof_timeout: u32,
    /// Resume a session at another URL than it began with. This sends the server at that URL the
    /// session key.
    #[arg(long)]
    pub moved: bool,
    #[command(flatten)]
    pub transport: Transport,
    /// Folder for your record, the proofs and the report.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub srs: TrustedSrs,
}
