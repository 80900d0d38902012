//! Answering requests: charge, store, score, sign. What is on the disk after each step makes the
//! next one possible after a crash.
//!
//! ```text
//! request + units ─ check, price ─ charge (ledger) ─ store
//!     ─ score (checkpoint) ─ sign ─ answer.json
//! ```

use std::{path::Path, sync::Arc};

use zklora_files::Access;
use zklora_integer::unit::Unit;

use crate::{
    Error,
    answer::Answer,
    checkpoint::Checkpoint,
    digest::Digest,
    envelope,
    evidence::{ANSWER, REQUEST, UNITS},
    identity::{Identity, Lineage},
    offer::SignedOffer,
    proving::{self, KnownProof, PROOF, ProofLimits, Prover},
    request::{FullRequest, MAX_BYTES, Request, sequences},
    sample::ProofRequest,
    signing_key::SigningKey,
    spending::{Charge, Spent},
    unit_scores::Scorer,
};

const SCORES: &str = "scores";
/// Tokens that are scored between two entries of the checkpoint.
const TOKENS_AT_ONCE: usize = 4096;
/// The client of public claims.
pub const CLAIMS: &str = "(public claims)";

/// A contributor that answers requests for one offer.
pub struct Answering {
    /// The offer.
    pub offer: SignedOffer,
    key: SigningKey,
    lineage: Lineage,
    scorer: Arc<dyn Scorer>,
    prover: Option<Arc<dyn Prover>>,
}

impl std::fmt::Debug for Answering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answering(offer {})", self.offer.digest)
    }
}

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Nothing: its units are needed.
    New,
    /// It was charged, and its units are on the disk.
    Accepted,
    /// Its signed answer.
    Answered(Vec<u8>),
}

impl Answering {
    /// Answers for an offer of this identity.
    ///
    /// # Errors
    /// The offer is by another key, or its adapter belongs to no lineage.
    pub fn new(
        offer: SignedOffer,
        identity: Identity,
        scorer: Arc<dyn Scorer>,
    ) -> Result<Answering, Error> {
        if offer.offer.key != identity.key.public() {
            return Err(Error::mismatch(
                "offer.json",
                "another key signed it than this identity's: make the offer again",
            ));
        }
        let Some(lineage) = identity.lineage_of(&offer.offer.adapter_id)? else {
            return Err(Error::mismatch(
                "offer.json",
                "this identity never offered this adapter: make the offer again",
            ));
        };
        Ok(Answering { offer, key: identity.key, lineage, scorer, prover: None })
    }

    /// A signed answer that this identity gave for an adapter, with its offer and lineage.
    ///
    /// # Errors
    /// There is none.
    pub fn stored_answer(
        identity: &Identity,
        adapter: &Digest,
        request: &Digest,
    ) -> Result<(SignedOffer, Answer, Lineage), Error> {
        let none = || {
            let why = format!("there is no answer to request {request} for this adapter");
            Error::Refused(format!("{why}: `zklora evaluate` and the server's log name requests"))
        };
        let lineage = identity.lineage_of(adapter)?.ok_or_else(none)?;
        let folder = lineage.request(request);
        let path = folder.join(ANSWER);
        if !path.is_file() {
            return Err(none());
        }
        let full = read_stored(&folder)?;
        let offer = lineage.offer(&full.request.offer)?;
        if offer.offer.adapter_id != *adapter {
            return Err(none());
        }
        if offer.offer.key != identity.key.public() {
            return Err(Error::Refused(
                "the answer is for an offer of an earlier key, which no longer signs: have the \
                 buyer evaluate again with the new offer"
                    .into(),
            ));
        }
        let bytes = zklora_files::read(&path, envelope::MAX_BYTES)?;
        let answer = Answer::read(&bytes, &offer, &full)?;
        Ok((offer, answer, lineage))
    }

    /// Also proves samples.
    #[must_use]
    pub fn with_prover(self, prover: Arc<dyn Prover>) -> Answering {
        Answering { prover: Some(prover), ..self }
    }

    /// What is proven.
    pub fn proof_limits(&self) -> ProofLimits {
        self.prover.as_ref().map_or(ProofLimits::NONE, |prover| prover.limits())
    }

