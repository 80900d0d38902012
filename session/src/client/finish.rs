//! The end of a session: the user's trace, the contributor's proof, and the verdict.

use std::time::{Duration, Instant};

use tonic::Status;
use zklora_artifacts::{own_session::OwnSession, trace_reader::TraceReader, verify};
use zklora_files::Access;
use zklora_proof::{
    keys::KeyStore,
    srs::Srs,
    trace::TraceDigest,
    verifier::{SrsPolicy, Verdict},
};

use super::{
    retry::CallError,
    stream::with_timeout,
    user_session::{LOG, PROOF, TRACE, UserSession},
};
use crate::{
    Error,
    session_log::Event,
    wire::{FetchProofRequest, FinishRequest, FinishResponse, ProofStage, SessionState},
};

/// Progress of the proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It waits for this many other proofs.
    Queued(u32),
    /// It is being made.
    Proving,
    /// It was received and is being verified.
    Verifying,
}

/// Messages about the proof that a contributor may send beyond one a second. It sends one every two
/// seconds, and one at each change: a queue may get shorter quickly.
const MAX_BURST: u64 = 1000;

/// The contributor's messages about the proof: counted, and passed on when they change.
struct ProgressReports<'a> {
    since: Instant,
    received: u64,
    last: Option<Progress>,
    progress: &'a mut dyn FnMut(Progress),
}

impl<'a> ProgressReports<'a> {
    fn new(progress: &'a mut dyn FnMut(Progress)) -> ProgressReports<'a> {
        ProgressReports { since: Instant::now(), received: 0, last: None, progress }
    }

    /// Takes a message.
    ///
    /// # Errors
    /// There are too many messages.
    fn receive(&mut self, stage: &FinishResponse) -> Result<(), String> {
        self.received += 1;
        let seconds = self.since.elapsed().as_secs();
        if self.received > MAX_BURST.saturating_add(seconds) {
            return Err(format!(
                "it sent {} messages about the progress of the proof within {seconds} s, more than \
                 can be needed",
                self.received
            ));
        }
        match stage.stage() {
            ProofStage::Queued => self.report(Progress::Queued(stage.ahead)),
            ProofStage::Done => {}
            _ => self.report(Progress::Proving),
        }
        Ok(())
    }

    fn report(&mut self, now: Progress) {
        if self.last.replace(now) != Some(now) {
            (self.progress)(now);
        }
    }
}

/// A session that was proven and verified.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The verdict of the verifier.
    pub verdict: Verdict,
    /// Bytes of the proof.
    pub proof_bytes: usize,
    /// Time from the request until the proof was received.
    pub proof_time: Duration,
    /// Time of the verification.
    pub verify_time: Duration,
}

impl UserSession {
    /// Ends the session: writes the trace, requests the proof, and verifies it. The folder then
    /// holds all that `zklora verify` needs. The trace is written before any call to the
    /// contributor, so a folder shows that a session has no proof yet.
    ///
    /// # Errors
    /// [`Error::Artifact`]: the proof is rejected. [`Error::Contributor`]: there is no proof yet;
    /// the same call can be repeated.
    pub fn finish(
        &mut self,
        srs: &Srs,
        keys: &KeyStore,
        policy: SrsPolicy,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Finished, Error> {
        if self.rows() > 0 {
            self.write_trace()?;
        }
        self.resolve_pending()?;
        self.stream = None;
        if !self.ended {
            self.log.append(Event::Ended)?;
            self.ended = true;
        }
        self.log.sync()?;
        // Pending batches may have been answered.
        self.write_trace()?;
        let trace = TraceReader::trace(&self.folder.join(TRACE), &self.remote.manifest)?;
        let start = Instant::now();
        let deadline = tokio::time::Instant::now() + self.remote.options.proof_timeout;
        let mut reports = ProgressReports::new(progress);
        let proof = self.with_retries(|session| {
            session.request_proof(trace.digest(), deadline, &mut reports)
        })?;
        let proof_time = start.elapsed();
        reports.report(Progress::Verifying);
        let start = Instant::now();
        let expected = OwnSession { id: Some(self.id), inputs: None };
        let verdict =
            verify::verify(&self.remote.manifest, &trace, &expected, &proof, srs, keys, policy)?;
        let verify_time = start.elapsed();
        zklora_files::write(&self.folder.join(PROOF), &proof, Access::Public)?;
        zklora_files::remove(&self.folder.join(LOG))?;
        Ok(Finished { verdict, proof_bytes: proof.len(), proof_time, verify_time })
    }

    /// Writes the trace, unless it exists with all rows.
    fn write_trace(&mut self) -> Result<(), Error> {
        let path = self.folder.join(TRACE);
        if self.traced == Some(self.index.next) && path.exists() {
            return Ok(());
        }
        self.log.flush()?;
        self.index.write_trace(&path, self.id, &self.remote.manifest)?.publish()?;
        self.traced = Some(self.index.next);
        Ok(())
    }

    fn request_proof(
        &mut self,
        user_digest: TraceDigest,
        deadline: tokio::time::Instant,
        reports: &mut ProgressReports<'_>,
    ) -> Result<bytes::Bytes, CallError> {
        let (session, sequence, timeout) =
            (self.reference(), self.index.next, self.remote.options.call_timeout);
        // A crash of the contributor's machine may have lost batches that it answered.
        if let (SessionState::Open, theirs) = self.open_again()?
            && theirs < sequence
        {
            drop(self.connect()?);
        }
        let mut client = self.remote.client()?;
        let mut has_answered = false;
        let mut flooded = None;
        let exchange = async {
            let request = FinishRequest { session: Some(session.clone()), sequence };
            let mut stages = with_timeout(timeout, client.finish(request)).await?.into_inner();
            let digest = loop {
                let stage = with_timeout(timeout, stages.message()).await?;
                let stage = stage.ok_or_else(|| {
                    Status::unavailable("it ended the stream of progress before the proof")
                })?;
                has_answered = true;
                if let Err(why) = reports.receive(&stage) {
                    flooded = Some(why);
                    return Err(Status::cancelled("too many messages about the proof"));
                }
                if stage.stage() == ProofStage::Done {
                    break stage.trace_digest;
                }
            };
            let request = FetchProofRequest { session: Some(session) };
            let fetched = with_timeout(timeout, client.fetch_proof(request)).await?;
            Ok::<_, Status>((digest, fetched.into_inner().proof))
        };
        let result =
            self.remote.network.wait(async { tokio::time::timeout_at(deadline, exchange).await });
        if has_answered {
            // A proof takes long. Failures before the contributor was reachable again do not end
            // the retries; the deadline does.
            self.remote.backoff.succeeded();
        }
        if let Some(why) = flooded {
            return Err(CallError::Permanent(
                self.failed(format!("{why}; {}", self.how_to_resume())),
            ));
        }
        let Ok(result) = result else {
            return Err(CallError::Permanent(self.failed(format!(
                "no proof within {} s; the session is kept in {}: run the same command again to \
                 wait longer",
                self.remote.options.proof_timeout.as_secs(),
                self.folder.display()
            ))));
        };
        let (digest, proof) = result?;
        if digest[..] != user_digest.0 {
            return Err(CallError::Permanent(Error::not_yours(format!(
                "{}: it proves other rows than you have: its digest of the session is {}, yours {}",
                self.remote.options.url,
                hex::encode(&digest[..digest.len().min(32)]),
                hex::encode(user_digest.0)
            ))));
        }
        Ok(proof)
    }
}
