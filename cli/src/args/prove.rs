//! `zklora prove`

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{SrsFile, ezkl};

/// `zklora prove`
#[derive(ClapArgs)]
pub struct Prove {
    /// Folder that compile wrote.
    #[arg(long, value_name = "DIR")]
    pub artifacts: PathBuf,
    /// The trace of the session.
    #[arg(long, value_name = "FILE")]
    pub trace: PathBuf,
    /// File for the proof; with EZKL a folder, for one proof per row.
    #[arg(long, value_name = "FILE.pf")]
    pub out: PathBuf,
    #[command(flatten)]
    pub srs: SrsFile,
    #[command(flatten)]
    pub insecure: ezkl::InsecureDevSrs,
    #[command(flatten)]
    pub python: ezkl::Interpreter,
}
