//! How a user reaches contributors: TLS, plaintext, times.

use std::{path::PathBuf, time::Duration};

use clap::Args as ClapArgs;
use zklora_session::client::ClientTls;

/// How contributors are reached.
#[derive(ClapArgs)]
pub struct Transport {
    /// The authority that signed the contributor's certificate (PEM) [default: the authorities
    /// that this machine trusts].
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Your certificate (PEM), if a contributor requires one.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Use plaintext to other machines: the network can read and change all traffic.
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

impl Transport {
    /// The TLS files.
    pub fn tls(&self) -> ClientTls {
        let identity = self.tls_cert.clone().zip(self.tls_key.clone());
        ClientTls { ca: self.tls_ca.clone(), identity }
    }

    /// How long an answer may take.
    pub fn call_timeout(&self) -> Duration {
        Duration::from_secs(u64::from(self.timeout))
    }

    /// How long calls to an unreachable contributor are retried.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(u64::from(self.patience))
    }
}
