//! A running server, and its shutdown.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    connections::ConnectionPool, evaluation::StopEvaluations, proof_queue::ProofQueue,
    recovery::Restored,
};
use crate::{Error, close_in_child::CloseInChild, error::causes, row_totals::RowTotals};

/// How long streams may take to end when the server shuts down. Service managers kill a process
/// after 10 s or more.
const GRACE: Duration = Duration::from_secs(5);

/// How often unidentified connections are closed meanwhile.
const CLOSE_EVERY: Duration = Duration::from_millis(50);

/// A server that listens.
pub struct Listening {
    /// The address.
    pub address: SocketAddr,
    /// The address of its metrics.
    pub metrics: Option<SocketAddr>,
    /// What it found of earlier runs.
    pub restored: Restored,
    /// The rows that were served before it started.
    pub served: RowTotals,
    pub(super) prover: StopOnDrop,
    pub(super) evaluations: Option<StopEvaluations>,
    pub(super) pool: Arc<ConnectionPool>,
    pub(super) _close_in_child: CloseInChild,
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) stop: watch::Sender<bool>,
    pub(super) server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

/// Stops the prover however a server ends, so that the attempt under way is not counted as one
/// that killed the server.
pub(super) struct StopOnDrop(pub Arc<ProofQueue>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Listening {
    /// Waits for the signal (or for the server to fail), then shuts down. Streams are ended with a
    /// status, and batches that are being computed are answered. Sessions that have ended are
    /// proven after the next start.
    pub fn run_until(self, signal: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        let Listening {
            runtime, stop, mut server, prover, evaluations, pool, _close_in_child, ..
        } = self;
        let result = runtime.block_on(async {
            tokio::select! {
                result = &mut server => return outcome(result),
                () = signal => {}
            }
            // First: if this process is killed now, the proof under way is not the reason.
            prover.0.stop();
            // What is scored so far is on the disk.
            drop(evaluations);
            let _ = stop.send(true);
            let close = async {
                loop {
                    // Repeatedly, because connections are still being accepted.
                    pool.close_unidentified("the server shuts down");
                    tokio::time::sleep(CLOSE_EVERY).await;
                }
            };
            tokio::select! {
                result = &mut server => outcome(result),
                // A client keeps its connection: it is cut.
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

fn outcome(
    result: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>,
) -> Result<(), Error> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Error::System(format!("the server failed: {}", causes(&error)))),
        Err(error) => Err(Error::Internal(format!("the server's task ended: {error}"))),
    }
}
