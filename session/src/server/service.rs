//! The gRPC service: requests to sessions, sessions to answers. What may be asked is in
//! `proto/contributor.proto`.

use std::{pin::Pin, sync::Arc, time::Duration};

use prost::Message;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    answers::{Common, PREFIX},
    held::{Held, Hold, Room},
    limits::Limits,
    log_rate::LogRate,
    places::{Place, Places},
    prover::{Prover, Workshop},
    session::{Session, Stage, superseded},
    workers::Workers,
};
use crate::wire::{
    self, Batch, DescribeRequest, DescribeResponse, FetchProofRequest, FetchProofResponse,
    FinishRequest, FinishResponse, InferRequest, InferResponse, OpenSessionRequest,
    OpenSessionResponse, ProofStage, SessionRef, SessionState, contributor_server::Contributor,
    infer_request::Kind,
};

/// How long a stream may take to say which session it is of.
const FIRST: Duration = Duration::from_secs(15);

/// Lines that a user can cause as often as it likes.
static ENDED: LogRate = LogRate::bursts(BURST);
static FETCHED: LogRate = LogRate::bursts(BURST);
const BURST: u64 = 60;

/// The name of the caller, put into each request at the door.
#[derive(Debug, Clone)]
pub(super) struct Client(pub String);

/// The service.
#[derive(Clone)]
pub(super) struct Service(Arc<Shared>);

struct Shared {
    workshop: Arc<Workshop>,
    prover: Arc<Prover>,
    limits: Limits,
    /// What Describe says, but for the rows served: all answers share its bytes.
    description: DescribeResponse,
    described: Common,
    /// What requests and answers take.
    held: Arc<Held>,
    /// Places for sessions that exchange batches.
    places: Places,
    /// Batches that are computed at the same time.
    computing: Semaphore,
    /// Threads for what computes or waits for the disk.
    workers: Workers,
    /// True once the server shuts down.
    stopping: watch::Receiver<bool>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub fn new(
        workshop: Arc<Workshop>,
        prover: Arc<Prover>,
        limits: Limits,
        held: Arc<Held>,
        workers: Workers,
        stopping: watch::Receiver<bool>,
    ) -> Result<Service, crate::Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let manifest = &workshop.artifacts.manifest;
        let description = DescribeResponse {
            version: wire::VERSION,
            manifest: manifest.contents().to_bytes()?.into(),
            settings: manifest.settings().to_bytes()?.into(),
            limits: Some(limits.to_wire()),
            // The last field: what comes before it is the same in every answer.
            rows_served: 0,
        };
        Ok(Service(Arc::new(Shared {
            described: Common(description.encode_to_vec().into()),
            description,
            held,
            places: Places::new(&limits),
            computing: Semaphore::new(cores),
            workers,
            prover,
            limits,
            workshop,
            stopping,
        })))
    }
}

