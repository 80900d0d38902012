//! What to serve, where, and to whom.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use super::{identity::Tokens, limits::Limits};
use crate::Error;

const MAX_PEM: u64 = 1 << 20;

/// PEM files for TLS.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The server's certificate, with intermediate ones.
    pub certificate: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
    /// If given, clients must have a certificate of this authority.
    pub client_ca: Option<PathBuf>,
}

/// The options of a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The address to listen on. Port 0 means any free port.
    pub listen: SocketAddr,
    /// TLS; none means plaintext.
    pub tls: Option<ServerTls>,
    /// The tokens of clients; none means that no token is required.
    pub tokens: Option<Tokens>,
    /// Allow plaintext on addresses other than loopback.
    pub insecure: bool,
    /// The address of `/metrics` for Prometheus, in plaintext. Port 0 means any free port.
    pub metrics: Option<SocketAddr>,
    /// The folder of the sessions.
    pub data: PathBuf,
    /// The limits.
    pub limits: Limits,
}

impl ServerOptions {
    /// Whether the options are safe together.
    pub(super) fn check(&self) -> Result<(), Error> {
        let listen = self.listen;
        if self.tls.is_none() && !listen.ip().is_loopback() && !self.insecure {
            return Err(Error::input(format!(
                "{listen} is not a loopback address, and without TLS anyone on the network path \
                 can read activations, deltas and tokens: pass --tls-cert and --tls-key, or \
                 --insecure"
            )));
        }
        if let Some(metrics) =
            self.metrics.filter(|metrics| !metrics.ip().is_loopback() && !self.insecure)
        {
            return Err(Error::input(format!(
                "--metrics {metrics} is not a loopback address, and metrics have neither TLS nor \
                 tokens: anyone who can connect can read how many rows each client got. Put a \
                 proxy before them, or pass --insecure"
            )));
        }
        Ok(())
    }

    /// Whether the server asks for no identity, so that all clients are one.
    pub(super) fn has_single_client(&self) -> bool {
        self.tokens.is_none() && self.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none())
    }
}

impl ServerTls {
    /// Reads the files.
    pub(super) fn config(&self) -> Result<ServerTlsConfig, Error> {
        let certificate = zklora_files::read(&self.certificate, MAX_PEM)?;
        let key = zeroize::Zeroizing::new(zklora_files::read(&self.key, MAX_PEM)?);
        let mut config = ServerTlsConfig::new()
            .identity(Identity::from_pem(certificate, &key))
            .timeout(Duration::from_secs(10));
        if let Some(ca) = &self.client_ca {
            config = config.client_ca_root(Certificate::from_pem(zklora_files::read(ca, MAX_PEM)?));
        }
        Ok(config)
    }
}
