//! The calls of `proto/evaluation.proto`.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use zklora_artifacts::folder::read_registration;
use zklora_evaluation::{
    Error as Evaluating,
    answering::{Known, NO_ANSWER},
    digest::Digest,
    offer::Limits,
    proving::KnownProof,
    request::{FullRequest, digest_of},
    sample::ProofRequest,
};

use super::jobs::{Jobs, State, Work};
use crate::{
    Error,
    server::{
        active_sessions::ActiveSessions, context::ServiceContext, infer_stream::next_message,
        log_rate::LogRate, metrics::RefusalCause, service::client,
    },
    wire::evaluation::{
        EvaluateRequest, EvaluateResponse, OfferRequest, OfferResponse, PART, Progress,
        ProveRequest, VERSION, evaluate_request::Kind, evaluate_response,
        evaluation_server::Evaluation,
    },
};

/// How long the first message of a call may take.
const FIRST_MESSAGE: Duration = Duration::from_secs(15);
/// Interval of the messages to a waiting buyer. They tell each side that the other one is alive,
/// and how far scoring is.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Requests whose units arrive at the same time.
const UPLOADS: usize = 4;
/// How long the units of a request may take to arrive, in times of an idle stream.
const UPLOAD_IDLES: u32 = 2;

static REFUSED: LogRate = LogRate::with_burst(60);

/// The service. Without jobs, this contributor offers no evaluations.
#[derive(Clone)]
pub(in crate::server) struct EvaluationService {
    context: Arc<ServiceContext>,
    jobs: Option<Arc<Jobs>>,
    manifest: Bytes,
    /// Empty if the adapter is not registered.
    registration: Bytes,
    /// Units that are arriving are in memory until they are charged: few arrive at the same time.
    uploads: ActiveSessions,
    /// The same for proofs that leave.
    downloads: ActiveSessions,
}

type Responses = mpsc::Sender<Result<EvaluateResponse, Status>>;

impl EvaluationService {
    /// # Errors
    /// The registration cannot be read, or the manifest has no bytes, which is a bug.
    pub fn new(
        context: Arc<ServiceContext>,
        jobs: Option<Arc<Jobs>>,
    ) -> Result<EvaluationService, Error> {
        let adapter = &context.state.adapter;
        let manifest = adapter.manifest.contents().to_bytes()?.into();
        let registration = read_registration(&adapter.folder.join("public"))?;
        let registration = registration.unwrap_or_default().into();
        let uploads = ActiveSessions::of(UPLOADS, UPLOADS / 2, "requests that are arriving");
        let downloads = ActiveSessions::of(UPLOADS, UPLOADS / 2, "proofs that are being sent");
        Ok(EvaluationService { context, jobs, manifest, registration, uploads, downloads })
    }

    fn jobs(&self) -> Result<Arc<Jobs>, Status> {
        self.jobs.clone().ok_or_else(|| {
            Status::failed_precondition("this contributor offers no evaluations, only rows")
        })
    }
}

/// A refusal as a status. Whatever depends on more than the request is said in the log alone.
fn status(error: Evaluating) -> Status {
    match error {
        Evaluating::Refused(why) => RefusalCause::Budget.mark(Status::resource_exhausted(why)),
        error @ (Evaluating::Form { .. } | Evaluating::Mismatch { .. }) => {
            Status::invalid_argument(error.to_string())
        }
        error => {
            if REFUSED.admit().is_some() {
                tracing::error!("a request for an evaluation failed: {error}");
            }
            Status::unavailable("the server cannot take the request now: try again later")
        }
    }
}

/// Most bytes of the units of a request.
fn most_bytes(limits: &Limits) -> usize {
    usize::try_from(limits.most_bytes()).unwrap_or(usize::MAX)
}

#[tonic::async_trait]
impl Evaluation for EvaluationService {
    async fn offer(
        &self,
        request: Request<OfferRequest>,
    ) -> Result<Response<OfferResponse>, Status> {
        let client = client(&request)?;
        let version = request.into_inner().version;
        if version != VERSION {
            return Err(Status::failed_precondition(format!(
                "you speak version {version} of evaluations, this server speaks version \
                 {VERSION}: use the same version of zklora on both sides"
            )));
        }
        let jobs = self.jobs()?;
        let (of, name) = (Arc::clone(&jobs), client.clone());
        let left = move || {
            let of = &of.answering;
            Ok((of.left(&name).map_err(status)?, of.proofs_left(&name).map_err(status)?))
        };
        let (bits_left, proofs) = self.context.blocking.run(&client, left).await?;
        Ok(Response::new(OfferResponse {
            version: VERSION,
            offer: jobs.answering.offer.bytes.clone().into(),
            manifest: self.manifest.clone(),
            bits_left,
            proof_tokens: proofs.tokens,
            proof_leaves: Some(proofs.leaves),
            samples_left: Some(proofs.samples),
            registration: self.registration.clone(),
        }))
    }

