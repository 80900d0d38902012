//! `zklora integer`

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::{SrsFile, mapping::mapping};

/// `zklora integer`
#[derive(Subcommand)]
pub enum IntegerCommand {
    /// Make the integer model of a base model. Everybody who has the base model and its tokenizer
    /// makes the same one, byte for byte.
    #[command(after_help = "Example: zklora integer compile --base model.onnx --out integer\n\n\
Compare the digest with that of the other party: equal digests mean equal functions.")]
    Compile(IntegerCompile),
    /// Score units or a text with an integer model: the same bits on every machine.
    #[command(after_help = "Examples: zklora integer run --model integer --base model.onnx \
--artifacts artifacts --text-file text.txt\n          \
zklora integer run --model integer --base model.onnx --units units.jsonl --out scores.jsonl\n\n\
A unit is a line of JSON: docs/integer-model.md, \"Units\". The exit code is 1 if a unit has no \
score; a warning on stderr says why, and no file repeats it.")]
    Run(IntegerRun),
    /// Measure how far an integer model is from the float model, with and without an adapter.
    #[command(after_help = "Example: zklora integer check --model integer --base model.onnx \
--artifacts artifacts --text held-out.txt --plot check.svg\n\n\
The exit code is 1 if a unit has no score, or, with --limit, if a token differs by more.")]
    Check(IntegerCheck),
    /// Say what a proof of scores with an adapter takes (--plan), or make one and measure it.
    /// Nothing leaves this machine: buyers get proofs with `zklora serve --prove`.
    #[command(after_help = "Examples: zklora integer prove --model integer --base model.onnx \
--artifacts artifacts --text-file text.txt --context 64 --plan\n          \
zklora integer prove --model integer --base model.onnx --artifacts artifacts --text-file \
text.txt --context 64 --scored 4\n\n\
The exit code is 1 if there can be no proof: an adapter with other terms than low-rank ones and \
biases, integers of more than 16 bits (compile --registered), numbers beyond the proof's field.")]
    Prove(IntegerProve),
}

/// A difference: a number, at least 0.
fn nats(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| *number >= 0.0);
    number.ok_or_else(|| "expected a number of at least 0".into())
}

/// A digest: 64 hex digits.
fn digest(text: &str) -> Result<String, String> {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let lower = text.to_ascii_lowercase();
    is_digest.then_some(lower).ok_or_else(|| "expected 64 hex digits".into())
}

/// The base model.
#[derive(ClapArgs)]
pub struct Base {
    /// The base model: an ONNX causal language model.
    #[arg(long, value_name = "MODEL.onnx")]
    pub base: PathBuf,
    /// The base model's tokenizer [default: tokenizer.json beside the base model].
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
}

/// The integer model, and an adapter.
#[derive(ClapArgs)]
pub struct Model {
    /// Folder that `zklora integer compile` wrote. Make it yourself: a file of the other party may
    /// hold other scales.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The digest that the integer model must have, as `integer compile` printed it.
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    pub digest: Option<String>,
    #[command(flatten)]
    pub base: Base,
    /// Folder that `zklora compile` wrote, with private/: the adapter [default: the base model
    /// alone].
    #[arg(long, value_name = "DIR")]
    pub artifacts: Option<PathBuf>,
    /// Folder of the base model's weights (safetensors), for comparing fingerprints [default: the
    /// fingerprint in the ONNX file].
    #[arg(long, value_name = "DIR", requires = "artifacts")]
    pub base_weights: Option<PathBuf>,
    /// Continue although the base model is not the one that the adapter is for.
    #[arg(long, requires = "artifacts")]
    pub allow_other_base: bool,
    /// The ONNX tensor that a layer outputs, for a layer that is not found by its name; may be
    /// repeated.
    #[arg(long, value_name = "MODULE=TENSOR", value_parser = mapping, requires = "artifacts")]
    pub map: Vec<(String, String)>,
    #[command(flatten)]
    pub srs: SrsFile,
}

/// `zklora integer compile`
#[derive(ClapArgs)]
pub struct IntegerCompile {
    #[command(flatten)]
    pub base: Base,
    /// Calibrate on generated tokens instead of texts: for a model without a tokenizer. This makes
    /// another integer model.
    #[arg(long, conflicts_with = "tokenizer")]
    pub generated_tokens: bool,
    /// Folder for integer-model.json and its tables.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// `zklora integer run`
#[derive(ClapArgs)]
pub struct IntegerRun {
    #[command(flatten)]
    pub model: Model,
    /// File with units: one JSON object a line, such as {"text": "…"}, {"prompt": "…",
    /// "completion": "…"}, {"prompt": "…", "choices": ["…", "…"], "answer": 0}, {"prompt": "…",
    /// "generate": 8} or {"tokens": [1, 2, 3], "from": 1}.
    #[arg(
        long,
        value_name = "FILE.jsonl",
        required_unless_present = "text_file",
        conflicts_with = "text_file"
    )]
    pub units: Option<PathBuf>,
    /// File with a text, which is cut into units.
    #[arg(long, value_name = "FILE")]
    pub text_file: Option<PathBuf>,
    /// Tokens of a unit of the text, 2 to 2,048.
    #[arg(long, value_name = "N", default_value_t = 64, conflicts_with = "units",
        value_parser = clap::value_parser!(u32).range(2..=2048))]
    pub context: u32,
    /// Also write the scores into this file: one JSON object a line.
    #[arg(long, value_name = "FILE.jsonl")]
    pub out: Option<PathBuf>,
}

/// `zklora integer prove`
#[derive(ClapArgs)]
pub struct IntegerProve {
    #[command(flatten)]
    pub model: Model,
    /// File with a text, whose first tokens are scored.
    #[arg(long, value_name = "FILE")]
    pub text_file: PathBuf,
    /// Tokens of a sequence, 2 to 2,048.
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(2..=2048))]
    pub context: u32,
    /// Sequences in one proof.
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub sequences: u32,
    /// How many tokens at the end of a sequence are scored [default: all after the first].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub scored: Option<u32>,
    /// Only say what it takes.
    #[arg(long)]
    pub plan: bool,
    /// Leave wide vector instructions out, to measure what they save.
    #[arg(long)]
    pub portable: bool,
}

/// `zklora integer check`
#[derive(ClapArgs)]
pub struct IntegerCheck {
    #[command(flatten)]
    pub model: Model,
    /// The text to compare on. Choose one that neither model was fitted to.
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Tokens of a unit, 2 to 2,048.
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(2..=2048))]
    pub context: u32,
    /// Use at most this many units, from the start of the text.
    #[arg(long, value_name = "N", default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_units: u32,
    /// Fail if the log-probability of a token differs by more than this, in nats, or if a unit has
    /// no score.
    #[arg(long, value_name = "NATS", value_parser = nats)]
    pub limit: Option<f64>,
    /// Also plot the differences into this file.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}
