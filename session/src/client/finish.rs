//! The end of a session: the own trace, the contributor's proof, and the verdict.

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
    exchange::in_time,
    patience::Trouble,
    session::{LOG, PROOF, TRACE, UserSession},
};
use crate::{
    Error,
    session_log::Event,
    wire::{FetchProofRequest, FinishRequest, FinishResponse, ProofStage, SessionState},
};

/// How far the proof is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It waits for this many others.
    Queued(u32),
    /// It is being made.
    Proving,
    /// It is here and being verified.
    Verifying,
}

/// Messages about the proof that a contributor may send at any time, beyond one a second. It sends
/// one every two seconds, and one whenever something changes: a queue may get shorter quickly.
const STAGES_AT_ONCE: u64 = 1000;

/// What a contributor says of the proof: passed on when it changes, and counted.
struct Stages<'a> {
    since: Instant,
    heard: u64,
    last: Option<Progress>,
    progress: &'a mut dyn FnMut(Progress),
}

impl<'a> Stages<'a> {
    fn new(progress: &'a mut dyn FnMut(Progress)) -> Stages<'a> {
        Stages { since: Instant::now(), heard: 0, last: None, progress }
    }

    /// Takes one more message.
    ///
    /// # Errors
    /// There were more of them than there is a reason for.
    fn hear(&mut self, stage: &FinishResponse) -> Result<(), String> {
        self.heard += 1;
        let seconds = self.since.elapsed().as_secs();
        if self.heard > STAGES_AT_ONCE.saturating_add(seconds) {
            return Err(format!(
                "it said {} times within {seconds} s how far the proof is, more often than anything can change",
                self.heard
            ));
        }
        match stage.stage() {
            ProofStage::Queued => self.tell(Progress::Queued(stage.ahead)),
            ProofStage::Done => {}
            _ => self.tell(Progress::Proving),
        }
        Ok(())
    }

    fn tell(&mut self, now: Progress) {
        if self.last.replace(now) != Some(now) {
            (self.progress)(now);
        }
    }
}

/// A session that was proven and verified.
#[derive(Debug, Clone)]
pub struct Finished {
    /// What the verifier said.
    pub verdict: Verdict,
    /// Bytes of the proof.
    pub proof_bytes: usize,
    /// From the request to the proof being here.
    pub proof_time: Duration,
    /// Of the verification.
    pub verify_time: Duration,
}

impl UserSession {
    /// Ends the session: writes the own trace, asks for the proof, and verifies it. The folder then
    /// holds all that `zklora verify` needs. The trace is there before anything is waited for:
    /// a session without its proof can be told from none.
    ///
    /// # Errors
    /// [`Error::Proof`] or [`Error::NotYours`]: the answer is no. [`Error::Contributor`]: there is no proof; the same call can be tried again.
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
        self.settle()?;
        self.stream = None;
        if !self.ended {
            self.log.append(Event::Ended)?;
            self.ended = true;
        }
        self.log.sync()?;
        // The answer to a batch of before may have come.
        self.write_trace()?;
        let trace = TraceReader::trace(&self.folder.join(TRACE), &self.remote.manifest)?;
        let start = Instant::now();
        let deadline = tokio::time::Instant::now() + self.remote.options.proof_timeout;
        let mut stages = Stages::new(progress);
        let proof = self.insist(|session| session.proof(trace.digest(), deadline, &mut stages))?;
        let proof_time = start.elapsed();
        stages.tell(Progress::Verifying);
        let start = Instant::now();
        let own = OwnSession { id: Some(self.id), inputs: None };
        let verdict =
            verify::verify(&self.remote.manifest, &trace, &own, &proof, srs, keys, policy)?;
        let verify_time = start.elapsed();
        zklora_files::write(&self.folder.join(PROOF), &proof, Access::Public)?;
        zklora_files::remove(&self.folder.join(LOG))?;
        Ok(Finished { verdict, proof_bytes: proof.len(), proof_time, verify_time })
    }

    /// Writes the trace, unless it is there with all rows.
    fn write_trace(&mut self) -> Result<(), Error> {
        let path = self.folder.join(TRACE);
        if self.traced == Some(self.record.next) && path.exists() {
            return Ok(());
        }
        self.log.flush()?;
        self.record.write_trace(&path, self.id, &self.remote.manifest)?;
        self.traced = Some(self.record.next);
        Ok(())
    }

    fn proof(
        &mut self,
        own: TraceDigest,
        deadline: tokio::time::Instant,
        told: &mut Stages<'_>,
    ) -> Result<bytes::Bytes, Trouble> {
        let (session, sequence, timeout) =
            (self.reference(), self.record.next, self.remote.options.call_timeout);
        // A contributor whose machine died may have lost what it answered.
        if let (SessionState::Open, theirs) = self.open_again()?
            && theirs < sequence
        {
            self.connect(sequence)?;
            self.stream = None;
        }
        let mut client = self.remote.client()?;
        let mut heard = false;
        let mut flooded = None;
        let made = async {
            let request = FinishRequest { session: Some(session.clone()), sequence };
            let mut stages = in_time(timeout, client.finish(request)).await?.into_inner();
            let digest = loop {
                let stage = in_time(timeout, stages.message()).await?;
                let stage = stage.ok_or_else(|| {
                    Status::unavailable("it stopped telling how far the proof is")
                })?;
                heard = true;
                if let Err(why) = told.hear(&stage) {
                    flooded = Some(why);
                    return Err(Status::cancelled("it is not listened to any more"));
                }
                if stage.stage() == ProofStage::Done {
                    break stage.trace_digest;
                }
            };
            let fetched =
                in_time(timeout, client.fetch_proof(FetchProofRequest { session: Some(session) }))
                    .await?;
            Ok::<_, Status>((digest, fetched.into_inner().proof))
        };
        let made =
            self.remote.network.wait(async { tokio::time::timeout_at(deadline, made).await });
        if heard {
            // A proof takes long: what failed before it was there again is no reason to give up.
            // The deadline is.
            self.remote.patience.heard();
        }
        if let Some(why) = flooded {
            return Err(Trouble::Final(self.failed(format!("{why}; {}", self.how_to_go_on()))));
        }
        let Ok(made) = made else {
            return Err(Trouble::Final(self.failed(format!(
                "no proof within {} s; the session is kept in {}: run the same command again to wait longer",
                self.remote.options.proof_timeout.as_secs(),
                self.folder.display()
            ))));
        };
        let (digest, proof) = made?;
        if digest[..] != own.0 {
            return Err(Trouble::Final(Error::not_yours(format!(
                "{}: it proves other rows than you have: its digest of the session is {}, yours {}",
                self.remote.options.url,
                hex::encode(&digest[..digest.len().min(32)]),
                hex::encode(own.0)
            ))));
        }
        Ok(proof)
    }
}
