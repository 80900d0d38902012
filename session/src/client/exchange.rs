//! Exchanging batches and answers over connections that may break or stop responding. Calls are
//! retried, and batches that the contributor lost are sent again.

use std::time::Instant;

use prost::Message;
use tonic::{Code, Status};

use super::{
    log_index::{self, OutgoingBatch},
    remote::Remote,
    retry::{CallError, is_refusal, seconds},
    stream::{Stream, with_timeout},
    user_session::{LOG, UserSession},
};
use crate::{
    Error,
    batch::parse_answer,
    packing,
    session_log::Event,
    wire::{
        Batch, InferRequest, InferResponse, OpenSessionRequest, SessionRef, SessionState,
        infer_request::Kind,
    },
};

impl UserSession {
    /// Gets the answer to the pending batch, if there is one, or learns that it was refused.
    pub(super) fn resolve_pending(&mut self) -> Result<(), Error> {
        let Some(outgoing) = self.pending.clone() else { return Ok(()) };
        match self.exchange(&outgoing) {
            // Refused: the session continues without it.
            Err(_) if self.pending.is_none() => Ok(()),
            done => done,
        }
    }

    /// Sends a batch that is in the log, retries as needed, and keeps its answer.
    pub(super) fn exchange(&mut self, outgoing: &OutgoingBatch) -> Result<(), Error> {
        let batch = &outgoing.batch;
        let start = Instant::now();
        let (answer, size) = self.with_retries(|session| session.send(batch))?;
        let deltas =
            parse_answer(batch, &answer, &self.remote.manifest).map_err(|why| self.failed(why))?;
        // If a crash loses it, the same batch is sent again and gets the same deltas.
        let offset = self.log.append_later(Event::Answered(answer.clone()));
        self.pending = None;
        let added = self.index.add(outgoing, &answer, deltas, offset);
        added.map_err(|why| self.failed(why))?;
        self.statistics.seconds.push(start.elapsed().as_secs_f64());
        self.statistics.sizes.push(size);
        self.statistics.sent += size.0 as u64;
        self.statistics.received += size.1 as u64;
        self.statistics.rows += batch.counts().map(|(_, rows)| rows as usize).sum::<usize>();
        Ok(())
    }

    /// Retries while the contributor is unreachable, for as long as the options allow.
    pub(super) fn with_retries<T>(
        &mut self,
        mut attempt: impl FnMut(&mut UserSession) -> Result<T, CallError>,
    ) -> Result<T, Error> {
        self.remote.backoff.reset();
        loop {
            let error = match attempt(self) {
                Ok(done) => {
                    self.remote.backoff.succeeded();
                    return Ok(done);
                }
                Err(error) => error,
            };
            self.stream = None;
            let why = error.transient_reason(self.url())?;
            // A connection that stopped responding must not be used again.
            self.remote.disconnect();
            let Some(delay) = self.remote.backoff.next_delay() else {
                let elapsed = seconds(self.remote.backoff.elapsed());
                return Err(self.failed(format!(
                    "unreachable for {elapsed}; {} ({why})",
                    self.how_to_resume()
                )));
            };
            std::thread::sleep(delay);
        }
    }

    /// Advice for a user whose contributor is unreachable.
    pub(super) fn how_to_resume(&self) -> String {
        format!(
            "the session is kept in {}: run the same command again to resume it",
            self.folder.display()
        )
    }

    /// Sends a batch and receives its answer. Also returns the bytes of both on the wire.
    fn send(&mut self, batch: &Batch) -> Result<(InferResponse, (usize, usize)), CallError> {
        let (mut stream, is_new) = match self.stream.take() {
            Some(stream) => (stream, false),
            None => (self.connect(batch.sequence)?, true),
        };
        let answer = self.call(&mut stream, batch);
        self.stream = Some(stream);
        answer.map_err(|error| {
            let CallError::Status(status) = error else { return error };
            if is_refusal(&status) {
                if let Err(error) = self.log.append(Event::Withdrawn) {
                    return CallError::Permanent(error);
                }
                self.pending = None;
            }
            // The session was opened a moment ago. The contributor may forget a session without
            // rows before its first batch arrives.
            if is_new && status.code() == Code::PermissionDenied {
                return Status::unavailable(status.message()).into();
            }
            CallError::Status(status)
        })
    }

