//! `zklora completions`

use clap::Args as ClapArgs;

/// `zklora completions`
#[derive(ClapArgs)]
pub struct Completions {
    /// The shell to complete for.
    pub shell: clap_complete::Shell,
}
