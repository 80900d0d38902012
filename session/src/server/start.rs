//! Starting a server.

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, runtime::Runtime, sync::watch};
use tokio_stream::Stream;
use tonic::transport::{Server, ServerTlsConfig};
use zklora_artifacts::folder::Artifacts;
use zklora_evaluation::answering::Answering;
use zklora_proof::{keys::KeyStore, srs::Srs};

use super::{
    accept::accept,
    available_memory::AvailableMemory,
    blocking_pool::BlockingPool,
    connection_stream::ConnectionStream,
    connections::ConnectionPool,
    context::ServiceContext,
    evaluation::{EvaluationService, Jobs, StopEvaluations},
    file_descriptors,
    limits::{Limits, Windows},
    listening::{Listening, StopOnDrop},
    memory_budget::MemoryBudget,
    message_limits::{MAX_REQUEST, MAX_SMALL_MESSAGE, SizeLimitedService},
    metrics::{self, CountedService, MetricsPage},
    middleware::ClientLayer,
    options::{ServerOptions, ServerTls},
    prover,
    recovery::recover,
    service::Service,
    state::ServerState,
};
use crate::{
    Error, adapter::ServedAdapter, close_in_child::CloseInChild, error::causes, wire,
    wire::evaluation::evaluation_server::EvaluationServer,
};

/// Most requests of one connection at the same time.
const MAX_CONCURRENT_STREAMS: u32 = 64;

/// Longest headers of a request, in bytes. A token has up to 512.
const MAX_HEADERS: u32 = 8 << 10;

/// Threads for work that computes or waits for the disk.
const BLOCKING_THREADS: usize = 64;

/// How long an idle thread of those is kept.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(24 * 3600);

/// Starts a server. It runs until [`Listening::run_until`] returns.
///
/// # Errors
/// [`Error::Artifact`]: options that are unsafe together, an address that cannot be used, invalid
/// TLS files, or damaged sessions of earlier runs. [`Error::System`]: no threads.
pub fn start(
    artifacts: Artifacts,
    srs: Srs,
    keys: KeyStore,
    options: &ServerOptions,
) -> Result<Listening, Error> {
    start_with_evaluations(artifacts, srs, keys, options, None)
}

