//! `zklora evaluate` and `zklora claim`

use std::path::PathBuf;

use clap::Args as ClapArgs;
#[cfg(feature = "server")]
use zklora_evaluation::metric::Metric;

use super::{SrsFile, own_model::OwnModel};
#[cfg(feature = "server")]
use super::{TrustedSrs, connection::Connection};

/// The units.
#[derive(ClapArgs)]
pub struct Units {
    /// File with units: one JSON object a line, such as {"text": "…"}, {"prompt": "…",
    /// "completion": "…"} or {"prompt": "…", "choices": ["…", "…"], "answer": 0}, each with a
    /// "group" if there are several. {"group": "…", "metrics": ["accuracy"]} says what is asked of
    /// a group.
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
    /// How many units that only the adapted model cannot score the answer may list, 0 to 16.
    #[arg(long, value_name = "N", default_value_t = 2,
        value_parser = clap::value_parser!(u32).range(0..=16))]
    pub list_unscored: u32,
}

#[cfg(feature = "server")]
/// `zklora evaluate`
#[derive(ClapArgs)]
pub struct Evaluate {
    /// The offer that you pinned.
    #[arg(long, value_name = "FILE")]
    pub offer: PathBuf,
    #[command(flatten)]
    pub units: Units,
    /// Folder for the request and its answer. Run the same command again to go on after an
    /// interruption.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Have a metric of a sample of S units proven in zero knowledge: units that are drawn after
    /// the contributor signed its answer. Costs the contributor a minute for 64 tokens, and you
    /// some more bits.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub prove: Option<u32>,
    /// What is proven: log_probability (with its error), accuracy or accuracy_normalised
    /// [default: the first of them that the units ask for].
    #[arg(long, value_name = "METRIC", value_parser = provable, requires = "prove")]
    pub prove_metric: Option<Metric>,
    /// Also ask for the score of each unit, if the contributor's offer allows it.
    #[arg(long)]
    pub per_unit: bool,
    /// Also compute the values of the base model on this machine, and compare them.
    #[arg(long)]
    pub check_base: bool,
    /// A public claim of the contributor to compare with; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub claim: Vec<PathBuf>,
    /// Your memory of the units that you sent [default: sent-units.jsonl in zklora's folder below
    /// $XDG_STATE_HOME or ~/.local/state].
    #[arg(long, value_name = "FILE")]
    pub sent: Option<PathBuf>,
    #[command(flatten)]
    pub srs: TrustedSrs,
    #[command(flatten)]
    pub connection: Connection,
    #[command(flatten)]
    pub model: OwnModel,
}

/// `zklora claim`
#[derive(ClapArgs)]
pub struct Claim {
    /// Folder that `zklora compile` wrote, with private/ and an offer.
    #[arg(long, value_name = "DIR")]
    pub artifacts: PathBuf,
    /// Folder of your identity.
    #[arg(long, value_name = "DIR")]
    pub identity: PathBuf,
    #[command(flatten)]
    pub units: Units,
    /// File for the claim, to be published beside the offer and the units.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub srs: SrsFile,
    #[command(flatten)]
    pub model: OwnModel,
}

/// Reads the name of a metric that can be proven.
#[cfg(feature = "server")]
fn provable(name: &str) -> Result<Metric, String> {
    let known = Metric::PROVABLE.into_iter().find(|metric| metric.name() == name);
    known.ok_or_else(|| {
        let names = Metric::PROVABLE.map(Metric::name).join(", ");
        format!("there is no proof of it: name one of {names}")
    })
}
