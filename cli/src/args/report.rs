//! `zklora report`

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// `zklora report`
#[derive(ClapArgs)]
pub struct Report {
    /// Folder with report.json.
    pub dir: PathBuf,
    /// Write a page for a browser, too: one file that loads nothing.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}
