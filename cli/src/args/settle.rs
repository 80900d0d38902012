//! `zklora deliver`, `zklora settle` and `zklora verify-sample`

use std::path::PathBuf;

use clap::Args as ClapArgs;
use zklora_evaluation::digest::Digest;

use super::{SrsFile, TrustedSrs, own_model::OwnModel};

/// `zklora deliver`
#[derive(ClapArgs)]
pub struct Deliver {
    /// Folder that `zklora compile` wrote, with private/ and an offer.
    #[arg(long, value_name = "DIR")]
    pub artifacts: PathBuf,
    /// Folder of your identity.
    #[arg(long, value_name = "DIR")]
    pub identity: PathBuf,
    /// The adapter: its PEFT folder, or a folder that `zklora export` wrote.
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// The request whose answer the buyer pays for, as `evaluate` printed it.
    #[arg(long, value_name = "DIGEST")]
    pub request: Digest,
    /// The price, for people.
    #[arg(long, value_name = "TEXT")]
    pub price: String,
    /// Until when you hand over the key for the price, for people.
    #[arg(long, value_name = "TEXT")]
    pub key_by: String,
    /// Until when the buyer settles, for people. An escrow that refunds keeps the money until then.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub verdict_by: String,
    /// Folder for delivery.age and delivery.json, which the buyer gets before payment.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub srs: SrsFile,
}

/// `zklora settle`
#[derive(ClapArgs)]
pub struct Settle {
    /// Folder that `evaluate` wrote.
    #[arg(value_name = "DIR", required_unless_present = "evidence", conflicts_with = "evidence")]
    pub dir: Option<PathBuf>,
    /// Folder with delivery.age and delivery.json, which are copied into yours [default: they are
    /// there already].
    #[arg(long, value_name = "DIR", conflicts_with = "evidence")]
    pub delivery: Option<PathBuf>,
    /// File with the key that you paid for. Without it, what can be checked before payment is
    /// checked.
    #[arg(long, value_name = "FILE", conflicts_with = "evidence")]
    pub key: Option<PathBuf>,
    /// New folder for the delivered adapter.
    #[arg(long, value_name = "DIR", conflicts_with = "evidence", requires = "key")]
    pub adapter_out: Option<PathBuf>,
    /// Judge evidence as a third party.
    #[arg(long, value_name = "FILE")]
    pub evidence: Option<PathBuf>,
    /// The key that the contributor is known by.
    #[arg(long, value_name = "KEY")]
    pub signer: Option<Digest>,
    #[command(flatten)]
    pub srs: TrustedSrs,
    #[command(flatten)]
    pub model: OwnModel,
}

/// `zklora verify-sample`
#[derive(ClapArgs)]
pub struct VerifySample {
    /// Folder that `evaluate --prove` wrote, yours or somebody else's.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The key that the contributor is known by.
    #[arg(long, value_name = "KEY")]
    pub signer: Option<Digest>,
    #[command(flatten)]
    pub srs: TrustedSrs,
    #[command(flatten)]
    pub model: OwnModel,
}
