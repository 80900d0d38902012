//! Starting and stopping a server.

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use zklora_artifacts::folder::Artifacts;
use zklora_proof::{keys::KeyStore, srs::Srs};

use super::{
    connections::{self, Pool},
    descriptors,
    door::{BySize, Door, SMALL_MESSAGE},
    guarded::Guarded,
    held::Held,
    identity::Tokens,
    limits::{Limits, Windows},
    memory::Memory,
    metrics::{self, Metered, MeteredStream},
    prover::{Prover, Workshop},
    service::Service,
    sessions::{Restored, Sessions},
    workers::Workers,
};
use crate::{Error, adapter::ServedAdapter, close_in_child::CloseInChild, served::Served, wire};

const MAX_PEM: u64 = 1 << 20;

/// Requests of one connection that are not answered to their end.
const STREAMS: u32 = 64;

/// Longest headers of a request, in bytes: a token has up to 512.
const MAX_HEADERS: u32 = 8 << 10;

/// Threads for work that computes or waits for the disk.
const BLOCKING: usize = 64;

/// How long a thread that waits for the disk stays without work.
const KEEP_ALIVE: Duration = Duration::from_secs(24 * 3600);

/// How long streams may take to end when the server shuts down: less than whoever stops servers
/// waits until it kills them (10 s).
const GRACE: Duration = Duration::from_secs(5);

/// How often connections that have shown no identity are closed meanwhile.
const CLOSE_EVERY: Duration = Duration::from_millis(50);

/// Files for TLS, PEM.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The server's certificate, with intermediate ones.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// If given, clients must have a certificate of this authority.
    pub client_ca: Option<PathBuf>,
}

/// What to serve, where, and to whom.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where to listen; port 0: any free one.
    pub listen: SocketAddr,
    /// TLS; none: plaintext.
    pub tls: Option<ServerTls>,
    /// Who may call; none: everybody who can connect.
    pub tokens: Option<Tokens>,
    /// Allow plaintext on other addresses than loopback.
    pub insecure: bool,
    /// Where Prometheus finds `/metrics`, in plaintext; port 0: any free one.
    pub metrics: Option<SocketAddr>,
    /// Where sessions are kept.
    pub data: PathBuf,
    /// Bounds.
    pub limits: Limits,
}

/// A server that listens.
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    /// Where its metrics are.
    pub metrics: Option<SocketAddr>,
    /// What it found of its earlier lives.
    pub restored: Restored,
    /// What was served before it started.
    pub served: Served,
    prover: StopAtEnd,
    pool: Arc<Pool>,
    _not_inherited: CloseInChild,
    runtime: tokio::runtime::Runtime,
    stop: watch::Sender<bool>,
    server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