    /// What is proven, and how many samples are left of a client's own.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn proofs_left(&self, client: &str) -> Result<ProofLimits, Error> {
        let limits = self.proof_limits();
        let samples = limits.samples.saturating_sub(self.spent()?.samples_of(client));
        Ok(ProofLimits { samples, ..limits })
    }

    /// What is spent of the budget.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn spent(&self) -> Result<Spent, Error> {
        self.lineage.spending().read()
    }

    /// The lineage.
    pub fn lineage(&self) -> &str {
        &self.lineage.name
    }

    /// Bits that are left of a client's own share. What others spent is not for it to know.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn left(&self, client: &str) -> Result<u64, Error> {
        let share = self.offer.offer.budget.bits_per_client;
        Ok(share.saturating_sub(self.spent()?.bits_of(client)))
    }

    /// What is known of a request that a client sent.
    ///
    /// # Errors
    /// [`Error::Refused`]: another client sent it.
    pub fn known(&self, request: &Digest, client: &str) -> Result<Known, Error> {
        let spent = self.spent()?;
        let Some(charge) = spent.of_request(request) else { return Ok(Known::New) };
        if charge.client != client {
            return Err(Error::Refused("another client sent this request".into()));
        }
        let folder = self.lineage.request(request);
        if folder.join(ANSWER).is_file() {
            // A crash between the last two steps of `answer` leaves the scores of single units.
            zklora_files::remove(&folder.join(SCORES))?;
            let bytes = zklora_files::read(&folder.join(ANSWER), envelope::MAX_BYTES)?;
            return Ok(Known::Answered(bytes));
        }
        let is_stored = folder.join(REQUEST).is_file() && folder.join(UNITS).is_file();
        Ok(if is_stored { Known::Accepted } else { Known::New })
    }

    /// Checks a request without its units.
    ///
    /// # Errors
    /// It is no request for this offer, or one for a public claim, which only the contributor
    /// makes.
    pub fn check_request(&self, bytes: &[u8]) -> Result<(), Error> {
        let request = Request::parse(bytes)?;
        if request.offer != self.offer.digest {
            return Err(Error::Refused(format!(
                "the request is for offer {}, and this contributor's is {}: get the offer again",
                request.offer, self.offer.digest
            )));
        }
        if request.is_claim() {
            return Err(Error::Refused("its nonce is all zeros: draw 32 random bytes".into()));
        }
        Ok(())
    }

    /// Checks, charges and stores a request. When this returns, the charge and the units are on the
    /// disk.
    ///
    /// # Errors
    /// [`Error::Refused`] and errors of form, for public reasons and before the charge.
    pub fn accept(&self, full: &FullRequest, client: &str) -> Result<(), Error> {
        let bits = full.price(&self.offer)?;
        for (at, unit) in full.units.iter().enumerate() {
            if let Some(why) = self.scorer.refuses(unit) {
                return Err(Error::Refused(format!("unit {at}: {why}")));
            }
        }
        let charge = Charge::new(
            self.offer.offer.adapter_id,
            self.offer.digest,
            full.digest,
            client,
            bits,
            full.units.len() as u64,
        );
        self.lineage.spending().charge(&charge, &self.offer.offer.budget)?;
        let folder = self.lineage.request(&full.digest);
        zklora_files::create_folder(&folder, Access::Private)?;
        zklora_files::write(&folder.join(UNITS), &full.unit_bytes, Access::Private)?;
        Ok(zklora_files::write(&folder.join(REQUEST), &full.bytes, Access::Private)?)
    }

    /// Scores a stored request, signs the answer and stores it. `progress` is told how many units
    /// are scored, and returns false to stop: then there is no answer, and what was scored is kept.
    ///
    /// # Errors
    /// The request is not stored, or the machine failed.
    pub fn answer(
        &self,
        request: &Digest,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Option<Vec<u8>>, Error> {
        let folder = self.lineage.request(request);
        let full = read_stored(&folder)?;
        let (mut checkpoint, mut scores) = Checkpoint::open(&folder.join(SCORES), request)?;
        // Another process may have answered before this one had the lock.
        let path = folder.join(ANSWER);
        if path.is_file() {
            checkpoint.remove()?;
            return Ok(Some(zklora_files::read(&path, envelope::MAX_BYTES)?));
        }
        scores.truncate(full.units.len());
        while scores.len() < full.units.len() {
            if !progress(scores.len() as u64, full.units.len() as u64) {
                return Ok(None);
            }
            let rest = &full.units[scores.len()..];
            let part = &rest[..at_once(rest)];
            let more = self.scorer.score(part)?;
            checkpoint.append(&more)?;
            scores.extend(more);
        }
        let bytes = Answer::compute(&self.offer, &full, &scores)?.sign(&self.key)?;
        zklora_files::write(&path, &bytes, Access::Private)?;
        checkpoint.remove()?;
        Ok(Some(bytes))
    }
}

impl Answering {
    /// What is known of a request to prove.
    ///
    /// # Errors
    /// [`Error::Refused`]: nothing was answered to this client, or another sample was asked for.
    pub fn known_proof(&self, request: &ProofRequest, client: &str) -> Result<KnownProof, Error> {
        if self.prover.is_none() {
            return Err(Error::Refused(PROVES_NOTHING.into()));
        }
        let folder = self.lineage.request(&request.request);
        match self.known(&request.request, client)? {
            Known::Answered(_) => match proving::known(&folder, request)? {
                // A finished one stays; nothing is proven for an offer that is no longer made.
                proven @ KnownProof::Proven(_) => Ok(proven),
                _ if read_stored(&folder)?.request.offer != self.offer.digest => {
                    Err(Error::Refused(
                        "the answer is for an earlier offer, and nothing is proven of it any more: \
                         get the offer again, and evaluate with it"
                            .into(),
                    ))
                }
                other => Ok(other),
            },
            Known::New | Known::Accepted => Err(Error::Refused(NO_ANSWER.into())),
        }
    }

