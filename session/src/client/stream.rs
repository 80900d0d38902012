//! A stream of batches and answers, and calls with a deadline.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::connection::Client;
use crate::wire::{InferRequest, InferResponse, SessionRef, infer_request::Kind};

/// An open stream of batches.
pub(super) struct Stream {
    batches: mpsc::Sender<InferRequest>,
    answers: Streaming<InferResponse>,
}

impl Stream {
    /// Starts a stream of this session.
    pub async fn start(
        mut client: Client,
        session: SessionRef,
        timeout: Duration,
    ) -> Result<Stream, Status> {
        let (batches, outgoing) = mpsc::channel(1);
        // The channel is empty, so this does not fail.
        let _ = batches.try_send(InferRequest { kind: Some(Kind::Start(session)) });
        let answers = with_timeout(timeout, client.infer(ReceiverStream::new(outgoing))).await?;
        Ok(Stream { batches, answers: answers.into_inner() })
    }

    /// Sends a batch and receives its answer.
    pub async fn call(
        &mut self,
        request: InferRequest,
        timeout: Duration,
    ) -> Result<InferResponse, Status> {
        with_timeout(timeout, async {
            if self.batches.send(request).await.is_err() {
                // The receiving side says why the stream ended.
                return match self.answers.message().await {
                    Err(status) => Err(status),
                    Ok(_) => Err(Status::unavailable("it ended the stream")),
                };
            }
            let answer = self.answers.message().await?;
            answer.ok_or_else(|| Status::unavailable("it ended the stream"))
        })
        .await
    }
}

/// The result of a request, or `DEADLINE_EXCEEDED`.
pub(super) async fn with_timeout<T>(
    timeout: Duration,
    request: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::time::timeout(timeout, request).await.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(format!("no answer within {} s", timeout.as_secs_f64())))
    })
}