/// Starts a server. It runs until [`Listening::run_until`] returns.
///
/// # Errors
/// [`Error::Input`] for options that do not go together, an address that cannot be used, TLS files
/// that are none; [`Error::File`] for sessions of an earlier life that are damaged.
pub fn start(
    artifacts: Artifacts,
    srs: Srs,
    keys: KeyStore,
    options: &ServerOptions,
) -> Result<Listening, Error> {
    let ServerOptions { listen, .. } = options;
    if options.tls.is_none() && !listen.ip().is_loopback() && !options.insecure {
        return Err(Error::input(format!(
            "{listen} is not a loopback address, and without TLS everybody on the way reads activations, deltas and tokens: pass \
             --tls-cert and --tls-key, or write out --insecure"
        )));
    }
    if let Some(metrics) =
        options.metrics.filter(|metrics| !metrics.ip().is_loopback() && !options.insecure)
    {
        return Err(Error::input(format!(
            "--metrics {metrics} is not a loopback address, and metrics have neither TLS nor tokens: everybody who can connect reads \
             who was served how much. Let a proxy show them, or write out --insecure"
        )));
    }
    let tls = options.tls.as_ref().map(tls_config).transpose()?;
    let (limits, windows) = options.limits.within(Memory::of_this_process());
    let limits = &limits;
    descriptors::provide(limits)?;
    let (sessions, queue, restored) = Sessions::open(&options.data, &artifacts, limits)?;
    let served = sessions.counts.served();
    let workshop =
        Arc::new(Workshop { artifacts: ServedAdapter::new(artifacts), srs, keys, sessions });
    let prover = Prover::start(&workshop, limits.proving_threads)?;
    queue.into_iter().for_each(|session| prover.enqueue(session));

    let cannot = |what: &str, e: &dyn std::fmt::Display| Error::input(format!("{what}: {e}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(KEEP_ALIVE)
        .build()
        .map_err(|e| cannot("the network's threads cannot be started", &e))?;
    // Where there is one such thread, work waits for it if the system has no room for another;
    // where there is none, the runtime panics.
    runtime
        .block_on(runtime.spawn_blocking(|| {}))
        .map_err(|e| cannot("the network's threads cannot be started", &e))?;
    let (stop, stopping) = watch::channel(false);
    let counting = Arc::clone(&workshop.sessions.counts.metrics);
    let source = metrics::Source {
        workshop: Arc::clone(&workshop),
        prover: Arc::clone(&prover),
        limits: limits.clone(),
    };
    // Everybody is one where nobody is asked who they are.
    let alone =
        options.tokens.is_none() && options.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none());
    let held = Held::new(limits, alone);
    let workers = Workers::new(BLOCKING, alone);
    let service = Service::new(
        workshop,
        Arc::clone(&prover),
        limits.clone(),
        Arc::clone(&held),
        workers,
        stopping.clone(),
    )?;
    let service = Metered::new(service, Arc::clone(&counting));
    let door = Door::new(
        options.tokens.clone(),
        held,
        Arc::clone(&counting),
        limits.max_message_bytes,
        limits.idle,
    );
    let listener = runtime
        .block_on(TcpListener::bind(listen))
        .map_err(|e| cannot(&format!("cannot listen on {listen}"), &e))?;
    let not_inherited = CloseInChild::new(&listener);
    let address = listener.local_addr().map_err(|e| cannot("the address is not known", &e))?;
    let metrics = match options.metrics {
        None => None,
        Some(metrics) => {
            let failed =
                |e: std::io::Error| cannot(&format!("cannot listen on --metrics {metrics}"), &e);
            let listener = runtime.block_on(TcpListener::bind(metrics)).map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            runtime.spawn(metrics::http::serve(listener, Arc::new(source), stopping.clone()));
            Some(address)
        }
    };
    let pool = Pool::new(limits, alone);
    let server = {
        let _entered = runtime.enter();
        let incoming = connections::accept(listener, Arc::clone(&pool), limits);
        let incoming =
            incoming.map(move |stream| stream.map(|stream| MeteredStream::new(stream, &counting)));
        let serving = serve(service, door, incoming, tls, limits, windows, stopping)?;
        runtime.spawn(serving)
    };
    let prover = StopAtEnd(prover);
    let _not_inherited = not_inherited;
    Ok(Listening {
        address,
        metrics,
        restored,
        served,
        prover,
        pool,
        _not_inherited,
        runtime,
        stop,
        server,
    })
}

/// However a server ends: the proof that is being made is not counted as one that killed it.
struct StopAtEnd(Arc<Prover>);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn serve<I>(
    service: Metered<Service>,
    door: Door,
    incoming: I,
    tls: Option<ServerTlsConfig>,
    limits: &Limits,
    windows: Windows,
    mut stopping: watch::Receiver<bool>,
) -> Result<impl Future<Output = Result<(), tonic::transport::Error>> + use<I>, Error>
where
    I: Stream<Item = std::io::Result<MeteredStream<Guarded>>> + Send + 'static,
{
    let contributor = BySize::new(service, limits.max_message_bytes);
    let (reporter, health) = tonic_health::server::health_reporter();
    let health = health.max_decoding_message_size(SMALL_MESSAGE);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| Error::input(format!("the service's description is malformed: {e}")))?
        .max_decoding_message_size(SMALL_MESSAGE);
    let mut server = Server::builder()
        .timeout(limits.idle)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .http2_max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(windows.stream)
        .initial_connection_window_size(windows.connection);
    if let Some(tls) = tls {
        server = server
            .tls_config(tls)
            .map_err(|e| Error::input(format!("TLS: {}", crate::error::causes(&e))))?;
    }
    Ok(async move {
        reporter
            .set_serving::<wire::contributor_server::ContributorServer<Metered<Service>>>()
            .await;
        let signal = async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        server
            .layer(door)
            .add_service(contributor)
            .add_service(health)
            .add_service(reflection)
            .serve_with_incoming_shutdown(incoming, signal)
            .await
    })
}

fn tls_config(tls: &ServerTls) -> Result<ServerTlsConfig, Error> {
    let certificate = zklora_files::read(&tls.certificate, MAX_PEM)?;
    let key = zeroize::Zeroizing::new(zklora_files::read(&tls.key, MAX_PEM)?);
    let mut config = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, &key))
        .timeout(Duration::from_secs(10));
    if let Some(ca) = &tls.client_ca {
        config = config.client_ca_root(Certificate::from_pem(zklora_files::read(ca, MAX_PEM)?));
    }
    Ok(config)
}

impl Listening {
    /// Waits for a signal (or for the server to fail), then shuts down: streams are told, batches
    /// that are being computed are answered. What has ended and is not proven is proven after
    /// the next start.
    pub fn run_until(self, signal: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        let Listening { runtime, stop, mut server, prover, pool, _not_inherited, .. } = self;
        let failed = |result: Result<
            Result<(), tonic::transport::Error>,
            tokio::task::JoinError,
        >| match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                Err(Error::input(format!("the server failed: {}", crate::error::causes(&error))))
            }
            Err(error) => Err(Error::input(format!("the server failed: {error}"))),
        };
        let result = runtime.block_on(async {
            tokio::select! {
                result = &mut server => return failed(result),
                () = signal => {}
            }
            // First of all: if this process is killed now, the proof that is being made is not what
            // killed it.
            prover.0.stop();
            let _ = stop.send(true);
            let close = async {
                loop {
                    // Again and again: some are being accepted.
                    pool.end_unknown("the server shuts down");
                    tokio::time::sleep(CLOSE_EVERY).await;
                }
            };
            tokio::select! {
                result = &mut server => failed(result),
                // Somebody holds on to a connection: it is cut.
                () = tokio::time::sleep(GRACE) => Ok(()),
                () = close => Ok(()),
            }
        });
        server.abort();
        runtime.shutdown_timeout(Duration::from_secs(1));
        prover.0.wait_for_end(Duration::from_secs(1));
        result
    }
}

/// The default folder of a server's sessions.
pub fn default_data(artifacts: &Path) -> PathBuf {
    artifacts.join("private").join("sessions")
}
