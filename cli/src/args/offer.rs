//! `zklora offer`

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

#[cfg(feature = "server")]
use super::connection::Connection;
use super::{SrsFile, TrustedSrs, own_model::OwnModel};

/// `zklora offer`
#[derive(Subcommand)]
pub enum OfferCommand {
    /// Sign what you offer: adapter, integer model, limits, budget. Contributors publish the file.
    #[command(after_help = "Example: zklora offer make --artifacts artifacts --identity identity \
--base model.onnx --model integer --contact 'Example Ltd, https://example.org'\n\n\
The identity is a folder that only you have: your signing key, and the ledger of the bits that \
answers told of your adapters. It is made by the first offer. Back it up; an old backup forgets what \
was spent.")]
    Make(OfferMake),
    #[cfg(feature = "server")]
    /// Get the offer that a contributor makes now.
    #[command(after_help = "Example: zklora offer fetch --contributor https://example.org:7443 \
--out offer.json\n\n\
Compare the key with one that you know from elsewhere: anybody can sign an offer for anybody's \
adapter id.")]
    Fetch(OfferFetch),
    /// Show a signed offer, and with an identity what is spent.
    #[command(after_help = "Example: zklora offer show artifacts/public/offer.json")]
    Show(OfferShow),
    /// Replace the signing key. The old key signs the new one, and is destroyed.
    #[command(after_help = "Example: zklora offer rotate --identity identity\n\n\
Deliver first what you have answered: a delivery is signed by the key of its offer. Then make your \
offers again.")]
    Rotate(OfferRotate),
}

/// `zklora offer make`
#[derive(ClapArgs)]
pub struct OfferMake {
    /// Folder that `zklora compile` wrote, with private/. The offer is written into its public/.
    #[arg(long, value_name = "DIR")]
    pub artifacts: PathBuf,
    /// Folder of your identity; it is made if there is none.
    #[arg(long, value_name = "DIR")]
    pub identity: PathBuf,
    /// The adapter and its recompilations, which share one budget. Adapters that were trained on
    /// the same data belong together [default: the lineage that has the adapter; `adapter` for the
    /// first one of an identity].
    #[arg(long, value_name = "NAME")]
    pub lineage: Option<String>,
    /// Who you are, for people: a name, an address, an escrow account.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub contact: String,
    /// Bits that all answers together may tell of the adapter. About 8,000 were enough for most of
    /// an adapter's gain in one measurement; a mean costs 17, an accuracy of 1,000 questions 19.
    #[arg(long, value_name = "BITS", default_value_t = 2048)]
    pub bits: u64,
    /// Bits for one client: one token or certificate [default: a quarter of --bits].
    #[arg(long, value_name = "BITS")]
    pub bits_per_client: Option<u64>,
    /// Also answer requests for scores of single units. They cost the same budget, and about 17
    /// bits each: a few hundred give most of an adapter's gain away.
    #[arg(long)]
    pub per_unit: bool,
    /// Most units of a request.
    #[arg(long, value_name = "N", default_value_t = 131_072,
        value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub max_units: u32,
    /// Most tokens of a request.
    #[arg(long, value_name = "N", default_value_t = 8_388_608,
        value_parser = clap::value_parser!(u32).range(2..=2_147_483_648))]
    pub max_tokens: u32,
    /// Most tokens of a sequence [default: those of the integer model].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1_048_576))]
    pub max_unit_tokens: Option<u32>,
    #[command(flatten)]
    pub srs: SrsFile,
    #[command(flatten)]
    pub model: OwnModel,
}

#[cfg(feature = "server")]
/// `zklora offer fetch`
#[derive(ClapArgs)]
pub struct OfferFetch {
    /// File for the offer.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// An earlier offer of this contributor: the new one must continue its key.
    #[arg(long, value_name = "FILE")]
    pub after: Option<PathBuf>,
    /// Your memory of sent units, which keeps when you first saw the adapter [default:
    /// sent-units.jsonl in zklora's folder below $XDG_STATE_HOME or ~/.local/state].
    #[arg(long, value_name = "FILE")]
    pub sent: Option<PathBuf>,
    #[command(flatten)]
    pub connection: Connection,
}

/// `zklora offer show`
#[derive(ClapArgs)]
pub struct OfferShow {
    /// The offer.
    #[arg(value_name = "FILE")]
    pub offer: PathBuf,
    /// Folder of your identity: show what is spent.
    #[arg(long, value_name = "DIR")]
    pub identity: Option<PathBuf>,
    /// An earlier offer of this contributor: this one must continue its key.
    #[arg(long, value_name = "FILE")]
    pub after: Option<PathBuf>,
    #[command(flatten)]
    pub srs: TrustedSrs,
}

/// `zklora offer rotate`
#[derive(ClapArgs)]
pub struct OfferRotate {
    /// Folder of your identity.
    #[arg(long, value_name = "DIR")]
    pub identity: PathBuf,
}
