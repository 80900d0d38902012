//! The buyer's folder of an evaluation. Its files have the names that evidence gives them.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;
use zklora_artifacts::folder::{REGISTRATION, read_registration};
use zklora_evaluation::{
    answer::Answer,
    delivery::{Delivery, MAX_CIPHERTEXT},
    digest::Digest,
    envelope,
    evidence::{ANSWER, CIPHERTEXT, DELIVERY, MANIFEST, OFFER, REQUEST, UNITS},
    offer::SignedOffer,
    proving::{PROOF, PROOF_REQUEST},
    request::{self, FullRequest, Request},
};
use zklora_files::Access;
use zklora_proof::manifest;

use super::memory::{Memory, read_hex};
use crate::Error;

/// The buyer's secret, mode 0600. Its second nonce, which draws a sample, is derived from it.
const DRAW: &str = "draw";
/// What a verified proof says.
const SAMPLE: &str = "sample.json";
/// What settling found.
const SETTLEMENT: &str = "settlement.json";
/// Length of the line that ends it.
const MAC: usize = 1 + 64 + 1;
/// The name of evidence that settling writes.
pub(super) const EVIDENCE: &str = "evidence.tar";

/// A folder.
#[derive(Debug, Clone)]
pub struct Folder {
    /// Its path.
    pub path: PathBuf,
    memory: Memory,
}

impl Folder {
    /// The folder at a path, which may not exist yet, as the user with this memory sees it.
    pub fn new(path: &Path, memory: &Memory) -> Folder {
        Folder { path: path.to_path_buf(), memory: memory.clone() }
    }

