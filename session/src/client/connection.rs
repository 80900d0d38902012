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

use super::retry::{CallError, is_transient, seconds};
use crate::{Error, error::causes, wire::contributor_client::ContributorClient};

const MAX_PEM: u64 = 1 << 20;
const MAX_TOKEN: u64 = 4096;
/// How long a connection may take: TCP alone, and with TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// PEM files for TLS.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// The authority that signed the contributor's certificate; none means the authorities that
    /// this machine trusts.
    pub ca: Option<PathBuf>,
    /// The user's certificate and key, if the contributor requires one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How to reach a contributor, and what the user knows of it.
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
    /// Allow plaintext to addresses other than loopback.
    pub insecure: bool,
    /// How long an answer may take.
    pub call_timeout: Duration,
    /// How long calls to an unreachable contributor are retried.
    pub patience: Duration,
    /// How long the proof may take, including its time in the queue.
    pub proof_timeout: Duration,
    /// Resume a session although the URL of the contributor has changed. The server at the new URL
    /// gets the session key.
    pub moved: bool,
}

/// The threads of the network.
pub struct Network(tokio::runtime::Runtime);

impl Network {
    /// Starts them.
    pub fn start() -> Result<Network, Error> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Ok(Network(
            runtime.map_err(|e| {
                Error::System(format!("cannot start the threads of the network: {e}"))
            })?,
        ))
    }

    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.block_on(future)
    }

    /// Starts a task.
    pub(super) fn spawn(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::AbortHandle {
        self.0.spawn(task).abort_handle()
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

/// A connection whose requests have the token.
pub(super) type AuthorisedChannel = InterceptedService<Channel, Bearer>;

pub(super) type Client = ContributorClient<AuthorisedChannel>;

/// Makes connections, from options that were checked.
pub(super) struct Connector {
    url: String,
    endpoint: Endpoint,
    bearer: Bearer,
    timeout: Duration,
}

impl Connector {
    /// Reads the options, and the files that they name.
    ///
    /// # Errors
    /// An option or a file is invalid. Nothing was sent.
    pub fn new(options: &ContributorOptions) -> Result<Connector, Error> {
        Ok(Connector {
            url: options.url.clone(),
            endpoint: endpoint(options)?,
            bearer: Bearer(token(options)?),
            timeout: options.call_timeout.min(HANDSHAKE_TIMEOUT),
        })
    }

    /// Makes a new connection, for rows.
    pub async fn connect(&self) -> Result<Client, CallError> {
        let client = ContributorClient::new(self.channel().await?);
        Ok(client.max_encoding_message_size(usize::MAX))
    }

    /// Makes a new connection.
    pub async fn channel(&self) -> Result<AuthorisedChannel, CallError> {
        let channel = match tokio::time::timeout(self.timeout, self.endpoint.connect()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => {
                let why = format!("cannot connect: {}", printable(&causes(&error)));
                return Err(match is_transient(&error) {
                    true => CallError::Unreachable(why),
                    false => {
                        CallError::Permanent(Error::Contributor { url: self.url.clone(), why })
                    }
                });
            }
            Err(_) => {
                return Err(CallError::Unreachable(format!(
                    "cannot connect: no connection within {}",
                    seconds(self.timeout)
                )));
            }
        };
        Ok(InterceptedService::new(channel, self.bearer.clone()))
    }
}

fn endpoint(options: &ContributorOptions) -> Result<Endpoint, Error> {
    let refuse = |why: String| Error::Contributor { url: options.url.clone(), why };
    let uri: Uri = options
        .url
        .parse()
        .map_err(|_| refuse("not a URL such as https://example.org:7443".into()))?;
    let endpoint = Endpoint::from(uri.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20);
    match uri.scheme_str() {
        Some("https") => {
            let mut tls = ClientTlsConfig::new();
            tls = match &options.tls.ca {
                Some(ca) => {
                    tls.ca_certificate(Certificate::from_pem(zklora_files::read(ca, MAX_PEM)?))
                }
                None => tls.with_native_roots(),
            };
            if let Some((certificate, key)) = &options.tls.identity {
                let key = zeroize::Zeroizing::new(zklora_files::read(key, MAX_PEM)?);
                tls = tls
                    .identity(Identity::from_pem(zklora_files::read(certificate, MAX_PEM)?, &key));
            }
            endpoint.tls_config(tls).map_err(|e| refuse(format!("TLS: {}", causes(&e))))
        }
        Some("http") if options.insecure || is_loopback(&uri) => Ok(endpoint),
        Some("http") => Err(refuse(
            "plaintext to another machine: anyone on the network path can read activations, \
             deltas and tokens; use https, or pass --insecure"
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
    // A line of the contributor's token file, which has a name before the token, is accepted.
    let mut words = text.split_whitespace().rev();
    let token = words.next().ok_or_else(|| Error::file(path, "it holds no token"))?;
    if words.count() > 1 {
        return Err(Error::file(path, "expected one token"));
    }
    let header = zeroize::Zeroizing::new(format!("Bearer {token}"));
    let mut value: MetadataValue<Ascii> = header
        .parse()
        .map_err(|_| Error::file(path, "the token has characters that a header cannot contain"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}