    /// Sends a batch over a stream, packed if the contributor reads that, and receives its answer.
    fn call(
        &self,
        stream: &mut Stream,
        batch: &Batch,
    ) -> Result<(InferResponse, (usize, usize)), CallError> {
        let Remote { manifest, network, options, packs, .. } = &self.remote;
        let kind = match packs {
            true => Kind::Packed(packing::pack_batch(batch)),
            false => Kind::Batch(batch.clone()),
        };
        let request = InferRequest { kind: Some(kind) };
        let sent = request.encoded_len();
        let answer = network.wait(stream.call(request, options.call_timeout))?;
        let received = answer.encoded_len();
        let answer = match packs {
            true => packing::unpack_answer(batch, &answer, manifest)
                .map_err(|why| CallError::Permanent(self.failed(why)))?,
            false => answer,
        };
        Ok((answer, (sent, received)))
    }

    /// Opens the session again and starts a stream. Sends batches again that the contributor lost.
    pub(super) fn connect(&mut self, sequence: u64) -> Result<Stream, CallError> {
        let timeout = self.remote.options.call_timeout;
        let (state, theirs) = self.open_again()?;
        let session = self.reference();
        let client = self.remote.client()?;
        let mut stream = self.remote.network.wait(Stream::start(client, session, timeout))?;
        if state != SessionState::Open {
            return Err(CallError::Permanent(
                self.failed("it says that this session has ended, which you did not ask for"),
            ));
        }
        if theirs > sequence + 1 {
            return Err(CallError::Permanent(self.failed(format!(
                "it has {theirs} batches of this session, you have {sequence}: another process \
                 uses the session; begin a new one"
            ))));
        }
        if theirs < sequence {
            self.send_again(&mut stream, theirs, sequence)?;
        }
        self.statistics.reconnections += usize::from(self.connected);
        self.connected = true;
        Ok(stream)
    }

    /// The state and the number of batches of the session at the contributor. Opens it there if it
    /// is not known.
    pub(super) fn open_again(&mut self) -> Result<(SessionState, u64), CallError> {
        let adapter_id = bytes::Bytes::copy_from_slice(&self.remote.manifest.id().0);
        let request = OpenSessionRequest { session: Some(self.reference()), adapter_id };
        let mut client = self.remote.client()?;
        let opened = with_timeout(self.remote.options.call_timeout, client.open_session(request));
        let opened = self.remote.network.wait(opened)?.into_inner();
        Ok((opened.state(), opened.next_sequence))
    }

    /// Sends batches again that the contributor lost with the end of its log, in a crash of its
    /// machine. It must compute the same deltas.
    fn send_again(&mut self, stream: &mut Stream, from: u64, to: u64) -> Result<(), CallError> {
        // Answers are compared with those in the file.
        self.log.flush().map_err(CallError::Permanent)?;
        let mut call_error = None;
        let read = log_index::read_answered(&self.folder.join(LOG), &mut |batch, known| {
            if !(from..to).contains(&batch.sequence) {
                return Ok(());
            }
            let error = match self.call(stream, &batch) {
                Ok((answer, _)) if answer == known => return Ok(()),
                Ok(_) => CallError::Permanent(self.failed(format!(
                    "batch {}: it answers the same rows with other deltas than before, so it \
                     cannot prove its earlier answer",
                    batch.sequence
                ))),
                Err(error) => error,
            };
            call_error = Some(error);
            // Ends the reading. `call_error` has the reason.
            Err(self.failed("it did not take the session again"))
        });
        match (call_error, read) {
            (Some(error), _) => Err(error),
            (None, read) => read.map_err(CallError::Permanent),
        }
    }

    pub(super) fn reference(&self) -> SessionRef {
        let copy = bytes::Bytes::copy_from_slice;
        SessionRef { id: copy(&self.id), key: copy(&self.key[..]) }
    }
}
