//! Proofs beside inference: one thread with a pool of its own, one session after the other.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
    mpsc,
};

use zklora_circuit::{keys::KeyStore, srs::Srs};

use super::{
    session::{Session, Stage},
    sessions::Sessions,
};
use crate::{
    Error,
    artifacts::Artifacts,
    files::{self, Access},
    record, session as proofs,
};

/// What proofs are made of.
pub(super) struct Workshop {
    pub artifacts: Artifacts,
    pub srs: Srs,
    pub keys: KeyStore,
    pub sessions: Sessions,
}

/// The queue of sessions that wait for their proof.
pub(super) struct Prover {
    queue: mpsc::Sender<Arc<Session>>,
    queued: AtomicU64,
    done: Arc<AtomicU64>,
}

impl Prover {
    /// Starts the thread. It ends when the queue is dropped and its session is proven.
    pub fn start(workshop: &Arc<Workshop>, threads: usize) -> Result<Prover, Error> {
        let failed = |e: &dyn std::fmt::Display| Error::Input(format!("the prover's threads cannot be started: {e}"));
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("prove-{i}"))
            .build()
            .map_err(|e| failed(&e))?;
        let (queue, waiting) = mpsc::channel::<Arc<Session>>();
        let done = Arc::new(AtomicU64::new(0));
        let (workshop, finished) = (Arc::clone(workshop), Arc::clone(&done));
        std::thread::Builder::new()
            .name("prover".into())
            .spawn(move || {
                for session in waiting {
                    session.set_stage(Stage::Proving);
                    let start = std::time::Instant::now();
                    // Whatever goes wrong with one session, the next ones are proven.
                    let attempt = || pool.install(|| prove(&workshop, &session));
                    let proven = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt));
                    match proven.unwrap_or_else(|_| Err(Error::Input("the prover panicked".into()))) {
                        Ok(stage) => {
                            tracing::info!(session = session.name(), seconds = start.elapsed().as_secs_f64(), "proven");
                            session.set_stage(stage);
                        }
                        Err(error) => {
                            tracing::error!(session = session.name(), "proving failed: {error}");
                            session.set_stage(Stage::Failed(shown(&error)));
                        }
                    }
                    finished.fetch_add(1, Ordering::Relaxed);
                }
            })
            .map_err(|e| failed(&e))?;
        Ok(Prover { queue, queued: AtomicU64::new(0), done })
    }

    /// Puts a session that has ended at the end of the queue.
    pub fn enqueue(&self, session: Arc<Session>) {
        session.set_stage(Stage::Queued(self.queued.fetch_add(1, Ordering::Relaxed)));
        // The thread lives as long as this value.
        let _ = self.queue.send(session);
    }

    /// Sessions before the one that has this place.
    pub fn ahead(&self, place: u64) -> u32 {
        u32::try_from(place.saturating_sub(self.done.load(Ordering::Relaxed))).unwrap_or(u32::MAX)
    }
}

/// What the user is told: paths and the like stay here.
fn shown(error: &Error) -> String {
    match error {
        Error::Proof(error) => error.to_string(),
        _ => "this server could not prove the session: its operator finds the reason in the server's log".into(),
    }
}

fn prove(workshop: &Workshop, session: &Session) -> Result<Stage, Error> {
    let artifacts = &workshop.artifacts;
    let trace = session.trace(artifacts)?;
    trace.with_trace(&artifacts.pinned, |rows| {
        let client = Some(session.client.clone());
        workshop.sessions.counts.ended(record::entry(&artifacts.pinned, &trace, client, rows.digest()))?;
        let proof = proofs::prove(artifacts, rows, &workshop.srs, &workshop.keys)?;
        files::write(&session.proof_path(), &proof, Access::Public)?;
        Ok(Stage::Proven(rows.digest()))
    })
}
