//! Proving samples: charge, store, prove. What is on the disk after each step makes the next one
//! possible after a crash.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use zklora_files::Access;

use crate::{
    Error,
    answer::Answer,
    offer::SignedOffer,
    request::FullRequest,
    sample::{ProofRequest, Sample},
};

/// The request to prove, in the buyer's folder and in that of a request of the contributor.
pub const PROOF_REQUEST: &str = "proof-request.json";
/// The finished proof.
pub const PROOF: &str = "proof.tar";
/// The folder of parts.
const PARTS: &str = "proof-parts";
/// A file that says that the contributor gave a proof up.
const GIVEN_UP: &str = "proof.given-up";
/// Whoever has locked it works on the proof.
const LOCK: &str = "proof.lock";
/// How long a lock is waited for.
const LOCKED: Duration = Duration::from_secs(2);
/// Longest proof that is read, in bytes.
pub const MAX_PROOF: u64 = 1 << 30;

/// What a contributor proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProofLimits {
    /// Most tokens of a sample, all choices of a question counted; 0 if nothing is proven.
    pub tokens: u64,
    /// Most leaves of a part's tree of lookups: the memory of a proof grows with them.
    pub leaves: u64,
    /// Samples that a client may have proven; in an answer to a client, those that are left.
    pub samples: u64,
}

impl ProofLimits {
    /// Those of a contributor that proves nothing.
    pub const NONE: ProofLimits = ProofLimits { tokens: 0, leaves: 0, samples: 0 };
}

/// What is proven.
pub struct ProofJob {
    /// The offer.
    pub offer: SignedOffer,
    /// What was asked.
    pub request: ProofRequest,
    /// The sample.
    pub sample: Sample,
    /// A private folder for what is finished.
    pub folder: PathBuf,
}

/// Proves samples. The caller stores what it returns.
pub trait Prover: Send + Sync {
    /// What it proves.
    fn limits(&self) -> ProofLimits;

    /// Why a sample cannot be proven, for public reasons; none if it can. Asked before the charge.
    fn refuses(&self, sample: &Sample) -> Option<String>;

    /// The proof of a job, as the bytes of [`PROOF`]. `progress` is told how many parts of all are
    /// proven, and returns false to stop: then there is no proof, and what was proven is kept in
    /// the job's folder.
    ///
    /// # Errors
    /// The sample cannot be proven, or the machine failed.
    fn prove(
        &self,
        job: &ProofJob,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Option<Vec<u8>>, Error>;
}

/// Where the proof of a request stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownProof {
    /// It was not asked for.
    New,
    /// It was charged, and stored.
    Accepted,
    /// It is finished.
    Proven(Vec<u8>),
}

/// What is stored of the proof in a request's folder.
///
/// # Errors
/// [`Error::Refused`]: another sample was asked for. There is one draw an answer.
pub(crate) fn known(folder: &Path, request: &ProofRequest) -> Result<KnownProof, Error> {
    let path = folder.join(PROOF_REQUEST);
    if !path.is_file() {
        return Ok(KnownProof::New);
    }
    let stored = zklora_files::read(&path, crate::sample::MAX_BYTES)?;
    if stored != request.to_bytes()? {
        return Err(Error::Refused(
            "another sample of this answer was asked for before: there is one draw an answer"
                .into(),
        ));
    }
    if let given_up @ Err(_) = check_given_up(folder) {
        // A process that was killed while it proved a part leaves secrets.
        forget_parts(folder)?;
        return given_up.map(|()| KnownProof::New);
    }
    let proof = folder.join(PROOF);
    if !proof.is_file() {
        return Ok(KnownProof::Accepted);
    }
    // A crash between the last two steps of `finish` leaves secrets.
    remove_parts(folder)?;
    Ok(KnownProof::Proven(zklora_files::read(&proof, MAX_PROOF)?))
}