fn client<T>(request: &Request<T>) -> Result<String, Status> {
    // It is put there at the door, or the request is refused.
    let client = request.extensions().get::<Client>();
    client
        .map(|client| client.0.clone())
        .ok_or_else(|| Status::unauthenticated("the caller is not known"))
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
                "you speak version {version} of the protocol, this server version {}: use the same version of zklora on both sides",
                wire::VERSION
            )));
        }
        let shared = &self.0;
        let rows_served = shared.workshop.sessions.counts.served().most();
        let mut response =
            Response::new(DescribeResponse { rows_served, ..shared.description.clone() });
        response.extensions_mut().insert(shared.described.clone());
        Ok(response)
    }

    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        let client = client(&request)?;
        let request = request.into_inner();
        let own = self.0.workshop.artifacts.manifest.id();
        if request.adapter_id[..] != own.0 {
            return Err(Status::failed_precondition(format!(
                "this server serves adapter {own}, you asked for {}: check the URL, or get the manifest again",
                hex::encode(&request.adapter_id[..request.adapter_id.len().min(32)])
            )));
        }
        let (shared, own) = (Arc::clone(&self.0), client.clone());
        let opened = self.0.workers.run(&client, move || {
            let session = shared.workshop.sessions.open_session(request.session.as_ref(), &own)?;
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
        let first = next(&mut incoming, self.0.limits.idle.min(FIRST)).await?;
        let Some(InferRequest { kind: Some(Kind::Start(start)) }) = first else {
            return Err(Status::invalid_argument(
                "the first message of a stream names its session",
            ));
        };
        let session = find(&self.0, Some(start), &client).await?;
        // Not before it is known whose session it is: streams that say nothing keep no places from
        // others.
        let place = self.0.places.take(&client)?;
        let (answers, outgoing) = mpsc::channel(1);
        let room = Room::default();
        tokio::spawn(exchange(
            Arc::clone(&self.0),
            session,
            incoming,
            (answers, room.clone()),
            place,
        ));
        let mut response: Response<Self::InferStream> =
            Response::new(Box::pin(ReceiverStream::new(outgoing)));
        response.extensions_mut().insert(room);
        Ok(response)
    }

    type FinishStream = Responses<FinishResponse>;

    async fn finish(
        &self,
        request: Request<FinishRequest>,
    ) -> Result<Response<Self::FinishStream>, Status> {
        let client = client(&request)?;
        let request = request.into_inner();
        let session = find(&self.0, request.session, &client).await?;
        let (shared, own, sequence) = (Arc::clone(&self.0), Arc::clone(&session), request.sequence);
        let ended = self.0.workers.run(&session.client, move || {
            let Workshop { artifacts, sessions, .. } = &*shared.workshop;
            let may_wait =
                || shared.prover.promise(&own.client, shared.limits.max_waiting_per_client);
            if let Some(_place) = own.end(sequence, artifacts, &sessions.counts, may_wait)? {
                tracing::info!(
                    session = own.name(),
                    client = own.client,
                    rows = own.rows_in_all(),
                    "ended"
                );
                // Here, not after the wait: a caller that gives up ends that, and nobody else would
                // queue the session.
                shared.prover.enqueue(Arc::clone(&own));
            }
            Ok(())
        });
        ended.await?;
        let (progress, outgoing) = mpsc::channel(1);
        tokio::spawn(report(Arc::clone(&self.0), session, progress));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn fetch_proof(
        &self,
        request: Request<FetchProofRequest>,
    ) -> Result<Response<FetchProofResponse>, Status> {
        let client = client(&request)?;
        let session = find(&self.0, request.into_inner().session, &client).await?;
        match session.stage() {
            Stage::Proven(_) => {}
            Stage::Failed(why) => return Err(Status::internal(why)),
            Stage::Open => {
                return Err(Status::failed_precondition(
                    "the session has not ended: there is no proof of it",
                ));
            }
            Stage::Queued | Stage::Proving => {
                return Err(Status::unavailable("the proof is not finished: try again later"));
            }
        }
        let name = session.name();
        let proof = self.0.workers.run(&client, move || session.proof()).await?;
        if let Some(left_out) = FETCHED.admit() {
            tracing::info!(session = name, client, bytes = proof.len(), left_out, "proof fetched");
        }
        Ok(Response::new(FetchProofResponse { proof: proof.into() }))
    }
}

/// The caller's session: it may have to be taken up from the disk.
async fn find(
    shared: &Arc<Shared>,
    session: Option<SessionRef>,
    client: &str,
) -> Result<Arc<Session>, Status> {
    let (own, name) = (Arc::clone(shared), client.to_string());
    shared.workers.run(client, move || own.workshop.sessions.find(session.as_ref(), &name)).await
}

/// The next message, if the whole of it is here in time.
async fn next(
    incoming: &mut Streaming<InferRequest>,
    idle: Duration,
) -> Result<Option<InferRequest>, Status> {
    match tokio::time::timeout(idle, incoming.message()).await {
        Ok(message) => message,
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no whole message in {} s: the stream ends here, the session does not; open it again to go on",
            idle.as_secs_f64()
        ))),
    }
}

