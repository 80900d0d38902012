//! A malicious contributor: it forwards everything to an honest server, and changes what its test
//! wants changed.

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::mpsc;
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming};
use zklora_session::wire::{
    Batch, DescribeRequest, DescribeResponse, FetchProofRequest, FetchProofResponse, FinishRequest,
    FinishResponse, InferRequest, InferResponse, OpenSessionRequest, OpenSessionResponse,
    SessionRef,
    contributor_server::{Contributor, ContributorServer},
    infer_request::Kind,
};

use crate::raw::{self, RawClient, RawStream};

/// What happens to a batch.
pub enum Route {
    /// The honest server answers it.
    On,
    /// A server at this URL answers it in a session of the liar's own; the honest server never sees
    /// it.
    Elsewhere(String),
    /// It is not answered.
    Nowhere,
    /// It is refused with this.
    Refused(Status),
}

/// The changes of a malicious contributor. The defaults change nothing.
pub trait Interceptor: Send + Sync + 'static {
    fn described(&self, _: &mut DescribeResponse) {}
    /// Whether it says that it reads packed batches, as contributors do since there are any.
    fn packs(&self) -> bool {
        false
    }
    fn opened(&self, _: &mut OpenSessionResponse) {}
    fn route(&self, _: &Batch) -> Route {
        Route::On
    }
    fn answered(&self, _: &Batch, _: &mut InferResponse) {}
    fn finished(&self, _: &mut FinishResponse) {}
    /// The message number `at` after this stage, or nothing more of it.
    fn finished_again(&self, _: &FinishResponse, _at: u32) -> Option<FinishResponse> {
        None
    }
    /// Whose proof is fetched.
    fn fetching(&self, _: &mut SessionRef) {}
    fn fetched(&self, _: &mut FetchProofResponse) {}
}

pub struct Proxy {
    pub address: SocketAddr,
    /// Sessions that it was asked to open.
    pub opened: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub fn start(upstream: &str, interceptor: impl Interceptor) -> Proxy {
        raw::wait(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let opened = Arc::new(AtomicU64::new(0));
            let liar = ProxyService(Arc::new(Inner {
                upstream: raw::client(upstream).await,
                interceptor: Box::new(interceptor),
                opened: Arc::clone(&opened),
                swallowed: AtomicU64::new(0),
                elsewhere: tokio::sync::Mutex::new(HashMap::new()),
            }));
            let service = ContributorServer::new(liar).max_encoding_message_size(usize::MAX);
            let serving = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener));
            let task = tokio::spawn(async move {
                let _ = serving.await;
            });
            Proxy { address, opened, task }
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Inner {
    upstream: RawClient,
    interceptor: Box<dyn Interceptor>,
    opened: Arc<AtomicU64>,
    /// Batches that the honest server did not see.
    swallowed: AtomicU64,
    /// Own sessions, by URL: the stream and the number of its batches.
    elsewhere: tokio::sync::Mutex<HashMap<String, (RawStream, u64)>>,
}

#[derive(Clone)]
struct ProxyService(Arc<Inner>);

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Contributor for ProxyService {
    async fn describe(
        &self,
        request: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        let mut answer = self.0.upstream.clone().describe(request.into_inner()).await?.into_inner();
        if !self.0.interceptor.packs() {
            answer.packing = 0;
        }
        self.0.interceptor.described(&mut answer);
        Ok(Response::new(answer))
    }

    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        let mut answer =
            self.0.upstream.clone().open_session(request.into_inner()).await?.into_inner();
        answer.next_sequence += self.0.swallowed.load(Ordering::Relaxed);
        self.0.interceptor.opened(&mut answer);
        Ok(Response::new(answer))
    }

    type InferStream = Responses<InferResponse>;