/// Locks what is stored of a proof, over processes, until the file is dropped. It waits briefly for
/// somebody who writes, and not for somebody who proves.
///
/// # Errors
/// Another process has the lock: two servers of one identity.
pub(crate) fn lock(folder: &Path) -> Result<std::fs::File, Error> {
    let start = Instant::now();
    loop {
        match try_lock(folder)? {
            Some(file) => return Ok(file),
            None if start.elapsed() < LOCKED => std::thread::sleep(LOCKED / 20),
            None => {
                let why = "another process proves this sample: wait for it";
                return Err(zklora_files::Error::new(&folder.join(LOCK), why).into());
            }
        }
    }
}

/// The lock, if nobody else has it.
fn try_lock(folder: &Path) -> Result<Option<std::fs::File>, Error> {
    let (path, file) = lock_file(folder)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(zklora_files::Error::new(&path, error).into())
        }
    }
}

fn lock_file(folder: &Path) -> Result<(PathBuf, std::fs::File), Error> {
    let path = folder.join(LOCK);
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|error| zklora_files::Error::new(&path, error))?;
    Ok((path, file))
}

/// Stores a request to prove.
pub(crate) fn store(folder: &Path, request: &ProofRequest) -> Result<(), Error> {
    let bytes = request.to_bytes()?;
    Ok(zklora_files::write(&folder.join(PROOF_REQUEST), &bytes, Access::Private)?)
}

/// The job of a stored request.
pub(crate) fn job(
    folder: &Path,
    offer: SignedOffer,
    full: &FullRequest,
    answer: &Answer,
) -> Result<ProofJob, Error> {
    let path = folder.join(PROOF_REQUEST);
    let request = ProofRequest::parse(&zklora_files::read(&path, crate::sample::MAX_BYTES)?)?;
    let sample = request.sample(full, answer)?;
    let parts = folder.join(PARTS);
    zklora_files::create_folder(&parts, Access::Private)?;
    Ok(ProofJob { offer, request, sample, folder: parts })
}

/// Gives a proof up that is not finished: nobody makes it, and the buyer is told. A part that is
/// being proven is ended first.
///
/// # Errors
/// [`Error::Refused`]: none was asked for, or it is finished.
pub(crate) fn give_up(folder: &Path) -> Result<(), Error> {
    if !folder.join(PROOF_REQUEST).is_file() {
        return Err(Error::Refused("no proof was asked for of this request's answer".into()));
    }
    let check_finished = || match folder.join(PROOF).is_file() {
        true => Err(Error::Refused("the proof is finished".into())),
        false => Ok(()),
    };
    check_finished()?;
    zklora_files::write(&folder.join(GIVEN_UP), &[], Access::Private)?;
    // It may have been finished, and sent, in between. From now on it is not sent.
    if let finished @ Err(_) = check_finished() {
        zklora_files::remove(&folder.join(GIVEN_UP))?;
        return finished;
    }
    forget_parts(folder)
}

/// Removes the parts, unless somebody is proving: whoever proves it does so.
fn forget_parts(folder: &Path) -> Result<(), Error> {
    match try_lock(folder)? {
        Some(_lock) => remove_parts(folder),
        None => Ok(()),
    }
}

/// # Errors
/// [`Error::Refused`]: the contributor gave the proof up. Its parts are removed.
pub(crate) fn check_given_up(folder: &Path) -> Result<(), Error> {
    match folder.join(GIVEN_UP).is_file() {
        true => Err(Error::Refused("the contributor gave this proof up".into())),
        false => Ok(()),
    }
}

/// Stores a finished proof, and removes its parts.
pub(crate) fn finish(folder: &Path, proof: &[u8]) -> Result<(), Error> {
    zklora_files::write(&folder.join(PROOF), proof, Access::Private)?;
    remove_parts(folder)
}

/// Removes the parts, also while another thread does.
pub(crate) fn remove_parts(folder: &Path) -> Result<(), Error> {
    let parts = folder.join(PARTS);
    let failed = |error: std::io::Error| -> Result<(), Error> {
        match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(zklora_files::Error::new(&parts, error).into()),
        }
    };
    let entries = match std::fs::read_dir(&parts) {
        Ok(entries) => entries,
        Err(error) => return failed(error),
    };
    for entry in entries {
        let path = entry.map_err(|e| zklora_files::Error::new(&parts, e))?.path();
        zklora_files::remove(&path)?;
    }
    std::fs::remove_dir(&parts).or_else(failed)
}
