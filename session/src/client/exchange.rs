//! Batches out, answers in, over connections that may break or die in silence.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{
    patience::{Trouble, is_refusal, seconds},
    record::{self, Outgoing},
    session::{LOG, UserSession},
};
use crate::{
    Error,
    batch::parse_answer,
    session_log::Event,
    wire::{
        Batch, InferRequest, InferResponse, OpenSessionRequest, SessionRef, SessionState,
        infer_request::Kind,
    },
};

/// An open stream of batches.
pub(super) struct Stream {
    batches: mpsc::Sender<InferRequest>,
    answers: Streaming<InferResponse>,
}

impl UserSession {
    /// Gets the answer to a batch of before, or the word that it was not counted.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        let Some(outgoing) = self.pending.clone() else { return Ok(()) };
        match self.exchange(&outgoing) {
            // Refused: the session goes on without it.
            Err(_) if self.pending.is_none() => Ok(()),
            done => done,
        }
    }

    /// Sends a batch that is in the log, whatever happens to the connection, and remembers its
    /// answer.
    pub(super) fn exchange(&mut self, outgoing: &Outgoing) -> Result<(), Error> {
        let batch = &outgoing.batch;
        let start = Instant::now();
        let answer = self.insist(|session| session.send(batch))?;
        let deltas_bytes: usize = answer.deltas.iter().map(bytes::Bytes::len).sum();
        // Held to the manifest before it is kept.
        let deltas =
            parse_answer(batch, &answer, &self.remote.manifest).map_err(|why| self.failed(why))?;
        // Should it be lost, the same batch is sent again, and answered with the same deltas.
        let place = self.log.append_later(Event::Answered(answer.clone()));
        self.pending = None;
        self.record.remember(outgoing, &answer, deltas, place).map_err(|why| self.failed(why))?;
        self.statistics.seconds.push(start.elapsed().as_secs_f64());
        let inputs =
            batch.rows.iter().flat_map(|rows| rows.inputs.iter().chain([&rows.ones, &rows.scales]));
        let sent = inputs.map(|bytes| bytes.len()).sum::<usize>();
        self.statistics.sizes.push((sent, deltas_bytes));
        self.statistics.received += deltas_bytes as u64;
        self.statistics.sent += sent as u64;
        self.statistics.rows += batch.counts().map(|(_, rows)| rows as usize).sum::<usize>();
        Ok(())
    }

    /// Tries again while the contributor is away, up to the patience of the options.
    pub(super) fn insist<T>(
        &mut self,
        mut attempt: impl FnMut(&mut UserSession) -> Result<T, Trouble>,
    ) -> Result<T, Error> {
        self.remote.patience.begin();
        loop {
            let trouble = match attempt(self) {
                Ok(done) => {
                    self.remote.patience.heard();
                    return Ok(done);
                }
                Err(trouble) => trouble,
            };
            self.stream = None;
            let why = trouble.in_passing(self.url())?;
            // A connection that died in silence would be used again.
            self.remote.hang_up();
            let Some(wait) = self.remote.patience.failed() else {
                let waited = seconds(self.remote.patience.waited());
                return Err(
                    self.failed(format!("gone for {waited}; {} ({why})", self.how_to_go_on()))
                );
            };
            std::thread::sleep(wait);
        }
    }

    /// What the user does when the contributor is away.
    pub(super) fn how_to_go_on(&self) -> String {
        format!(
            "the session is kept in {}: run the same command again to go on",
            self.folder.display()
        )
    }

    fn send(&mut self, batch: &Batch) -> Result<InferResponse, Trouble> {
        let opened_now = self.stream.is_none();
        if opened_now {
            self.connect(batch.sequence)?;
        }
        let Some(stream) = &mut self.stream else {
            return Err(Status::unavailable("no stream").into());
        };
        let timeout = self.remote.options.call_timeout;
        self.remote.network.wait(call(stream, batch, timeout)).map_err(|status| {
            if is_refusal(&status) {
                if let Err(error) = self.log.append(Event::Withdrawn) {
                    return Trouble::Final(error);
                }
                self.pending = None;
            }
            // It knew the session a moment ago: one without rows may be forgotten before its first
            // one comes.
            if opened_now && status.code() == Code::PermissionDenied {
                return Status::unavailable(status.message()).into();
            }
            Trouble::Status(status)
        })
    }

    /// Opens the session again and starts a stream; what the contributor has lost is sent again.
    pub(super) fn connect(&mut self, sequence: u64) -> Result<(), Trouble> {
        let timeout = self.remote.options.call_timeout;
        let (state, theirs) = self.open_again()?;
        let session = self.reference();
        let mut client = self.remote.client()?;
        let mut stream = self.remote.network.wait(async {
            let (batches, outgoing) = mpsc::channel(1);
            let start = InferRequest { kind: Some(Kind::Start(session)) };
            // There is room for one.
            let _ = batches.try_send(start);
            let answers =
                in_time(timeout, client.infer(ReceiverStream::new(outgoing))).await?.into_inner();
            Ok::<_, Status>(Stream { batches, answers })
        })?;
        if state != SessionState::Open {
            return Err(Trouble::Final(
                self.failed("it says that this session has ended, which you did not ask for"),
            ));
        }
        if theirs > sequence + 1 {
            return Err(Trouble::Final(self.failed(format!(
                "it has {theirs} batches of this session, you have {sequence}: somebody else goes on with it; begin a new session"
            ))));
        }
        if theirs < sequence {
            self.send_again(&mut stream, theirs, sequence)?;
        }
        self.statistics.reconnections += usize::from(self.connected);
        self.connected = true;
        self.stream = Some(stream);
        Ok(())
    }

    /// How far the session is at the contributor's; it is opened there if it is not known.
    pub(super) fn open_again(&mut self) -> Result<(SessionState, u64), Trouble> {
        let adapter_id = bytes::Bytes::copy_from_slice(&self.remote.manifest.id().0);
        let request = OpenSessionRequest { session: Some(self.reference()), adapter_id };
        let mut client = self.remote.client()?;
        let opened = in_time(self.remote.options.call_timeout, client.open_session(request));
        let opened = self.remote.network.wait(opened)?.into_inner();
        Ok((opened.state(), opened.next_sequence))
    }

    /// The contributor lost the end of its log (its machine died): it computes those batches again,
    /// to the same deltas.
    fn send_again(&mut self, stream: &mut Stream, from: u64, to: u64) -> Result<(), Trouble> {
        // An answer that is not in the file could not be compared.
        self.log.flush().map_err(Trouble::Final)?;
        let timeout = self.remote.options.call_timeout;
        let mut trouble = None;
        let read = record::answered(&self.folder.join(LOG), &mut |batch, known| {
            if !(from..to).contains(&batch.sequence) {
                return Ok(());
            }
            let told = match self.remote.network.wait(call(stream, &batch, timeout)) {
                Ok(answer) if answer == known => return Ok(()),
                Ok(_) => Trouble::Final(self.failed(format!(
                    "batch {}: it answers the same rows with other deltas than before: it will not prove what it said",
                    batch.sequence
                ))),
                Err(status) => status.into(),
            };
            trouble = Some(told);
            // Only to end the reading: the trouble is told.
            Err(self.failed("it did not take the session again"))
        });
        match (trouble, read) {
            (Some(trouble), _) => Err(trouble),
            (None, read) => read.map_err(Trouble::Final),
        }
    }

    pub(super) fn reference(&self) -> SessionRef {
        let copy = bytes::Bytes::copy_from_slice;
        SessionRef { id: copy(&self.id), key: copy(&self.key[..]) }
    }
}

/// An answer within a time.
pub(super) async fn in_time<T>(
    timeout: Duration,
    request: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::time::timeout(timeout, request).await.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(format!("no answer within {} s", timeout.as_secs_f64())))
    })
}

async fn call(
    stream: &mut Stream,
    batch: &Batch,
    timeout: Duration,
) -> Result<InferResponse, Status> {
    in_time(timeout, async {
        let request = InferRequest { kind: Some(Kind::Batch(batch.clone())) };
        if stream.batches.send(request).await.is_err() {
            // The answer side says why the stream ended.
            return match stream.answers.message().await {
                Err(status) => Err(status),
                Ok(_) => Err(Status::unavailable("it ended the stream")),
            };
        }
        let answer = stream.answers.message().await?;
        answer.ok_or_else(|| Status::unavailable("it ended the stream"))
    })
    .await
}
