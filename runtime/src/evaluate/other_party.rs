//! The contributor as the buyer sees it, over a network or not.

use zklora_evaluation::{proving::ProofLimits, request::FullRequest, sample::ProofRequest};

use crate::Error;

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A step of this machine.
    Local(&'static str),
    /// The price is known, and what was left of the budget.
    Price {
        /// Bits of this request.
        bits: u64,
        /// Bits that the contributor says are left.
        left: u64,
    },
    /// Units are being sent.
    Sending,
    /// This many requests are before it.
    Waiting(u32),
    /// This many units of all are scored.
    Scoring(u64, u64),
    /// This many parts of the sample's proof are there.
    Proving(u64, u64),
    /// The contributor is unreachable for now.
    Retrying,
}

/// What a contributor says that it offers.
#[derive(Debug, Clone)]
pub struct OfferedNow {
    /// `offer.json`
    pub offer: Vec<u8>,
    /// `manifest.json`
    pub manifest: Vec<u8>,
    /// `registration.proof`, if there is one.
    pub registration: Option<Vec<u8>>,
    /// Bits that are left for this buyer.
    pub bits_left: u64,
    /// What it proves, for this buyer.
    pub proofs: ProofLimits,
}

/// The other party, over a network or not.
pub trait Contributor {
    /// What it offers now.
    ///
    /// # Errors
    /// It is unreachable.
    fn offered(&mut self) -> Result<OfferedNow, Error>;

    /// Its answer to a request.
    ///
    /// # Errors
    /// It is unreachable, or refuses.
    fn evaluate(
        &mut self,
        request: &FullRequest,
        progress: &mut dyn FnMut(Step),
    ) -> Result<Vec<u8>, Error>;

    /// Its proof of a sample.
    ///
    /// # Errors
    /// It is unreachable, or refuses.
    fn prove(
        &mut self,
        request: &ProofRequest,
        progress: &mut dyn FnMut(Step),
    ) -> Result<Vec<u8>, Error>;
}

#[cfg(feature = "network")]
impl Contributor for zklora_session::client::Evaluator<'_> {
    fn offered(&mut self) -> Result<OfferedNow, Error> {
        let zklora_session::client::Offered { offer, manifest, registration, bits_left, proofs } =
            self.offer()?;
        Ok(OfferedNow { offer, manifest, registration, bits_left, proofs })
    }

    fn evaluate(
        &mut self,
        request: &FullRequest,
        progress: &mut dyn FnMut(Step),
    ) -> Result<Vec<u8>, Error> {
        let mut told = |step| progress(step_of(step, Step::Scoring));
        Ok(zklora_session::client::Evaluator::evaluate(self, request, &mut told)?)
    }

    fn prove(
        &mut self,
        request: &ProofRequest,
        progress: &mut dyn FnMut(Step),
    ) -> Result<Vec<u8>, Error> {
        let mut told = |step| progress(step_of(step, Step::Proving));
        Ok(zklora_session::client::Evaluator::prove(self, &request.to_bytes()?, &mut told)?)
    }
}

#[cfg(feature = "network")]
fn step_of(step: zklora_session::client::Step, done: fn(u64, u64) -> Step) -> Step {
    use zklora_session::client::Step as Remote;
    match step {
        Remote::Sending => Step::Sending,
        Remote::Waiting(ahead) => Step::Waiting(ahead),
        Remote::Scoring(scored, units) => done(scored, units),
        Remote::Retrying => Step::Retrying,
    }
}
