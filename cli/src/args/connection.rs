//! How to reach one contributor.

use std::{path::PathBuf, time::Duration};

use clap::Args as ClapArgs;
use zklora_session::client::{ClientTls, ContributorOptions};

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
    /// The authority that signed the contributor's certificate (PEM) [default: the authorities that
    /// this machine trusts].
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Your certificate (PEM), if the contributor requires one.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Use plaintext to another machine: the network can read and change all traffic.
    #[arg(long)]
    pub insecure: bool,
    /// Seconds that an answer to a message may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
        value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub timeout: u32,
    /// Seconds to wait for a contributor that is not reachable.
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub patience: u32,
}

impl Connection {
    /// The options of the connection.
    pub fn options(&self) -> ContributorOptions {
        ContributorOptions {
            url: self.contributor.trim_end_matches('/').to_string(),
            pin: None,
            token_file: self.token_file.clone(),
            tls: ClientTls {
                ca: self.tls_ca.clone(),
                identity: self.tls_cert.clone().zip(self.tls_key.clone()),
            },
            insecure: self.insecure,
            call_timeout: Duration::from_secs(u64::from(self.timeout)),
            patience: Duration::from_secs(u64::from(self.patience)),
            proof_timeout: Duration::ZERO,
            moved: false,
        }
    }
}
