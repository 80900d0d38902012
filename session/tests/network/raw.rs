//! A user that can send anything: the generated client, without the checks of
//! [`zklora_session::client`].

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use zklora_proof::checked_manifest::CheckedManifest;
use zklora_session::{
    batch::to_wire,
    wire::{
        Batch, Call, FetchProofRequest, FinishRequest, FinishResponse, InferRequest, InferResponse,
        OpenSessionRequest, OpenSessionResponse, ProofStage, SessionRef,
        contributor_client::ContributorClient, infer_request::Kind,
    },
};

use crate::party::rows_of;

pub type RawClient = ContributorClient<Channel>;

/// Nothing in these tests takes this long.
pub const LONG: Duration = Duration::from_secs(30);

/// The threads that wait for the network, of all tests.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    });
    runtime
        .block_on(async { tokio::time::timeout(LONG * 2, future).await.expect("the test hangs") })
}

pub async fn client(url: &str) -> RawClient {
    ContributorClient::connect(url.to_string()).await.unwrap().max_encoding_message_size(usize::MAX)
}

/// A fresh id and key.
pub fn fresh() -> SessionRef {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let bytes = |what: &str| {
        Bytes::copy_from_slice(blake3::hash(format!("{what} {number}").as_bytes()).as_bytes())
    };
    SessionRef { id: bytes("id"), key: bytes("key") }
}

pub async fn open(
    client: &mut RawClient,
    session: &SessionRef,
    adapter: &[u8],
) -> Result<OpenSessionResponse, Status> {
    let adapter_id = Bytes::copy_from_slice(adapter);
    let request = OpenSessionRequest { session: Some(session.clone()), adapter_id };
    client.open_session(request).await.map(tonic::Response::into_inner)
}

/// A stream of batches.
pub struct RawStream {
    pub requests: mpsc::Sender<InferRequest>,
    pub answers: Streaming<InferResponse>,
}

/// A stream whose first message is this.
pub async fn stream(client: &mut RawClient, first: Option<Kind>) -> Result<RawStream, Status> {
    let (requests, outgoing) = mpsc::channel(64);
    requests.try_send(InferRequest { kind: first }).unwrap();
    let answers = client.infer(ReceiverStream::new(outgoing)).await?.into_inner();
    Ok(RawStream { requests, answers })
}

pub async fn talk(client: &mut RawClient, session: &SessionRef) -> Result<RawStream, Status> {
    stream(client, Some(Kind::Start(session.clone()))).await
}

impl RawStream {
    pub async fn send(&self, kind: Option<Kind>) {
        // If the stream is gone, its answers say why.
        let _ = self.requests.send(InferRequest { kind }).await;
    }

    pub async fn next(&mut self) -> Result<InferResponse, Status> {
        let answer = tokio::time::timeout(LONG, self.answers.message()).await.expect("no answer");
        answer.map(|answer| answer.expect("the stream has ended"))
    }

    pub async fn say(&mut self, batch: Batch) -> Result<InferResponse, Status> {
        self.ask(Kind::Batch(batch)).await
    }

    pub async fn ask(&mut self, kind: Kind) -> Result<InferResponse, Status> {
        self.send(Some(kind)).await;
        self.next().await
    }
}

/// A good batch: `rows` rows for every module.
pub fn batch(manifest: &CheckedManifest, sequence: u64, rows: usize, seed: usize) -> Batch {
    let mut batch = Batch { sequence, ..Batch::default() };
    for (module, rows) in rows_of(manifest, rows, seed) {
        batch.calls.push(Call { module: module as u32, rows: batch.rows.len() as u32 });
        batch.rows.push(to_wire(&rows));
    }
    batch
}

/// A session with one answered batch.
pub async fn begun(
    client: &mut RawClient,
    manifest: &CheckedManifest,
    rows: usize,
) -> (SessionRef, RawStream) {
    let session = fresh();
    open(client, &session, &manifest.id().0).await.unwrap();
    let mut talk = talk(client, &session).await.unwrap();
    talk.say(batch(manifest, 0, rows, 0)).await.unwrap();
    (session, talk)
}

/// What Finish says, to its end.
pub async fn finish(
    client: &mut RawClient,
    session: &SessionRef,
    sequence: u64,
) -> Result<Vec<FinishResponse>, Status> {
    let request = FinishRequest { session: Some(session.clone()), sequence };
    let mut stages = client.finish(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(stage) =
        tokio::time::timeout(LONG, stages.message()).await.expect("no progress")?
    {
        let done = stage.stage() == ProofStage::Done;
        all.push(stage);
        if done {
            break;
        }
    }
    Ok(all)
}

pub async fn fetch(client: &mut RawClient, session: &SessionRef) -> Result<Bytes, Status> {
    let request = FetchProofRequest { session: Some(session.clone()) };
    client.fetch_proof(request).await.map(|answer| answer.into_inner().proof)
}
