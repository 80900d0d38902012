//! The buyer's side of an evaluation: the offer, and the answer to a request. Calls are retried
//! while the contributor is unreachable.

use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use zklora_artifacts::folder::MAX_REGISTRATION;
use zklora_evaluation::{
    envelope,
    proving::{MAX_PROOF, ProofLimits},
    request::FullRequest,
};
use zklora_proof::manifest;

use super::{
    connection::{AuthorisedChannel, Connector, ContributorOptions, Network},
    retry::{Backoff, CallError, seconds},
    stream::with_timeout,
};
use crate::{
    Error,
    wire::evaluation::{
        EvaluateRequest, OfferRequest, OfferResponse, PART, Progress, ProveRequest, VERSION,
        evaluate_request, evaluate_response, evaluation_client::EvaluationClient,
    },
};

/// Longest answer to Offer.
const MAX_OFFER: usize = manifest::MAX_BYTES + (4 << 20);

/// What servers prove that do not say how large a part of a sample may be.
const EARLIER_LEAVES: u64 = 1 << 27;

/// What a contributor offers. Nothing is checked yet.
#[derive(Debug, Clone)]
pub struct Offered {
    /// `offer.json`
    pub offer: Vec<u8>,
    /// `manifest.json`
    pub manifest: Vec<u8>,
    /// `registration.proof`, if the adapter is registered.
    pub registration: Option<Vec<u8>>,
    /// Bits that this client may still spend.
    pub bits_left: u64,
    /// What it proves, for this client.
    pub proofs: ProofLimits,
}

/// How far an evaluation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Units are being sent.
    Sending,
    /// This many requests are before it.
    Waiting(u32),
    /// This many units of all are scored.
    Scoring(u64, u64),
    /// The contributor is unreachable for now.
    Retrying,
}

/// A contributor that evaluates.
pub struct Evaluator<'a> {
    options: &'a ContributorOptions,
    network: &'a Network,
    connector: Connector,
    backoff: Backoff,
}

type Client = EvaluationClient<AuthorisedChannel>;

impl<'a> Evaluator<'a> {
    /// Reads the options. Connects later.
    ///
    /// # Errors
    /// An option or a file that it names is invalid.
    pub fn new(
        options: &'a ContributorOptions,
        network: &'a Network,
    ) -> Result<Evaluator<'a>, Error> {
        let connector = Connector::new(options)?;
        Ok(Evaluator { options, network, connector, backoff: Backoff::new(options.patience) })
    }

    /// What the contributor offers.
    ///
    /// # Errors
    /// It is unreachable, refuses, or offers no evaluations.
    pub fn offer(&mut self) -> Result<Offered, Error> {
        let timeout = self.options.call_timeout;
        let offered = self.with_retries(&mut |_| {}, |connector, network, _| {
            network.wait(async {
                let mut client = connect(connector).await?.max_decoding_message_size(MAX_OFFER);
                let call = client.offer(OfferRequest { version: VERSION });
                Ok(with_timeout(timeout, call).await?.into_inner())
            })
        })?;
        let OfferResponse {
            version,
            offer,
            manifest,
            bits_left,
            registration,
            proof_tokens,
            proof_leaves,
            samples_left,
        } = offered;
        if version != VERSION {
            return Err(self.failed(format!(
                "it speaks version {version} of evaluations, this program version {VERSION}"
            )));
        }
        // The bound of its file: a longer one could be kept, but not read again.
        if registration.len() as u64 > MAX_REGISTRATION {
            return Err(self.failed("its registration is longer than any".into()));
        }
        let registration = (!registration.is_empty()).then(|| registration.into());
        let (offer, manifest) = (offer.into(), manifest.into());
        let proofs = ProofLimits {
            tokens: proof_tokens,
            leaves: proof_leaves.unwrap_or(EARLIER_LEAVES),
            samples: samples_left.unwrap_or(u64::MAX),
        };
        Ok(Offered { offer, manifest, registration, bits_left, proofs })
    }

    /// The answer to a request, as bytes: nothing of it is checked.
    ///
    /// # Errors
    /// The contributor is unreachable for too long, or refuses the request.
    pub fn evaluate(
        &mut self,
        request: &FullRequest,
        progress: &mut dyn FnMut(Step),
    ) -> Result<Vec<u8>, Error> {
        let timeout = self.options.call_timeout;
        self.with_retries(progress, |connector, network, progress| {
            network.wait(async {
                let client = connect(connector).await?;
                Ok(converse(client, request, timeout, progress).await?)
            })
        })
    }

    /// The proof of a sample, as bytes: nothing of it is checked. `request` is
    /// `proof-request.json`.
    ///
    /// # Errors
    /// The contributor is unreachable for too long, or refuses the request.
    pub fn prove(
        &mut self,
        request: &[u8],
        progress: &mut dyn FnMut(Step),
    ) -> Result<Vec<u8>, Error> {
        let timeout = self.options.call_timeout;
        self.with_retries(progress, |connector, network, progress| {
            network.wait(async {
                let mut client = connect(connector).await?;
                let request = ProveRequest { request: bytes::Bytes::copy_from_slice(request) };
                let call = client.prove(request);
                let mut responses = with_timeout(timeout, call).await?.into_inner();
                let mut proof = Vec::new();
                while let Some(response) = with_timeout(timeout, responses.message()).await? {
                    match response.kind {
                        Some(evaluate_response::Kind::Progress(now)) => progress(step_of(&now)),
                        Some(evaluate_response::Kind::Answer(part)) => {
                            append(&mut proof, &part, MAX_PROOF)?;
                        }
                        _ => {
                            let why = "it sent a message of another kind";
                            return Err(Status::failed_precondition(why).into());
                        }
                    }
                }
                Ok(complete(proof)?)
            })
        })
    }

    fn failed(&self, why: String) -> Error {
        Error::Contributor { url: self.options.url.clone(), why }
    }

    fn with_retries<T>(
        &mut self,
        progress: &mut dyn FnMut(Step),
        mut attempt: impl FnMut(&Connector, &Network, &mut dyn FnMut(Step)) -> Result<T, CallError>,
    ) -> Result<T, Error> {
        self.backoff.reset();
        let mut most_scored = 0;
        loop {
            let mut got_further = false;
            let mut watched = |step| {
                if let Step::Scoring(scored, _) = step {
                    got_further |= scored > most_scored;
                    most_scored = most_scored.max(scored);
                }
                progress(step);
            };
            let error = match attempt(&self.connector, self.network, &mut watched) {
                Ok(done) => {
                    self.backoff.succeeded();
                    return Ok(done);
                }
                Err(error) => error,
            };
            let why = error.transient_reason(&self.options.url)?;
            if got_further {
                // The contributor was there a moment ago, and will go on.
                self.backoff.succeeded();
            }
            progress(Step::Retrying);
            let Some(delay) = self.backoff.next_delay() else {
                let elapsed = seconds(self.backoff.elapsed());
                return Err(self.failed(format!(
                    "unreachable for {elapsed} ({why}): run the same command again to go on"
                )));
            };
            std::thread::sleep(delay);
        }
    }
}

