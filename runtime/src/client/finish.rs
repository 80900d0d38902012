//! The end of a session: the own trace, the contributor's proof, and the verdict.

use std::time::{Duration, Instant};

use tonic::Status;
use zklora_circuit::{
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
    files::{self, Access},
    session as proofs,
    session_log::Event,
    trace_reader::TraceReader,
    wire::{FetchProofRequest, FinishRequest, ProofStage, SessionState},
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
    /// Ends the session: writes the own trace, asks for the proof, and verifies it. The folder then holds all that `zklora verify`
    /// needs. The trace is there before anything is waited for: a session without its proof can be told from none.
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
        let trace = TraceReader::trace(&self.folder.join(TRACE), &self.remote.pinned)?;
        let start = Instant::now();
        let deadline = tokio::time::Instant::now() + self.remote.options.proof_timeout;
        let proof = self.insist(|session| session.proof(trace.digest(), deadline, progress))?;
        let proof_time = start.elapsed();
        progress(Progress::Verifying);
        let start = Instant::now();
        let verdict = proofs::verify(&self.remote.pinned, &trace, &proof, srs, keys, policy)?;
        let verify_time = start.elapsed();
        files::write(&self.folder.join(PROOF), &proof, Access::Public)?;
        files::remove(&self.folder.join(LOG))?;
        Ok(Finished { verdict, proof_bytes: proof.len(), proof_time, verify_time })
    }

    /// Writes the trace, unless it is there with all rows.
    fn write_trace(&mut self) -> Result<(), Error> {
        let path = self.folder.join(TRACE);
        if self.traced == Some(self.record.next) && path.exists() {
            return Ok(());
        }
        self.log.flush()?;
        self.record.write_trace(&path, self.id, &self.remote.pinned)?;
        self.traced = Some(self.record.next);
        Ok(())
    }

    fn proof(
        &mut self,
        own: TraceDigest,
        deadline: tokio::time::Instant,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<bytes::Bytes, Trouble> {
        let (session, sequence, timeout) = (self.reference(), self.record.next, self.remote.options.call_timeout);
        // A contributor whose machine died may have lost what it answered.
        if let (SessionState::Open, theirs) = self.open_again()?
            && theirs < sequence
        {
            self.connect(sequence)?;
            self.stream = None;
        }
        let mut client = self.remote.client()?;
        let mut heard = false;
        let made = async {
            let request = FinishRequest { session: Some(session.clone()), sequence };
            let mut stages = in_time(timeout, client.finish(request)).await?.into_inner();
            let digest = loop {
                let stage = in_time(timeout, stages.message()).await?;
                let stage = stage.ok_or_else(|| Status::unavailable("it stopped telling how far the proof is"))?;
                heard = true;
                match stage.stage() {
                    ProofStage::Queued => progress(Progress::Queued(stage.ahead)),
                    ProofStage::Done => break stage.trace_digest,
                    _ => progress(Progress::Proving),
                }
            };
            let fetched = in_time(timeout, client.fetch_proof(FetchProofRequest { session: Some(session) })).await?;
            Ok::<_, Status>((digest, fetched.into_inner().proof))
        };
        let made = self.remote.network.wait(async { tokio::time::timeout_at(deadline, made).await });
        if heard {
            // A proof takes long: what failed before it was there again is no reason to give up. The deadline is.
            self.remote.patience.heard();
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
            return Err(Trouble::Final(Error::NotYours(format!(
                "{}: it proves other rows than you have: its digest of the session is {}, yours {}",
                self.remote.options.url,
                hex::encode(&digest[..digest.len().min(32)]),
                hex::encode(own.0)
            ))));
        }
        Ok(proof)
    }
}
