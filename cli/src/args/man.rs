//! `zklora man`

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// `zklora man`
#[derive(ClapArgs)]
pub struct Man {
    /// Folder for the pages; created if it does not exist.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}