async fn connect(connector: &Connector) -> Result<Client, CallError> {
    let client = EvaluationClient::new(connector.channel().await?);
    Ok(client.max_decoding_message_size(2 * PART).max_encoding_message_size(usize::MAX))
}

async fn converse(
    mut client: Client,
    request: &FullRequest,
    timeout: std::time::Duration,
    progress: &mut dyn FnMut(Step),
) -> Result<Vec<u8>, Status> {
    let (messages, outgoing) = tokio::sync::mpsc::channel(4);
    let message = |kind| EvaluateRequest { kind: Some(kind) };
    let first = message(evaluate_request::Kind::Request(request.bytes.clone().into()));
    // The channel is empty, so this does not fail.
    let _ = messages.try_send(first);
    let call = client.evaluate(ReceiverStream::new(outgoing));
    let mut responses = with_timeout(timeout, call).await?.into_inner();
    let mut messages = Some(messages);
    let mut answer = Vec::new();
    while let Some(response) = with_timeout(timeout, responses.message()).await? {
        match response.kind {
            Some(evaluate_response::Kind::SendUnits(_)) => {
                let Some(sender) = messages.take() else {
                    return Err(Status::failed_precondition("it asks for the units twice"));
                };
                progress(Step::Sending);
                for part in request.unit_bytes.chunks(PART) {
                    let part = bytes::Bytes::copy_from_slice(part);
                    let part = message(evaluate_request::Kind::Units(part));
                    let sent = with_timeout(timeout, async { Ok(sender.send(part).await) }).await?;
                    if sent.is_err() {
                        // The receiving side says why.
                        break;
                    }
                }
            }
            Some(evaluate_response::Kind::Progress(now)) => {
                // Nothing more is sent.
                messages = None;
                progress(step_of(&now));
            }
            Some(evaluate_response::Kind::Answer(part)) => {
                append(&mut answer, &part, envelope::MAX_BYTES)?;
            }
            None => return Err(Status::failed_precondition("it sent a message of no known kind")),
        }
    }
    complete(answer)
}

fn step_of(progress: &Progress) -> Step {
    match progress.units {
        0 => Step::Waiting(progress.ahead),
        units => Step::Scoring(progress.scored, units),
    }
}

fn append(answer: &mut Vec<u8>, part: &[u8], most: u64) -> Result<(), Status> {
    if part.is_empty() || (answer.len() + part.len()) as u64 > most {
        return Err(Status::failed_precondition("its answer is longer than any"));
    }
    answer.extend_from_slice(part);
    Ok(())
}

fn complete(answer: Vec<u8>) -> Result<Vec<u8>, Status> {
    match answer.is_empty() {
        true => Err(Status::unavailable("it ended the stream without an answer")),
        false => Ok(answer),
    }
}
