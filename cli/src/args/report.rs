//! `zklora report`

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// `zklora report`
#[derive(ClapArgs)]
pub struct Report {
    /// Folder that `evaluate` or `infer` wrote.
    pub dir: PathBuf,
    /// Also write an HTML page: one file without external resources.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}
