//! The prover: one thread with its own pool proves the queued sessions, one after the other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use zklora_artifacts::trace_reader::TraceReader;
use zklora_files::{Access, Kind};

use super::{
    proof_queue::ProofQueue,
    session::{Session, Stage},
    state::ServerState,
};
use crate::{Error, prove};

/// Starts the thread. It ends after [`ProofQueue::stop`], when its session is proven.
pub(super) fn start(state: &Arc<ServerState>, threads: usize) -> Result<Arc<ProofQueue>, Error> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::System(format!("cannot start the threads of the prover: {e}"))
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("prove-{i}"))
        .build()
        .map_err(|e| failed(&e))?;
    let queue = Arc::new(ProofQueue::default());
    let (proof_queue, state) = (Arc::clone(&queue), Arc::clone(state));
    let thread = std::thread::Builder::new().name("prover".into()).spawn(move || {
        work(&proof_queue, &state, &pool);
        // This releases the ledger's lock, and another server may take it.
        drop(state);
        proof_queue.set_ended();
    });
    thread.map_err(|e| failed(&e))?;
    Ok(queue)
}

fn work(queue: &ProofQueue, state: &ServerState, pool: &rayon::ThreadPool) {
    let metrics = &state.sessions.row_counter.metrics;
    while let Some(job) = queue.next() {
        let session = Arc::clone(&job.session);
        let start = Instant::now();
        match attempt(queue, state, &session, pool) {
            // The server stops.
            Ok(None) => return,
            Ok(Some(stage)) => {
                let (seconds, rows) = (start.elapsed().as_secs_f64(), session.rows_in_all());
                tracing::info!(
                    session = session.name(),
                    client = session.client,
                    rows,
                    seconds,
                    "proven"
                );
                metrics.proved(seconds);
                session.set_stage(stage);
            }
            // The operator can make room on a full disk without restarting the server.
            Err(error) if error.kind().is_some_and(Kind::is_of_system) => {
                metrics.proof_failed(false);
                let delay = queue.retry(job);
                tracing::error!(
                    session = session.name(),
                    "proving failed, tried again in {} s: {error}",
                    delay.as_secs()
                );
            }
            Err(error) => {
                tracing::error!(session = session.name(), "proving failed: {error}");
                metrics.proof_failed(true);
                session.set_stage(Stage::Failed(text_for_user(&error)));
            }
        }
    }
}

/// One attempt. None: the server stops.
fn attempt(
    queue: &ProofQueue,
    state: &ServerState,
    session: &Arc<Session>,
    pool: &rayon::ThreadPool,
) -> Result<Option<Stage>, Error> {
    if !queue.begin_attempt(session)? {
        return Ok(None);
    }
    session.set_stage(Stage::Proving);
    // A panic fails this session only; the next ones are proven.
    let proven = catch_unwind(AssertUnwindSafe(|| pool.install(|| prove(state, session))));
    let _ = zklora_files::remove(&session.trace_path());
    queue.end_attempt(session);
    proven.unwrap_or_else(|_| Err(Error::Internal("the prover panicked".into()))).map(Some)
}

/// What the user is told. Paths of this machine stay in the log.
fn text_for_user(error: &Error) -> String {
    match error.proof() {
        Some(error) => error.to_string(),
        None => "this server could not prove the session: its operator finds the reason in the \
                 server's log"
            .into(),
    }
}

/// Writes the log as a trace on the disk, and proves that piece by piece: a session may be larger
/// than memory.
fn prove(state: &ServerState, session: &Session) -> Result<Stage, Error> {
    let ServerState { adapter, srs, keys, sessions } = state;
    let path = session.trace_path();
    let rows = session.write_trace(adapter, &path)?;
    let trace = TraceReader::trace(&path, &adapter.manifest)?;
    let digest = trace.digest();
    let (log, row_counter) = (session.log_path(), &sessions.row_counter);
    row_counter.record_ended(&session.id, &session.client, &log, digest, rows)?;
    let proof = row_counter
        .with_index(|index| prove::check_served(adapter, index, &trace))
        .and_then(|()| prove::prove_served(adapter, &trace, srs, keys))?;
    zklora_files::write(&session.proof_path(), &proof, Access::Public)?;
    Ok(Stage::Proven(digest))
}
