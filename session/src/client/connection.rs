//! A connection to a contributor: address, TLS, token, deadlines.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri},
};
use zklora_files::text::printable;
use zklora_proof::manifest::AdapterId;

use super::patience::{Trouble, may_pass, seconds};
use crate::{Error, error::causes, wire::contributor_client::ContributorClient};

const MAX_PEM: u64 = 1 << 20;
const MAX_TOKEN: u64 = 4096;
/// How long a connection may take, by TCP alone and with TLS.
const CONNECT: Duration = Duration::from_secs(10);
const HANDSHAKES: Duration = Duration::from_secs(20);

/// Files for TLS, PEM.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// The authority that signed the contributor's certificate; none: those that this machine
    /// trusts.
    pub ca: Option<PathBuf>,
    /// Own certificate and key, if the contributor asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How to reach a contributor, and what is known of it beforehand.
#[derive(Debug, Clone)]
pub struct ContributorOptions {
    /// `http://…` or `https://…`, with a port.
    pub url: String,
    /// The adapter id that the user pinned.
    pub pin: Option<AdapterId>,
    /// A file with the token.
    pub token_file: Option<PathBuf>,
    /// TLS files.
    pub tls: ClientTls,
    /// Allow plaintext to other addresses than loopback.
    pub insecure: bool,
    /// How long an answer may take.
    pub call_timeout: Duration,
    /// How long a contributor that has gone away is waited for.
    pub patience: Duration,
    /// How long the proof may take, with the time that it waits for others.
    pub proof_timeout: Duration,
    /// The contributor may have another URL than when the session began: whoever has the URL now
    /// gets the session's key.
    pub moved: bool,
}

/// The threads that wait for the network.
pub struct Network(tokio::runtime::Runtime);

impl Network {
    /// Starts them.
    pub fn start() -> Result<Network, Error> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Ok(Network(
            runtime.map_err(|e| {
                Error::input(format!("the network's threads cannot be started: {e}"))
            })?,
        ))
    }

    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.block_on(future)
    }
}

/// Puts the token into every request.
#[derive(Clone)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

pub(super) type Client = ContributorClient<InterceptedService<Channel, Bearer>>;

/// How connections are made: everything that can be wrong with the options was looked at.
pub(super) struct Connector {
    url: String,
    endpoint: Endpoint,
    bearer: Bearer,
    longest: Duration,
}

impl Connector {
    /// Reads the options, and the files that they name.
    ///
    /// # Errors
    /// What is wrong with them; nothing was sent to anybody.
    pub fn new(options: &ContributorOptions) -> Result<Connector, Error> {
        Ok(Connector {
            url: options.url.clone(),
            endpoint: endpoint(options)?,
            bearer: Bearer(token(options)?),
            longest: options.call_timeout.min(HANDSHAKES),
        })
    }

    /// Makes a new connection.
    pub async fn connect(&self) -> Result<Client, Trouble> {
        let channel = match tokio::time::timeout(self.longest, self.endpoint.connect()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => {
                let why = format!("cannot connect: {}", printable(&causes(&error)));
                return Err(match may_pass(&error) {
                    true => Trouble::Away(why),
                    false => Trouble::Final(Error::Contributor { url: self.url.clone(), why }),
                });
            }
            Err(_) => {
                return Err(Trouble::Away(format!(
                    "cannot connect: no connection within {}",
                    seconds(self.longest)
                )));
            }
        };
        let bearer = self.bearer.clone();
        Ok(ContributorClient::with_interceptor(channel, bearer)
            .max_encoding_message_size(usize::MAX))
    }
}

fn endpoint(options: &ContributorOptions) -> Result<Endpoint, Error> {
    let refuse = |why: String| Error::Contributor { url: options.url.clone(), why };
    let uri: Uri = options
        .url
        .parse()
        .map_err(|_| refuse("not a URL such as https://example.org:7443".into()))?;
    let endpoint = Endpoint::from(uri.clone())
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20);
    match uri.scheme_str() {
        Some("https") => {
            let mut tls = ClientTlsConfig::new();
            tls = match &options.tls.ca {
                Some(ca) => tls.ca_certificate(Certificate::from_pem(zklora_files::read(ca, MAX_PEM)?)),
                None => tls.with_native_roots(),
            };
            if let Some((certificate, key)) = &options.tls.identity {
                let key = zeroize::Zeroizing::new(zklora_files::read(key, MAX_PEM)?);
                tls = tls.identity(Identity::from_pem(zklora_files::read(certificate, MAX_PEM)?, &key));
            }
            endpoint.tls_config(tls).map_err(|e| refuse(format!("TLS: {}", causes(&e))))
        }
        Some("http") if options.insecure || is_loopback(&uri) => Ok(endpoint),
        Some("http") => Err(refuse(
            "plaintext to another machine: everybody on the way reads activations, deltas and tokens; use https, or write out \
             --insecure"
                .into(),
        )),
        _ => Err(refuse("the URL begins with neither http:// nor https://".into())),
    }
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn token(options: &ContributorOptions) -> Result<Option<MetadataValue<Ascii>>, Error> {
    let Some(path) = &options.token_file else { return Ok(None) };
    let bytes = zeroize::Zeroizing::new(zklora_files::read(path, MAX_TOKEN)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::file(path, "a token is text"))?;
    // The contributor's file has a name before the token: a line of it will do.
    let mut words = text.split_whitespace().rev();
    let token = words.next().ok_or_else(|| Error::file(path, "it holds no token"))?;
    if words.count() > 1 {
        return Err(Error::file(path, "expected one token"));
    }
    let header = zeroize::Zeroizing::new(format!("Bearer {token}"));
    let mut value: MetadataValue<Ascii> = header
        .parse()
        .map_err(|_| Error::file(path, "the token has characters that a header cannot have"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}
