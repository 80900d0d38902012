//! `zklora srs`, and the options that choose an SRS in other commands

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

/// The SRS to use.
#[derive(ClapArgs)]
pub struct SrsFile {
    /// Ceremony file (JSON with g1_monomial and g2_monomial) [default: the built-in Ethereum KZG
    /// ceremony]. With EZKL: its SRS file, which has no default.
    #[arg(long, value_name = "FILE")]
    pub srs: Option<PathBuf>,
}

/// The SRS to use, in commands that give a verdict based on it.
#[derive(ClapArgs)]
pub struct TrustedSrs {
    #[command(flatten)]
    pub file: SrsFile,
    /// Accept an SRS file of an unknown ceremony: its maker can forge proofs.
    #[arg(long)]
    pub insecure_srs: bool,
}

/// `zklora srs`
#[derive(Subcommand)]
pub enum SrsCommand {
    /// Show the ceremony, the number of points and the digest.
    #[command(after_help = "Example: zklora srs info --srs ceremony.json")]
    Info(SrsFile),
    /// Check every point and the pairing equations.
    #[command(after_help = "Example: zklora srs verify")]
    Verify(SrsFile),
}