/// Answers the batches of one stream until it ends.
async fn exchange(
    shared: Arc<Shared>,
    session: Arc<Session>,
    mut incoming: Streaming<InferRequest>,
    (answers, room): (mpsc::Sender<Result<InferResponse, Status>>, Room),
    place: Place,
) {
    let (number, mut newest) = session.take_over();
    let mut stopping = shared.stopping.clone();
    let why = loop {
        let message = tokio::select! {
            message = next(&mut incoming, shared.limits.idle) => message,
            _ = newest.wait_for(|newest| *newest != number) => Err(superseded()),
            _ = stopping.wait_for(|stopping| *stopping) =>
                Err(Status::unavailable("the server shuts down: open the session again when it is back")),
        };
        let answer = match message {
            Ok(None) => break None,
            Ok(Some(InferRequest { kind: Some(Kind::Batch(batch)) })) => {
                compute(&shared, &session, number, batch).await
            }
            Ok(Some(_)) => Err(Status::invalid_argument(
                "after the first message of a stream only batches are expected",
            )),
            Err(status) => Err(status),
        };
        let answer = match answer {
            Ok((answer, mut held)) => {
                held.shrink(PREFIX + answer.encoded_len());
                room.put(held);
                answer
            }
            Err(status) => break Some(status),
        };
        // A user that does not read its answers holds one place and no more, and not for ever.
        match tokio::time::timeout(shared.limits.idle, answers.send(Ok(answer))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break None,
            Err(_) => {
                break Some(Status::deadline_exceeded(
                    "answers were not read: the stream ends here",
                ));
            }
        }
    };
    // Before its user hears of the end, and comes again.
    drop(place);
    if let Some(status) = why {
        if let Some(left_out) = ENDED.admit() {
            let (name, code) = (session.name(), status.code());
            tracing::info!(
                session = name,
                client = session.client,
                ?code,
                left_out,
                "{}",
                status.message()
            );
        }
        let _ = tokio::time::timeout(shared.limits.idle, answers.send(Err(status))).await;
    }
    let client = session.client.clone();
    let leave = move || {
        session.leave(number);
        Ok(())
    };
    let _ = shared.workers.run(&client, leave).await;
}

async fn compute(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    stream: u64,
    batch: Batch,
) -> Result<(InferResponse, Hold), Status> {
    // Before it is computed: a user who does not read its answers waits here for room, and keeps no
    // core from others.
    let bytes = answer_bytes(&batch, shared);
    let held = shared.held.take(&session.client, bytes, shared.limits.idle / 2).await?;
    // Never closed.
    let _turn = shared
        .computing
        .acquire()
        .await
        .map_err(|_| Status::unavailable("the server shuts down"))?;
    let (own, computed) = (Arc::clone(shared), Arc::clone(session));
    let answer = shared.workers.run(&session.client, move || {
        let Workshop { artifacts, sessions, .. } = &*own.workshop;
        computed.serve(stream, batch, artifacts, &sessions.counts, &own.limits)
    });
    Ok((answer.await?, held))
}

/// What the answer will take, and what surrounds its numbers; a batch that no adapter can answer
/// takes nothing.
fn answer_bytes(batch: &Batch, shared: &Shared) -> usize {
    let modules = shared.workshop.artifacts.manifest.modules();
    let deltas = |(module, rows): (usize, u64)| {
        let d_out = modules.get(module).map_or(0, |module| module.d_out);
        d_out
            .saturating_mul(8)
            .saturating_mul(usize::try_from(rows).unwrap_or(usize::MAX))
            .saturating_add(16)
    };
    let deltas = batch.counts().map(deltas).fold(32, usize::saturating_add);
    // Longer ones are refused.
    deltas.min(shared.limits.max_message_bytes.saturating_mul(2))
}

/// How often a waiting user hears from the server, so that neither takes the other for dead.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Tells how far the proof is until it is there.
async fn report(
    shared: Arc<Shared>,
    session: Arc<Session>,
    progress: mpsc::Sender<Result<FinishResponse, Status>>,
) {
    let mut stage = session.watch();
    let mut stopping = shared.stopping.clone();
    loop {
        let now = stage.borrow_and_update().clone();
        let said = |stage: ProofStage, ahead, digest: &[u8]| {
            Ok(FinishResponse {
                stage: stage.into(),
                ahead,
                trace_digest: bytes::Bytes::copy_from_slice(digest),
            })
        };
        let (message, last) = match now {
            Stage::Open => (Err(Status::failed_precondition("the session has not ended")), true),
            Stage::Queued => (said(ProofStage::Queued, shared.prover.ahead(&session), &[]), false),
            Stage::Proving => (said(ProofStage::Proving, 0, &[]), false),
            Stage::Proven(digest) => (said(ProofStage::Done, 0, &digest.0), true),
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
            let why = "the server shuts down: the session is proven when it is back";
            let _ = progress.send(Err(Status::unavailable(why))).await;
            return;
        }
    }
}
