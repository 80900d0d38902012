//! Exchanging batches and answers over connections that may break or stop responding. Calls are
//! retried, and batches that the contributor lost are sent again.

use std::time::Instant;

use tonic::{Code, Status};

use super::{
    log_index::{self, OutgoingBatch},
    retry::{CallError, is_refusal, seconds},
    stream::{Stream, with_timeout},
    user_session::{CallFigures, LOG, UserSession},
};
use crate::{
    Error,
    batch::parse_answer,
    session_log::Event,
    wire::{Batch, InferResponse, OpenSessionRequest, SessionRef, SessionState},
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
        let answer = self.with_retries(|session| session.send(batch))?;
        let deltas_bytes: usize = answer.deltas.iter().map(bytes::Bytes::len).sum();
        let deltas =
            parse_answer(batch, &answer, &self.remote.manifest).map_err(|why| self.failed(why))?;
        // If a crash loses it, the same batch is sent again and gets the same deltas.
        let offset = self.log.append_later(Event::Answered(answer.clone()));
        self.pending = None;
        let added = self.index.add(outgoing, &answer, deltas, offset);
        added.map_err(|why| self.failed(why))?;
        let inputs =
            batch.rows.iter().flat_map(|rows| rows.inputs.iter().chain([&rows.ones, &rows.scales]));
        let call = CallFigures {
            seconds: start.elapsed().as_secs_f64(),
            sent: inputs.map(|bytes| bytes.len()).sum(),
            received: deltas_bytes,
        };
        self.statistics.add(call, batch.counts().map(|(_, rows)| rows as usize).sum());
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

    fn send(&mut self, batch: &Batch) -> Result<InferResponse, CallError> {
        let (mut stream, is_new) = match self.stream.take() {
            Some(stream) => (stream, false),
            None => (self.connect(batch.sequence)?, true),
        };
        let timeout = self.remote.options.call_timeout;
        let answer = self.remote.network.wait(stream.call(batch, timeout));
        self.stream = Some(stream);
        answer.map_err(|status| {
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
        let timeout = self.remote.options.call_timeout;
        let mut call_error = None;
        let read = log_index::read_answered(&self.folder.join(LOG), &mut |batch, known| {
            if !(from..to).contains(&batch.sequence) {
                return Ok(());
            }
            let error = match self.remote.network.wait(stream.call(&batch, timeout)) {
                Ok(answer) if answer == known => return Ok(()),
                Ok(_) => CallError::Permanent(self.failed(format!(
                    "batch {}: it answers the same rows with other deltas than before, so it \
                     cannot prove its earlier answer",
                    batch.sequence
                ))),
                Err(status) => status.into(),
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
