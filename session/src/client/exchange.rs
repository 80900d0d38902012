//! Exchanging batches and answers over connections that may break or stop responding. Calls are
//! retried, and batches that the contributor lost are sent again.
//!
//! Several batches may be sent before the first one is answered. The contributor answers them in
//! order. All of them are in the log, and after a break they are sent again, in order. Until the
//! first answer over a new stream, nothing else is sent.

use std::time::Instant;

use prost::Message;
use tonic::{Code, Status};

use super::{
    in_flight::{Failure, SentBatch},
    log_index,
    remote::Remote,
    retry::{CallError, is_refusal, seconds},
    stream::{Stream, Waiter, no_answer, with_timeout},
    user_session::{CallFigures, LOG, UserSession},
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
    /// Gets the answers to all batches, or learns that they were refused.
    pub(super) fn resolve_pending(&mut self) -> Result<(), Error> {
        loop {
            self.exchange()?;
            match self.waiter() {
                Some(waiter) => waiter.wait(),
                None => return Ok(()),
            }
        }
    }

    /// Sends batches and takes the answers that have arrived, without waiting for more. Retries as
    /// needed.
    pub(super) fn exchange(&mut self) -> Result<(), Error> {
        while let Err(error) = self.try_exchange() {
            if let Err(error) = self.recover(error) {
                self.in_flight.drop_planned(&match &error {
                    Error::Contributor { why, .. } => why.clone(),
                    other => other.to_string(),
                });
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits for the next answer. None: no batch is without one.
    pub(super) fn waiter(&self) -> Option<Waiter> {
        let deadline = self.in_flight.since + self.remote.options.call_timeout;
        let stream = self.stream.as_ref().filter(|_| !self.in_flight.is_empty());
        stream.map(|stream| stream.waiter(deadline))
    }

    fn try_exchange(&mut self) -> Result<(), CallError> {
        loop {
            self.send_planned()?;
            let Some(arrived) = self.stream.as_ref().and_then(Stream::take) else { break };
            match arrived {
                Ok(answer) => self.take_answer(&answer)?,
                Err(status) => self.take_status(status)?,
            }
        }
        let timeout = self.remote.options.call_timeout;
        match self.in_flight.sent().is_empty() || self.in_flight.since.elapsed() < timeout {
            true => Ok(()),
            false => Err(no_answer(timeout).into()),
        }
    }

    /// Writes planned batches to the log and sends them, as many as may be in flight.
    fn send_planned(&mut self) -> Result<(), CallError> {
        if !self.in_flight.sent().is_empty() {
            self.ensure_stream()?;
        }
        while let Some(job) = self.in_flight.next() {
            // A contributor that has not answered over this stream gets no further rows.
            if self.is_silent && !self.in_flight.sent().is_empty() {
                break;
            }
            let at = self.in_flight.sent().len();
            let sequence = self.index.next + at as u64;
            let batch = Batch { sequence, ..job.outgoing.batch.clone() };
            self.log.append(Event::Sent(batch.clone())).map_err(CallError::Permanent)?;
            self.in_flight.add_sent(batch);
            if self.stream.is_some() {
                self.send(at);
            } else {
                self.ensure_stream()?;
            }
        }
        Ok(())
    }

    /// Makes a stream if there is none, and sends all batches over it that have no answer.
    fn ensure_stream(&mut self) -> Result<(), CallError> {
        if self.stream.is_none() {
            self.stream = Some(self.connect()?);
            self.is_silent = true;
            self.in_flight.since = Instant::now();
            (0..self.in_flight.sent().len()).for_each(|at| self.send(at));
        }
        Ok(())
    }

    /// Sends the batch at this index of those that have no answer.
    fn send(&mut self, at: usize) {
        let (Some(sent), Some(stream)) = (self.in_flight.sent().get(at), &self.stream) else {
            return;
        };
        let request = self.request_of(&sent.batch);
        let bytes = request.encoded_len();
        stream.send(request);
        self.in_flight.set_wire_bytes(at, bytes);
    }

    /// A batch as a message, packed if the contributor reads that.
    fn request_of(&self, batch: &Batch) -> InferRequest {
        InferRequest {
            kind: Some(match self.remote.packs {
                true => Kind::Packed(packing::pack_batch(batch)),
                false => Kind::Batch(batch.clone()),
            }),
        }
    }

    /// An answer, unpacked if it is packed.
    fn unpacked(&self, batch: &Batch, answer: &InferResponse) -> Result<InferResponse, Error> {
        let Remote { manifest, packs, .. } = &self.remote;
        match packs {
            true => packing::unpack_answer(batch, answer, manifest).map_err(|why| self.failed(why)),
            false => Ok(answer.clone()),
        }
    }

    /// Checks the answer to the oldest batch, and keeps it.
    fn take_answer(&mut self, answer: &InferResponse) -> Result<(), CallError> {
        let Some(SentBatch { batch, job, since, wire_bytes }) = self.in_flight.sent().front()
        else {
            let why = "it answers a batch that was not sent";
            return Err(CallError::Permanent(self.failed(why)));
        };
        let refuse = |why: String| CallError::Permanent(self.failed(why));
        let (received, seconds) = (answer.encoded_len(), since.elapsed().as_secs_f64());
        let answer = self.unpacked(batch, answer).map_err(CallError::Permanent)?;
        let deltas = parse_answer(batch, &answer, &self.remote.manifest).map_err(refuse)?;
        // If a crash loses it, the same batch is sent again and gets the same deltas.
        let offset = self.log.append_later(Event::Answered(answer.clone()));
        let added = self.index.add(batch, &job.outgoing.sets, &answer, deltas, offset);
        let url = &self.remote.options.url;
        let refused = |why| CallError::Permanent(Error::Contributor { url: url.clone(), why });
        let offsets = added.map_err(refused)?;
        let figures = CallFigures { seconds, sent: *wire_bytes, received };
        self.statistics.add(figures, batch.counts().map(|(_, rows)| rows as usize).sum());
        self.in_flight.answered(offsets);
        self.is_silent = false;
        self.remote.backoff.succeeded();
        Ok(())
    }

    /// The stream has ended with a status, which may refuse the oldest batch.
    fn take_status(&mut self, status: Status) -> Result<(), CallError> {
        self.stream = None;
        if is_refusal(&status) && !self.in_flight.sent().is_empty() {
            // None of the batches in flight was counted.
            self.log.append(Event::Withdrawn).map_err(CallError::Permanent)?;
            self.in_flight.refused(&status);
            return Ok(());
        }
        // The session was opened a moment ago. The contributor may forget a session without rows
        // before its first batch arrives.
        if self.is_silent && status.code() == Code::PermissionDenied {
            return Err(Status::unavailable(status.message()).into());
        }
        Err(status.into())
    }

    /// The error of a batch that has no answer.
    pub(super) fn failure(&self, failure: &Failure) -> Error {
        match failure {
            Failure::Refused(status) => Error::status(self.url(), status),
            Failure::NotSent(why) => self.failed(why.clone()),
        }
    }

    /// Retries while the contributor is unreachable, for as long as the options allow.
    pub(super) fn with_retries<T>(
        &mut self,
        mut attempt: impl FnMut(&mut UserSession) -> Result<T, CallError>,
    ) -> Result<T, Error> {
        self.remote.backoff.reset();
        loop {
            match attempt(self) {
                Ok(done) => {
                    self.remote.backoff.succeeded();
                    return Ok(done);
                }
                Err(error) => self.recover(error)?,
            }
        }
    }

    /// After a failure that a retry may mend, waits until it is time for the retry.
    ///
    /// # Errors
    /// A retry does not help, or the time for retries is over.
    fn recover(&mut self, error: CallError) -> Result<(), Error> {
        self.stream = None;
        let why = error.transient_reason(self.url())?;
        // A connection that stopped responding must not be used again.
        self.remote.disconnect();
        let Some(delay) = self.remote.backoff.next_delay() else {
            let elapsed = seconds(self.remote.backoff.elapsed());
            return Err(
                self.failed(format!("unreachable for {elapsed}; {} ({why})", self.how_to_resume()))
            );
        };
        std::thread::sleep(delay);
        Ok(())
    }

    /// Advice for a user whose contributor is unreachable.
    pub(super) fn how_to_resume(&self) -> String {
        format!(
            "the session is kept in {}: run the same command again to resume it",
            self.folder.display()
        )
    }

    /// Opens the session again and starts a stream. Sends batches again that the contributor lost.
    pub(super) fn connect(&mut self) -> Result<Stream, CallError> {
        let timeout = self.remote.options.call_timeout;
        let (state, theirs) = self.open_again()?;
        let session = self.reference();
        let client = self.remote.client()?;
        let stream = Stream::start(&self.remote.network, client, session, timeout)?;
        if state != SessionState::Open {
            return Err(CallError::Permanent(
                self.failed("it says that this session has ended, which you did not ask for"),
            ));
        }
        let answered = self.index.next;
        let sent = answered + self.in_flight.sent().len() as u64;
        if theirs > sent {
            return Err(CallError::Permanent(self.failed(format!(
                "it has {theirs} batches of this session, you have {sent}: another process uses \
                 the session; begin a new one"
            ))));
        }
        if theirs < answered {
            self.send_again(&stream, theirs, answered)?;
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
    fn send_again(&mut self, stream: &Stream, from: u64, to: u64) -> Result<(), CallError> {
        // Answers are compared with those in the file.
        self.log.flush().map_err(CallError::Permanent)?;
        let mut call_error = None;
        let read = log_index::read_answered(&self.folder.join(LOG), &mut |batch, known| {
            if !(from..to).contains(&batch.sequence) {
                return Ok(());
            }
            let answer = stream
                .call(self.request_of(&batch), self.remote.options.call_timeout)
                .map_err(CallError::Status)
                .and_then(|answer| self.unpacked(&batch, &answer).map_err(CallError::Permanent));
            let error = match answer {
                Ok(answer) if answer == known => return Ok(()),
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
