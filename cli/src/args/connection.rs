//! How to reach one contributor.

use std::{path::PathBuf, time::Duration};

use clap::Args as ClapArgs;
use zklora_session::client::ContributorOptions;

use super::transport::Transport;

/// A contributor.
#[derive(ClapArgs)]
#[command(next_help_heading = "Contributor")]
pub struct Connection {
    /// The contributor's server, such as https://example.org:7443.
    #[arg(long, value_name = "URL")]
    pub contributor: String,
    /// File with the token that the contributor gave you.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    #[command(flatten)]
    pub transport: Transport,
}

impl Connection {
    /// The options of the connection.
    pub fn options(&self) -> ContributorOptions {
        ContributorOptions {
            url: self.contributor.trim_end_matches('/').to_string(),
            pin: None,
            token_file: self.token_file.clone(),
            tls: self.transport.tls(),
            insecure: self.transport.insecure,
            call_timeout: self.transport.call_timeout(),
            patience: self.transport.patience(),
            proof_timeout: Duration::ZERO,
            moved: false,
        }
    }
}
