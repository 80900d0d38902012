//! The stream that answers Finish: the progress of a session's proof.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tonic::Status;

use super::{
    context::ServiceContext,
    session::{Session, Stage},
};
use crate::wire::{FinishResponse, ProofStage};

/// Interval of the messages to a waiting user. They tell each side that the other one is alive.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Reports the progress of a proof until it is done or has failed.
pub(super) async fn report(
    context: Arc<ServiceContext>,
    session: Arc<Session>,
    progress: mpsc::Sender<Result<FinishResponse, Status>>,
) {
    let mut stage = session.watch();
    let mut stopping = context.stopping.clone();
    loop {
        let now = stage.borrow_and_update().clone();
        let response = |stage: ProofStage, ahead, digest: &[u8]| {
            Ok(FinishResponse {
                stage: stage.into(),
                ahead,
                trace_digest: bytes::Bytes::copy_from_slice(digest),
            })
        };
        let (message, last) = match now {
            Stage::Open => (Err(Status::failed_precondition("the session has not ended")), true),
            Stage::Queued => {
                (response(ProofStage::Queued, context.proof_queue.ahead(&session), &[]), false)
            }
            Stage::Proving => (response(ProofStage::Proving, 0, &[]), false),
            Stage::Proven(digest) => (response(ProofStage::Done, 0, &digest.0), true),
            Stage::Failed(why) => (Err(Status::internal(why)), true),
        };
        if progress.send(message).await.is_err() || last {
            return;
        }
        tokio::select! {
            _ = stage.changed() => {}
            () = tokio::time::sleep(HEARTBEAT) => {}
            () = progress.closed() => return,
            _ = stopping.changed() => {}
        }
        if *stopping.borrow() {
            let why = "the server shuts down and proves the session after its restart";
            let _ = progress.send(Err(Status::unavailable(why))).await;
            return;
        }
    }
}
