//! `zklora audit`

use std::path::PathBuf;

use clap::Args as ClapArgs;
use zklora_proof::manifest::AdapterId;

use super::TrustedSrs;

/// `zklora audit`
#[derive(ClapArgs)]
pub struct Audit {
    /// The contributor's public folder.
    #[arg(long, value_name = "DIR")]
    pub public: PathBuf,
    /// The delivered adapter: a PEFT folder, a folder that export wrote, or a weights.bin.
    #[arg(long, value_name = "DIR|FILE")]
    pub adapter: PathBuf,
    /// The delivered opening.
    #[arg(long, value_name = "FILE")]
    pub opening: PathBuf,
    /// The adapter id that you pinned.
    #[arg(long, value_name = "HEX")]
    pub adapter_id: Option<AdapterId>,
    /// Folder of the base model: a delivered DoRA or VeRA folder needs it.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    #[command(flatten)]
    pub srs: TrustedSrs,
}
