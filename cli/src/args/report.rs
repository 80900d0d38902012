//! `zklora report`

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// `zklora report`
#[derive(ClapArgs)]
pub struct Report {
    /// Folder with report.json.
    pub dir: PathBuf,
    /// Also write an HTML page: one file without external resources.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}