    type ProveStream = Pin<Box<dyn Stream<Item = Result<EvaluateResponse, Status>> + Send>>;

    async fn prove(
        &self,
        request: Request<ProveRequest>,
    ) -> Result<Response<Self::ProveStream>, Status> {
        let client = client(&request)?;
        let jobs = self.jobs()?;
        let bytes = request.into_inner().request;
        let asked = ProofRequest::parse(&bytes).map_err(status)?;
        let work = Work { name: asked.digest().map_err(status)?, proof_of: Some(asked.request) };
        let (of, name) = (Arc::clone(&jobs), client.clone());
        let known = self.context.blocking.run(&client, move || {
            // An answer that is on the disk is shown here, too, when the others hear of it.
            if of.is_pending(&asked.request) {
                return Err(status(Evaluating::Refused(NO_ANSWER.into())));
            }
            // So is a finished proof.
            let known = of.answering.known_proof(&asked, &name).map_err(status)?;
            match known {
                KnownProof::Proven(_) => Ok(!of.is_pending(&work.name)),
                KnownProof::New => {
                    of.answering.accept_proof(&asked, &name).map_err(status)?;
                    Ok(false)
                }
                KnownProof::Accepted => Ok(false),
            }
        });
        let is_there = known.await?;
        let (responses, outgoing) = mpsc::channel(4);
        let (service, asked) = (self.clone(), bytes);
        tokio::spawn(async move {
            let work = async {
                if !is_there {
                    wait(&service, &jobs, work, &client, &responses).await?;
                }
                let _download = service.downloads.acquire(&client)?;
                let (jobs, name) = (Arc::clone(&jobs), client.clone());
                let read = move || {
                    let asked = ProofRequest::parse(&asked).map_err(status)?;
                    match jobs.answering.known_proof(&asked, &name).map_err(status)? {
                        KnownProof::Proven(proof) => Ok(proof),
                        _ => Err(Status::unavailable("the proof has gone")),
                    }
                };
                let proof = service.context.blocking.run(&client, read).await?;
                send_parts(&responses, proof).await
            };
            if let Err(status) = work.await {
                let _ = responses.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    type EvaluateStream = Pin<Box<dyn Stream<Item = Result<EvaluateResponse, Status>> + Send>>;

    async fn evaluate(
        &self,
        request: Request<Streaming<EvaluateRequest>>,
    ) -> Result<Response<Self::EvaluateStream>, Status> {
        let client = client(&request)?;
        let jobs = self.jobs()?;
        let mut incoming = request.into_inner();
        let first =
            next_message(&mut incoming, self.context.limits.idle.min(FIRST_MESSAGE)).await?;
        let Some(EvaluateRequest { kind: Some(Kind::Request(request)) }) = first else {
            return Err(Status::invalid_argument("the first message must be `request`"));
        };
        let (of, name, bytes) = (Arc::clone(&jobs), client.clone(), request.clone());
        let known = self.context.blocking.run(&client, move || {
            let digest = digest_of(&bytes);
            let known = match of.is_pending(&digest) {
                // Its answer may be on the disk, and is shown when the others hear of it.
                true => Known::Accepted,
                false => of.answering.known(&digest, &name).map_err(status)?,
            };
            if !matches!(known, Known::Answered(_)) {
                of.answering.check_request(&bytes).map_err(status)?;
            }
            Ok((digest, known))
        });
        let (digest, known) = known.await?;
        let (responses, outgoing) = mpsc::channel(4);
        let conversation = Conversation { service: self.clone(), jobs, client, request, digest };
        tokio::spawn(async move {
            if let Err(status) = conversation.run(known, incoming, &responses).await {
                let _ = responses.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

/// One call of Evaluate, after its first message.
struct Conversation {
    service: EvaluationService,
    jobs: Arc<Jobs>,
    client: String,
    request: Bytes,
    digest: Digest,
}

async fn send(responses: &Responses, kind: evaluate_response::Kind) -> Result<(), Status> {
    let response = EvaluateResponse { kind: Some(kind) };
    responses.send(Ok(response)).await.map_err(|_| Status::cancelled("the caller has gone"))
}

impl Conversation {
    async fn run(
        &self,
        known: Known,
        incoming: Streaming<EvaluateRequest>,
        responses: &Responses,
    ) -> Result<(), Status> {
        let answer = match known {
            Known::Answered(answer) => answer,
            Known::Accepted => self.answer(responses).await?,
            Known::New => {
                send(responses, evaluate_response::Kind::SendUnits(true)).await?;
                self.accept(incoming).await?;
                self.answer(responses).await?
            }
        };
        send_parts(responses, answer).await
    }

    /// Receives the units, and charges the request.
    async fn accept(&self, mut incoming: Streaming<EvaluateRequest>) -> Result<(), Status> {
        let context = &self.service.context;
        let _upload = self.service.uploads.acquire(&self.client)?;
        let limit = context.limits.idle * UPLOAD_IDLES;
        let units = tokio::time::timeout(limit, self.receive(&mut incoming)).await;
        let units = units.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(format!("no units within {} s", limit.as_secs())))
        })?;
        let (jobs, client, request) =
            (Arc::clone(&self.jobs), self.client.clone(), self.request.clone());
        context
            .blocking
            .run(&self.client, move || {
                let most = jobs.answering.offer.offer.limits.tokens;
                let full = FullRequest::parse_within(&request, units, most).map_err(status)?;
                jobs.answering.accept(&full, &client).map_err(status)
            })
            .await
    }

    /// All parts of the units.
    async fn receive(&self, incoming: &mut Streaming<EvaluateRequest>) -> Result<Vec<u8>, Status> {
        let limits = &self.service.context.limits;
        let offered = most_bytes(&self.jobs.answering.offer.offer.limits);
        // All that arrive at the same time take at most a part of the memory for messages.
        let most = offered.min(limits.max_held_bytes / UPLOADS);
        let mut units = Vec::new();
        while let Some(message) = next_message(incoming, limits.idle).await? {
            let Some(Kind::Units(part)) = message.kind else {
                return Err(Status::invalid_argument("expected a part of the units"));
            };
            if part.len() > PART || part.is_empty() || part.len() > most - units.len() {
                return Err(Status::invalid_argument(format!(
                    "units come in parts of up to {PART} bytes, and have up to {most} bytes"
                )));
            }
            units.extend_from_slice(&part);
        }
        Ok(units)
    }

    /// Waits for the answer, and tells how far it is.
    async fn answer(&self, responses: &Responses) -> Result<Vec<u8>, Status> {
        let work = Work { name: self.digest, proof_of: None };
        wait(&self.service, &self.jobs, work, &self.client, responses).await?;
        let (jobs, digest, client) = (Arc::clone(&self.jobs), self.digest, self.client.clone());
        let read = move || match jobs.answering.known(&digest, &client).map_err(status)? {
            Known::Answered(answer) => Ok(answer),
            Known::New | Known::Accepted => Err(Status::unavailable("the answer has gone")),
        };
        self.service.context.blocking.run(&self.client, read).await
    }
}

/// Waits until work is done, and tells how far it is.
async fn wait(
    service: &EvaluationService,
    jobs: &Jobs,
    work: Work,
    client: &str,
    responses: &Responses,
) -> Result<(), Status> {
    let mut state = jobs.enqueue(work, client);
    let mut stopping = service.context.stopping.clone();
    loop {
        let now = state.borrow_and_update().clone();
        let progress = match now {
            State::Waiting => {
                Progress { ahead: jobs.ahead(&work.name, client), scored: 0, units: 0 }
            }
            State::Scoring(now) => {
                let (scored, units) = now.at(Instant::now());
                Progress { ahead: 0, scored, units }
            }
            State::Answered => return Ok(()),
            State::Failed => {
                let why = "the answer could not be made now: send the same request again";
                return Err(Status::unavailable(why));
            }
        };
        send(responses, evaluate_response::Kind::Progress(progress)).await?;
        tokio::select! {
            () = until_done(&mut state) => {}
            () = tokio::time::sleep(HEARTBEAT) => {}
            () = responses.closed() => return Err(Status::cancelled("the caller has gone")),
            _ = stopping.changed() => {}
        }
        if *stopping.borrow() {
            let why = "the server shuts down: send the same request again after its restart";
            return Err(Status::unavailable(why));
        }
    }
}

async fn send_parts(responses: &Responses, bytes: Vec<u8>) -> Result<(), Status> {
    let bytes = Bytes::from(bytes);
    for start in (0..bytes.len()).step_by(PART) {
        let part = bytes.slice(start..bytes.len().min(start + PART));
        send(responses, evaluate_response::Kind::Answer(part)).await?;
    }
    Ok(())
}

/// Waits for a last state. How far scoring is is told by the clock alone.
async fn until_done(state: &mut watch::Receiver<State>) {
    let is_last = |state: &State| matches!(state, State::Answered | State::Failed);
    // The sender is dropped after a last state.
    let _ = state.wait_for(is_last).await;
}