    async fn infer(
        &self,
        request: Request<Streaming<InferRequest>>,
    ) -> Result<Response<Self::InferStream>, Status> {
        let mut incoming = request.into_inner();
        let Some(InferRequest { kind: Some(Kind::Start(start)) }) = incoming.message().await?
        else {
            return Err(Status::invalid_argument("no start"));
        };
        let (inner, mut upstream) = (Arc::clone(&self.0), self.0.upstream.clone());
        let mut talk = raw::talk(&mut upstream, &start).await?;
        let (answers, outgoing) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok(Some(InferRequest { kind: Some(kind) })) = incoming.message().await {
                let (batch, wrap): (Batch, fn(Batch) -> Kind) = match kind {
                    Kind::Batch(batch) => (batch, Kind::Batch),
                    Kind::Packed(batch) => (batch, Kind::Packed),
                    Kind::Start(_) => break,
                };
                let answer = match inner.interceptor.route(&batch) {
                    Route::On => {
                        let swallowed = inner.swallowed.load(Ordering::Relaxed);
                        let sequence = batch.sequence - swallowed;
                        talk.ask(wrap(Batch { sequence, ..batch.clone() })).await
                    }
                    Route::Elsewhere(url) => {
                        inner.swallowed.fetch_add(1, Ordering::Relaxed);
                        inner.answer_elsewhere(&url, batch.clone()).await
                    }
                    Route::Nowhere => continue,
                    Route::Refused(status) => Err(status),
                };
                let answer = answer.map(|mut answer| {
                    answer.sequence = batch.sequence;
                    inner.interceptor.answered(&batch, &mut answer);
                    answer
                });
                if answers.send(answer).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    type FinishStream = Responses<FinishResponse>;

    async fn finish(
        &self,
        request: Request<FinishRequest>,
    ) -> Result<Response<Self::FinishStream>, Status> {
        let mut request = request.into_inner();
        request.sequence -= self.0.swallowed.load(Ordering::Relaxed);
        let mut stages = self.0.upstream.clone().finish(request).await?.into_inner();
        let inner = Arc::clone(&self.0);
        let (progress, outgoing) = mpsc::channel(4);
        tokio::spawn(async move {
            loop {
                let stage = match stages.message().await {
                    Ok(None) => break,
                    Ok(Some(mut stage)) => {
                        inner.interceptor.finished(&mut stage);
                        let more =
                            (0..).map_while(|at| inner.interceptor.finished_again(&stage, at));
                        for again in more {
                            if progress.send(Ok(again)).await.is_err() {
                                return;
                            }
                        }
                        Ok(stage)
                    }
                    Err(status) => Err(status),
                };
                if progress.send(stage).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn fetch_proof(
        &self,
        request: Request<FetchProofRequest>,
    ) -> Result<Response<FetchProofResponse>, Status> {
        let mut request = request.into_inner();
        if let Some(session) = &mut request.session {
            self.0.interceptor.fetching(session);
        }
        let mut answer = self.0.upstream.clone().fetch_proof(request).await?.into_inner();
        self.0.interceptor.fetched(&mut answer);
        Ok(Response::new(answer))
    }
}

impl Inner {
    async fn answer_elsewhere(&self, url: &str, batch: Batch) -> Result<InferResponse, Status> {
        let mut elsewhere = self.elsewhere.lock().await;
        if !elsewhere.contains_key(url) {
            let mut client = raw::client(url).await;
            let description = client.describe(DescribeRequest { version: 1 }).await?.into_inner();
            let session = raw::fresh();
            raw::open(&mut client, &session, blake3::hash(&description.manifest).as_bytes())
                .await?;
            elsewhere.insert(url.to_string(), (raw::talk(&mut client, &session).await?, 0));
        }
        let (talk, next) = elsewhere.get_mut(url).unwrap();
        let answer = talk.say(Batch { sequence: *next, ..batch }).await;
        *next += 1;
        answer
    }
}

/// The user's own digest of its session, which a liar that sees all traffic can compute.
pub type Digest = Arc<Mutex<bytes::Bytes>>;
