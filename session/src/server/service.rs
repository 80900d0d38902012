//! The gRPC service: the calls of `proto/contributor.proto`.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    context::{ServiceContext, find_session},
    identity::ClientName,
    infer_stream::{answer_batches, next_message},
    log_rate::LogRate,
    memory_budget::ReservedMemory,
    proof_progress,
    session::Stage,
    state::ServerState,
};
use crate::wire::{
    self, DescribeRequest, DescribeResponse, FetchProofRequest, FetchProofResponse, FinishRequest,
    FinishResponse, InferRequest, InferResponse, OpenSessionRequest, OpenSessionResponse,
    SessionState, contributor_server::Contributor, infer_request::Kind,
};

/// How long the first message of a stream may take. It names the session.
const FIRST_MESSAGE: Duration = Duration::from_secs(15);

/// Log lines about fetched proofs, which a user can cause at any rate.
static FETCHED: LogRate = LogRate::with_burst(60);

/// The service.
#[derive(Clone)]
pub(super) struct Service(Arc<ServiceContext>);

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub fn new(context: Arc<ServiceContext>) -> Service {
        Service(context)
    }
}

/// The client of a request.
pub(super) fn client<T>(request: &Request<T>) -> Result<String, Status> {
    // The middleware puts it there, or refuses the request.
    let client = request.extensions().get::<ClientName>();
    client
        .map(|client| client.0.clone())
        .ok_or_else(|| Status::internal("the request was not authenticated"))
}

#[tonic::async_trait]
impl Contributor for Service {
    async fn describe(
        &self,
        request: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        let version = request.into_inner().version;
        if version != wire::VERSION {
            return Err(Status::failed_precondition(format!(
                "you speak version {version} of the protocol, this server speaks version {}: use \
                 the same version of zklora on both sides",
                wire::VERSION
            )));
        }
        let context = &self.0;
        let rows_served = context.state.sessions.row_counter.served().most();
        let mut response =
            Response::new(DescribeResponse { rows_served, ..context.description.clone() });
        response.extensions_mut().insert(context.encoded_description.clone());
        Ok(response)
    }

    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        let client = client(&request)?;
        let request = request.into_inner();
        let served = self.0.state.adapter.manifest.id();
        if request.adapter_id[..] != served.0 {
            return Err(Status::failed_precondition(format!(
                "this server serves adapter {served}, you asked for {}: check the URL, or get the \
                 manifest again",
                hex::encode(&request.adapter_id[..request.adapter_id.len().min(32)])
            )));
        }
        let (context, name) = (Arc::clone(&self.0), client.clone());
        let opened = self.0.blocking.run(&client, move || {
            let session = context.state.sessions.open_session(
                request.session.as_ref(),
                &name,
                context.limits.rows,
            )?;
            Ok((session.stage(), session.next_sequence()))
        });
        let (stage, next_sequence) = opened.await?;
        let state = match stage {
            Stage::Open => SessionState::Open,
            Stage::Queued | Stage::Proving => SessionState::Proving,
            Stage::Proven(_) => SessionState::Proven,
            Stage::Failed(_) => SessionState::Failed,
        };
        Ok(Response::new(OpenSessionResponse { state: state.into(), next_sequence }))
    }

    type InferStream = Responses<InferResponse>;

    async fn infer(
        &self,
        request: Request<Streaming<InferRequest>>,
    ) -> Result<Response<Self::InferStream>, Status> {
        let client = client(&request)?;
        let mut incoming = request.into_inner();
        let first = next_message(&mut incoming, self.0.limits.idle.min(FIRST_MESSAGE)).await?;
        let Some(InferRequest { kind: Some(Kind::Start(start)) }) = first else {
            return Err(Status::invalid_argument(
                "the first message of a stream must be `start`, which names the session",
            ));
        };
        let session = find_session(&self.0, Some(start), &client).await?;
        // Only after the session is known: silent streams take no permits from others.
        let permit = self.0.active_sessions.acquire(&client)?;
        let (answers, outgoing) = mpsc::channel(1);
        let reserved = ReservedMemory::default();
        tokio::spawn(answer_batches(
            Arc::clone(&self.0),
            session,
            incoming,
            (answers, reserved.clone()),
            permit,
        ));
        let mut response: Response<Self::InferStream> =
            Response::new(Box::pin(ReceiverStream::new(outgoing)));
        response.extensions_mut().insert(reserved);
        Ok(response)
    }

    type FinishStream = Responses<FinishResponse>;

    async fn finish(
        &self,
        request: Request<FinishRequest>,
    ) -> Result<Response<Self::FinishStream>, Status> {
        let client = client(&request)?;
        let request = request.into_inner();
        let session = find_session(&self.0, request.session, &client).await?;
        let (context, closing, sequence) =
            (Arc::clone(&self.0), Arc::clone(&session), request.sequence);
        let ended = self.0.blocking.run(&session.client, move || {
            let ServerState { adapter, sessions, .. } = &*context.state;
            let reserve = || {
                context.proof_queue.reserve(&closing.client, context.limits.max_waiting_per_client)
            };
            if let Some(_slot) = closing.end(sequence, adapter, &sessions.row_counter, reserve)? {
                tracing::info!(
                    session = closing.name(),
                    client = closing.client,
                    rows = closing.rows_in_all(),
                    "ended"
                );
                // In this closure, which runs to its end even if the caller gives up.
                context.proof_queue.enqueue(Arc::clone(&closing));
            }
            Ok(())
        });
        ended.await?;
        let (progress, outgoing) = mpsc::channel(1);
        tokio::spawn(proof_progress::report(Arc::clone(&self.0), session, progress));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn fetch_proof(
        &self,
        request: Request<FetchProofRequest>,
    ) -> Result<Response<FetchProofResponse>, Status> {
        let client = client(&request)?;
        let session = find_session(&self.0, request.into_inner().session, &client).await?;
        match session.stage() {
            Stage::Proven(_) => {}
            Stage::Failed(why) => return Err(Status::internal(why)),
            Stage::Open => {
                return Err(Status::failed_precondition(
                    "the session has not ended, so it has no proof: call Finish first",
                ));
            }
            Stage::Queued | Stage::Proving => {
                return Err(Status::unavailable("the proof is not finished: try again later"));
            }
        }
        let name = session.name();
        let proof = self.0.blocking.run(&client, move || session.fetch_proof()).await?;
        if let Some(left_out) = FETCHED.admit() {
            tracing::info!(session = name, client, bytes = proof.len(), left_out, "proof fetched");
        }
        Ok(Response::new(FetchProofResponse { proof: proof.into() }))
    }
}
