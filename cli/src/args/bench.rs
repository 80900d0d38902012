//! `zklora bench`

use std::path::PathBuf;

use clap::{Args as ClapArgs, builder::PossibleValuesParser};
use zklora_bench::proof_bench::PROFILES;

use super::{SrsFile, against};

/// `zklora bench`
#[derive(ClapArgs)]
pub struct Bench {
    /// PEFT folder whose pipeline is measured.
    #[arg(long, value_name = "DIR",
        required_unless_present_any =
            ["profile", "all", "scaling", "long", "task", "against", "evaluate", "inference"])]
    pub adapter: Option<PathBuf>,
    /// Folder of the base model: DoRA and VeRA need it.
    #[arg(long, value_name = "DIR", requires = "adapter")]
    pub base: Option<PathBuf>,
    /// Measure an adapter of these shapes instead, with synthetic weights; may be repeated.
    #[arg(long, value_name = "NAME", conflicts_with = "adapter",
        value_parser = PossibleValuesParser::new(PROFILES))]
    pub profile: Vec<String>,
    /// Measure every profile.
    #[arg(long, conflicts_with_all = ["adapter", "profile"])]
    pub all: bool,
    /// Write the figures of profiles or of --inference into this file, between the two lines that
    /// mark their place.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["adapter", "scaling"])]
    pub markdown: Option<PathBuf>,
    /// Measure how costs grow from one profile (distilgpt2): rows ×1, ×10, ×100; modules ×1, ×2,
    /// ×4; rank 4, 8, 16, 32.
    #[arg(long, conflicts_with_all = ["adapter", "all"])]
    pub scaling: bool,
    /// Measure sessions of very many rows of one narrow module (64×4×64): peak memory of `trace
    /// record`, `prove`, `verify --inputs`, the server and its user.
    #[arg(long, conflicts_with_all = ["adapter", "profile", "all", "scaling"])]
    pub long: bool,
    /// Draw the curves of --scaling or --inference into this file.
    #[arg(long, value_name = "FILE.svg", conflicts_with_all = ["adapter", "evaluate"])]
    pub svg: Option<PathBuf>,
    /// Rows per module, separated by commas [default: 64,640,6400; 64 for profiles, 16 for
    /// --scaling, 10000,1000000 for --long].
    #[arg(long, value_name = "N,…", value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rows: Vec<u32>,
    /// Measure two-party inference over loopback instead, on this base model (ONNX): forward pass,
    /// calls and deltas, as ratios.
    #[arg(long, value_name = "MODEL.onnx", conflicts_with = "rows")]
    pub model: Option<PathBuf>,
    /// Measure evaluations with the adapter in this folder (as `compile` wrote it) instead, on the
    /// base model --model: scoring against tract, bytes on the wire, time around scoring.
    #[arg(long, value_name = "DIR", requires = "model", requires = "text",
        conflicts_with_all = ["adapter", "profile", "all", "scaling"])]
    pub evaluate: Option<PathBuf>,
    /// Measure inference proofs with the registered adapter in this folder instead, on the base
    /// model --model: 16 to 128 tokens, few scored ones, one thread, no vector instructions.
    #[arg(long, value_name = "DIR", requires = "model", requires = "text",
        conflicts_with_all = ["adapter", "profile", "all", "scaling", "evaluate"])]
    pub inference: Option<PathBuf>,
    /// Text of which units are made.
    #[arg(long, value_name = "FILE", requires = "model")]
    pub text: Option<PathBuf>,
    /// Tokenizer of the base model [default: tokenizer.json beside it].
    #[arg(long, value_name = "FILE", requires = "text")]
    pub tokenizer: Option<PathBuf>,
    /// Folder of its integer model, which is made if there is none [default: a temporary one].
    #[arg(long, value_name = "DIR", requires = "text")]
    pub integer: Option<PathBuf>,
    /// Units that are scored.
    #[arg(long, value_name = "N", default_value_t = 200, requires = "evaluate",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub units: u32,
    /// Units of the request whose handling is measured without scoring.
    #[arg(long, value_name = "N", default_value_t = 100_000, requires = "evaluate",
        value_parser = clap::value_parser!(u32).range(2..=1_048_576))]
    pub many_units: u32,
    /// Tokens of a forward pass, or of a unit.
    #[arg(long, value_name = "N", default_value_t = 64, requires = "model",
        value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub tokens: u32,
    /// Number of forward passes.
    #[arg(long, value_name = "N", default_value_t = 9, requires = "model",
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub repetitions: u32,
    /// Run one stage of a profile, described by this file. The command starts itself with this
    /// option once per stage.
    #[arg(long, value_name = "FILE", hide = true,
        conflicts_with_all = ["adapter", "profile", "all", "scaling"])]
    pub task: Option<PathBuf>,
    #[command(flatten)]
    pub against: against::Against,
    #[command(flatten)]
    pub srs: SrsFile,
}