/// Starts a server that also answers requests for evaluations.
///
/// # Errors
/// Those of [`start`].
pub fn start_with_evaluations(
    artifacts: Artifacts,
    srs: Srs,
    keys: KeyStore,
    options: &ServerOptions,
    answering: Option<Answering>,
) -> Result<Listening, Error> {
    options.check()?;
    let tls = options.tls.as_ref().map(ServerTls::config).transpose()?;
    let (limits, windows) = options.limits.fit_to(AvailableMemory::of_this_process());
    let limits = &limits;
    file_descriptors::raise_limit(limits)?;
    let (sessions, to_prove, restored) = recover(&options.data, &artifacts, limits)?;
    let served = sessions.row_counter.served();
    let state =
        Arc::new(ServerState { adapter: ServedAdapter::new(artifacts), srs, keys, sessions });
    let proof_queue = prover::start(&state, limits.proving_threads)?;
    to_prove.into_iter().for_each(|session| proof_queue.enqueue(session));

    let runtime = start_runtime()?;
    let (stop, stopping) = watch::channel(false);
    let evaluations = answering.map(Jobs::start).transpose()?;
    let counters = Arc::clone(&state.sessions.row_counter.metrics);
    let page = MetricsPage {
        state: Arc::clone(&state),
        proof_queue: Arc::clone(&proof_queue),
        limits: limits.clone(),
        evaluations: evaluations.clone(),
    };
    let single_client = options.has_single_client();
    let memory = MemoryBudget::new(limits, single_client);
    let context = ServiceContext::new(
        state,
        Arc::clone(&proof_queue),
        limits.clone(),
        Arc::clone(&memory),
        BlockingPool::new(BLOCKING_THREADS, single_client),
        stopping.clone(),
    )?;
    let context = Arc::new(context);
    let evaluation = EvaluationService::new(Arc::clone(&context), evaluations.clone())?;
    let service = CountedService::new(Service::new(context), Arc::clone(&counters));
    let layer = ClientLayer::new(
        options.tokens.clone(),
        memory,
        Arc::clone(&counters),
        limits.max_message_bytes,
        limits.idle,
    );
    let cannot_listen =
        |on: String| move |e: std::io::Error| Error::input(format!("cannot listen on {on}: {e}"));
    let failed = cannot_listen(options.listen.to_string());
    let listener = runtime.block_on(TcpListener::bind(options.listen)).map_err(&failed)?;
    let close_in_child = CloseInChild::new(&listener);
    let address = listener.local_addr().map_err(failed)?;
    let metrics = match options.metrics {
        None => None,
        Some(metrics) => {
            let failed = cannot_listen(format!("--metrics {metrics}"));
            let listener = runtime.block_on(TcpListener::bind(metrics)).map_err(&failed)?;
            let address = listener.local_addr().map_err(failed)?;
            runtime.spawn(metrics::http::serve(listener, Arc::new(page), stopping.clone()));
            Some(address)
        }
    };
    let pool = ConnectionPool::new(limits, single_client);
    let server = {
        let _entered = runtime.enter();
        let incoming = accept(listener, Arc::clone(&pool), counters, limits);
        let services = (service, evaluation);
        runtime.spawn(serve(services, layer, incoming, tls, limits, windows, stopping)?)
    };
    Ok(Listening {
        address,
        metrics,
        restored,
        served,
        prover: StopOnDrop(proof_queue),
        evaluations: evaluations.map(StopEvaluations),
        pool,
        _close_in_child: close_in_child,
        runtime,
        stop,
        server,
    })
}

fn start_runtime() -> Result<Runtime, Error> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::System(format!("cannot start the threads of the network: {e}"))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .build()
        .map_err(|e| failed(&e))?;
    // If the system refuses further threads, work waits for this one. With no thread at all, the
    // runtime panics.
    runtime.block_on(runtime.spawn_blocking(|| {})).map_err(|e| failed(&e))?;
    Ok(runtime)
}

fn serve<I>(
    (service, evaluation): (CountedService<Service>, EvaluationService),
    layer: ClientLayer,
    incoming: I,
    tls: Option<ServerTlsConfig>,
    limits: &Limits,
    windows: Windows,
    mut stopping: watch::Receiver<bool>,
) -> Result<impl Future<Output = Result<(), tonic::transport::Error>> + use<I>, Error>
where
    I: Stream<Item = std::io::Result<ConnectionStream>> + Send + 'static,
{
    let contributor = SizeLimitedService::new(service, limits.max_message_bytes);
    let evaluation = EvaluationServer::new(evaluation).max_decoding_message_size(MAX_REQUEST);
    let (reporter, health) = tonic_health::server::health_reporter();
    let health = health.max_decoding_message_size(MAX_SMALL_MESSAGE);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| Error::Internal(format!("the descriptors of the service are malformed: {e}")))?
        .max_decoding_message_size(MAX_SMALL_MESSAGE);
    let mut server = Server::builder()
        .timeout(limits.idle)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .http2_max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .initial_stream_window_size(windows.stream)
        .initial_connection_window_size(windows.connection);
    if let Some(tls) = tls {
        server =
            server.tls_config(tls).map_err(|e| Error::input(format!("TLS: {}", causes(&e))))?;
    }
    Ok(async move {
        reporter
            .set_serving::<wire::contributor_server::ContributorServer<CountedService<Service>>>()
            .await;
        let signal = async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        server
            .layer(layer)
            .add_service(contributor)
            .add_service(evaluation)
            .add_service(health)
            .add_service(reflection)
            .serve_with_incoming_shutdown(incoming, signal)
            .await
    })
}