    /// Locks the folder until the file is dropped; it is made if it is not there.
    pub(super) fn lock(&self) -> Result<std::fs::File, Error> {
        if self.path.is_file() {
            return Err(Error::file(&self.path, "this is a file, and a folder is needed"));
        }
        zklora_files::create_folder(&self.path, Access::Private)?;
        let path = self.file("lock");
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| Error::file(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::Error(error)) => Err(Error::file(&path, error)),
            Err(std::fs::TryLockError::WouldBlock) => {
                let why = "another `zklora evaluate` is at work in this folder";
                Err(Error::file(&self.path, why))
            }
        }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a file.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let path = self.file(name);
        if !path.exists() {
            let why = match name {
                DELIVERY | CIPHERTEXT => {
                    "it is not here: ask the contributor for the delivery (zklora deliver), and \
                     put its files into this folder"
                }
                PROOF => "there is no proof yet: run the same `zklora evaluate --prove` again",
                ANSWER if self.has_request() => {
                    "the evaluation is not finished: run the same `zklora evaluate` again"
                }
                _ => "it is not here: name a folder that `zklora evaluate` wrote",
            };
            return Err(Error::file(&path, why));
        }
        Ok(zklora_files::read(&path, limit)?)
    }

    /// Writes a file that only its owner reads.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        Ok(zklora_files::write(&self.file(name), bytes, Access::Private)?)
    }

    /// Whether a request is kept here.
    pub fn has_request(&self) -> bool {
        self.file(REQUEST).exists()
    }

    /// Whether an answer is kept here.
    pub fn has_answer(&self) -> bool {
        self.file(ANSWER).exists()
    }

    /// Whether a delivery is kept here.
    pub fn has_delivery(&self) -> bool {
        self.file(DELIVERY).exists()
    }

    /// Keeps a request. The request's own file is the last one: if it is there, all others are.
    pub(super) fn keep_request(
        &self,
        offer: &SignedOffer,
        (manifest, registration): (&[u8], Option<&[u8]>),
        full: &FullRequest,
        draw: &Zeroizing<[u8; 32]>,
    ) -> Result<(), Error> {
        zklora_files::create_folder(&self.path, Access::Private)?;
        self.write(OFFER, &offer.bytes)?;
        self.write(MANIFEST, manifest)?;
        if let Some(registration) = registration {
            self.write(REGISTRATION, registration)?;
        }
        self.write(UNITS, &full.unit_bytes)?;
        self.write(DRAW, Zeroizing::new(hex::encode(&draw[..])).as_bytes())?;
        self.write(REQUEST, &full.bytes)
    }

    /// The offer.
    ///
    /// # Errors
    /// It is not here, or not valid.
    pub fn offer(&self) -> Result<SignedOffer, Error> {
        Ok(SignedOffer::parse(&self.read(OFFER, manifest::MAX_BYTES as u64)?)?)
    }

    /// The bytes of the manifest.
    ///
    /// # Errors
    /// It is not here.
    pub fn manifest(&self) -> Result<Vec<u8>, Error> {
        self.read(MANIFEST, manifest::MAX_BYTES as u64)
    }

    /// The bytes of the registration, if the adapter is registered.
    ///
    /// # Errors
    /// It cannot be read, or is longer than any.
    pub fn registration(&self) -> Result<Option<Vec<u8>>, Error> {
        Ok(read_registration(&self.path)?)
    }

    /// The request with its units.
    ///
    /// # Errors
    /// It is not here, its units are others, or more than the offer allows: those of a folder that
    /// somebody else made could fill the memory.
    pub fn request(&self) -> Result<FullRequest, Error> {
        let limits = self.offer()?.offer.limits;
        let bytes = self.read(REQUEST, request::MAX_BYTES)?;
        let units = self.read(UNITS, limits.most_bytes().min(zklora_files::MAX_FILE))?;
        Ok(FullRequest::parse_within(&bytes, units, limits.tokens)?)
    }

    /// The answer to the request.
    ///
    /// # Errors
    /// It is not here, or not the contributor's answer to this request.
    pub fn answer(&self, offer: &SignedOffer, request: &FullRequest) -> Result<Answer, Error> {
        Ok(Answer::read(&self.read(ANSWER, envelope::MAX_BYTES)?, offer, request)?)
    }

    /// The delivery statement.
    ///
    /// # Errors
    /// It is not here, or not for this answer.
    pub fn delivery(&self, offer: &SignedOffer, answer: &Answer) -> Result<Delivery, Error> {
        let bytes = self.read(DELIVERY, envelope::MAX_BYTES)?;
        Ok(Delivery::read(&bytes, offer, &answer.digest()?)?)
    }

    /// The ciphertext.
    ///
    /// # Errors
    /// It is not here.
    pub fn ciphertext(&self) -> Result<Vec<u8>, Error> {
        self.read(CIPHERTEXT, MAX_CIPHERTEXT)
    }

    /// Takes the two files of a delivery into this folder.
    pub(super) fn take_delivery(&self, statement: &[u8], ciphertext: &[u8]) -> Result<(), Error> {
        if self.has_delivery() && self.read(DELIVERY, envelope::MAX_BYTES)? == statement {
            return Ok(());
        }
        self.write(CIPHERTEXT, ciphertext)?;
        self.write(DELIVERY, statement)?;
        // What was found for another delivery.
        Ok(zklora_files::remove(&self.file(SETTLEMENT))?)
    }

    /// What settling found last, as JSON. A file that this user's tool did not write, such as one
    /// that came with a delivery or with the whole folder, does not count.
    pub(super) fn settlement(&self) -> Result<Option<Vec<u8>>, Error> {
        self.own(SETTLEMENT)
    }

    /// Keeps what settling found.
    pub(super) fn keep_settlement(&self, json: &[u8]) -> Result<(), Error> {
        self.keep_own(SETTLEMENT, json)
    }

    /// The second nonce, which the buyer shows when it asks for a proof.
    pub(super) fn draw_nonce(&self, request: &Request) -> Result<[u8; 32], Error> {
        let path = self.file(DRAW);
        let secret = if path.exists() { read_hex(&path)? } else { None };
        let nonce = secret.map(|secret| nonce_of(&secret));
        nonce.filter(|nonce| Digest::of(nonce) == request.draw).ok_or_else(|| {
            let why = "it has no nonce for a draw, or the request is of an earlier zklora: \
                       evaluate again with another --out";
            Error::file(&self.path, why)
        })
    }

    /// What was proven of a sample, as JSON.
    pub(super) fn sample(&self) -> Result<Option<Vec<u8>>, Error> {
        self.own(SAMPLE)
    }

    /// Keeps what was proven of a sample.
    pub(super) fn keep_sample(&self, json: &[u8]) -> Result<(), Error> {
        self.keep_own(SAMPLE, json)
    }

    /// Whether a proof was asked for.
    pub fn has_proof_request(&self) -> bool {
        self.file(PROOF_REQUEST).exists()
    }

    /// Whether a proof is here, which may not hold.
    pub(super) fn has_proof(&self) -> bool {
        self.file(PROOF).exists()
    }

    /// A file that this user's tool wrote.
    fn own(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        if !self.file(name).exists() {
            return Ok(None);
        }
        let Some(secret) = self.memory.secret()? else { return Ok(None) };
        let bytes = self.read(name, 1 << 20)?;
        let Some((json, mac)) = bytes.split_at_checked(bytes.len().saturating_sub(MAC)) else {
            return Ok(None);
        };
        Ok((code(name, json, &secret).as_bytes() == mac).then(|| json.to_vec()))
    }

    fn keep_own(&self, name: &str, json: &[u8]) -> Result<(), Error> {
        match self.memory.secret_or_new()? {
            Some(secret) => {
                self.write(name, &[json, code(name, json, &secret).as_bytes()].concat())
            }
            // Without the user's secret it would not count.
            None => Ok(()),
        }
    }
}

/// The line that ends an own file: a code under the user's secret, which lies in no folder that
/// anybody else makes.
fn code(name: &str, json: &[u8], secret: &[u8; 32]) -> String {
    let context = match name {
        SETTLEMENT => "zklora v2 settlement",
        _ => "zklora v2 sample",
    };
    let key = Zeroizing::new(blake3::derive_key(context, secret));
    format!("\n{}\n", blake3::keyed_hash(&key, json).to_hex())
}

/// The second nonce of a secret.
pub(super) fn nonce_of(secret: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("zklora v1 evaluation draw nonce", secret)
}