    /// Checks, charges and stores a request to prove.
    ///
    /// # Errors
    /// [`Error::Refused`] and errors of form, for public reasons and before the charge.
    pub fn accept_proof(&self, request: &ProofRequest, client: &str) -> Result<(), Error> {
        if self.known_proof(request, client)? != KnownProof::New {
            return Ok(());
        }
        let folder = self.lineage.request(&request.request);
        let (full, answer) = self.stored(&folder)?;
        let sample = request.sample(&full, &answer)?;
        let ProofLimits { tokens: most, samples, .. } = self.proof_limits();
        let tokens: usize = sample.units.iter().flat_map(sequences).map(|of| of.tokens.len()).sum();
        if tokens as u64 > most {
            return Err(Error::Refused(format!(
                "the sample has {tokens} tokens, and this contributor proves samples of up to \
                 {most}: ask for a smaller one"
            )));
        }
        // Only then: what this takes grows with the tokens, and nothing was paid for yet.
        if let Some(why) = self.prover.as_ref().and_then(|prover| prover.refuses(&sample)) {
            return Err(Error::Refused(format!("the sample cannot be proven: {why}")));
        }
        // One draw an answer, also over several connections and processes.
        let _lock = proving::lock(&folder)?;
        if proving::known(&folder, request)? != KnownProof::New {
            return Ok(());
        }
        let charge = Charge::new(
            self.offer.offer.adapter_id,
            self.offer.digest,
            request.digest()?,
            client,
            request.price(&self.offer),
            u64::from(request.units),
        );
        let budget = &self.offer.offer.budget;
        self.lineage.spending().charge_sample(charge, budget, samples)?;
        proving::store(&folder, request)
    }

    /// Proves a stored sample, and stores the proof.
    ///
    /// # Errors
    /// Nothing is stored, the sample cannot be proven, or the machine failed.
    pub fn prove(
        &self,
        request: &Digest,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Option<Vec<u8>>, Error> {
        let none = || Error::Refused(PROVES_NOTHING.into());
        let prover = self.prover.as_ref().ok_or_else(none)?;
        let folder = self.lineage.request(request);
        let _lock = proving::lock(&folder)?;
        // Another process may have proven it before this one had the lock.
        let done = folder.join(PROOF);
        if done.is_file() {
            return Ok(Some(zklora_files::read(&done, proving::MAX_PROOF)?));
        }
        let (full, answer) = self.stored(&folder)?;
        let job = proving::job(&folder, self.offer.clone(), &full, &answer)?;
        let mut go_on =
            |proven, parts| proving::check_given_up(&folder).is_ok() && progress(proven, parts);
        let proof = prover.prove(&job, &mut go_on);
        if let given_up @ Err(_) = proving::check_given_up(&folder) {
            proving::remove_parts(&folder)?;
            return given_up.map(|()| None);
        }
        let Some(proof) = proof? else { return Ok(None) };
        proving::finish(&folder, &proof)?;
        Ok(Some(proof))
    }

    /// Gives up a proof that is not finished, also while a server makes it.
    ///
    /// # Errors
    /// [`Error::Refused`]: nobody asked for it, or it is finished.
    pub fn give_up_proof(
        identity: &Identity,
        adapter: &Digest,
        request: &Digest,
    ) -> Result<(), Error> {
        let (_, _, lineage) = Answering::stored_answer(identity, adapter, request)?;
        proving::give_up(&lineage.request(request))
    }

    /// A stored request with its answer.
    fn stored(&self, folder: &Path) -> Result<(FullRequest, Answer), Error> {
        let full = read_stored(folder)?;
        let bytes = zklora_files::read(&folder.join(ANSWER), envelope::MAX_BYTES)?;
        let answer = Answer::read(&bytes, &self.offer, &full)?;
        Ok((full, answer))
    }
}

/// Why nothing is proven of a request that has no answer.
pub const NO_ANSWER: &str = "there is no answer to the request that it names: evaluate first";

const PROVES_NOTHING: &str = "this contributor proves no samples: it was started without --prove";

/// How many units are scored at once.
fn at_once(units: &[Unit]) -> usize {
    let mut tokens = 0;
    let fits = |unit: &&Unit| {
        tokens += sequences(unit).iter().map(|of| of.tokens.len()).sum::<usize>();
        tokens <= TOKENS_AT_ONCE
    };
    units.iter().take_while(fits).count().max(1)
}

/// The request that is stored in a folder.
fn read_stored(folder: &Path) -> Result<FullRequest, Error> {
    let bytes = zklora_files::read(&folder.join(REQUEST), MAX_BYTES)?;
    FullRequest::parse(&bytes, zklora_files::read(&folder.join(UNITS), zklora_files::MAX_FILE)?)
}
