//! A delivery: the adapter, encrypted, and a signed statement that binds ciphertext, key and price
//! to an answer.

use std::io::{Read, Write};

use age::{
    secrecy::ExposeSecret,
    x25519::{Identity as AgeIdentity, Recipient},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    Error, archive,
    archive::Entry,
    canonical::{self, check_format},
    digest::Digest,
    envelope::{Envelope, Kind},
    offer::{SignedOffer, check_text},
    signing_key::SigningKey,
};

const FILE: &str = "delivery.json";
const CIPHERTEXT: &str = "delivery.age";
const FORMAT: (&str, u32) = ("zklora-delivery", 1);
const KEY_CONTEXT: &str = "zklora v1 delivery key";
const MAX_FILES: usize = 1 << 12;
/// Most bytes of a ciphertext.
pub const MAX_CIPHERTEXT: u64 = 16 << 30;
/// Version of how an adapter's files are read and quantised.
pub const QUANTISATION: u32 = 1;

/// The key of a delivery. What an escrow exchanges for money.
pub struct DeliveryKey(Zeroizing<String>);

impl std::fmt::Debug for DeliveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeliveryKey({}, not shown)", self.digest())
    }
}

impl DeliveryKey {
    /// A fresh key.
    pub fn generate() -> DeliveryKey {
        let identity = AgeIdentity::generate();
        DeliveryKey(Zeroizing::new(identity.to_string().expose_secret().to_string()))
    }

    /// Reads a key: exactly the text, without white space around it.
    ///
    /// # Errors
    /// [`Error::Form`]: it is none.
    pub fn parse(text: &str) -> Result<DeliveryKey, Error> {
        let is_one = text.parse::<AgeIdentity>().is_ok_and(|identity| {
            // One spelling: the digest is of the text.
            identity.to_string().expose_secret() == text
        });
        match is_one {
            true => Ok(DeliveryKey(Zeroizing::new(text.into()))),
            false => {
                let why = "not the key of a delivery: it begins with AGE-SECRET-KEY-1";
                Err(Error::form("key", why))
            }
        }
    }

    /// The text, which is a secret until it is paid for.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the statement says of it.
    pub fn digest(&self) -> Digest {
        digest_of_key(self.0.as_bytes())
    }

    fn sha256(&self) -> Digest {
        sha256_of_key(self.0.as_bytes())
    }

    fn identity(&self) -> Result<AgeIdentity, Error> {
        self.0.parse().map_err(|why: &str| Error::Internal(why.into()))
    }
}

/// What a statement says of a key with this text.
fn digest_of_key(text: &[u8]) -> Digest {
    Digest::derived(KEY_CONTEXT, text)
}

fn sha256_of_key(text: &[u8]) -> Digest {
    Digest(Sha256::digest(text).into())
}

/// The payload of a delivery statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Digest of the answer.
    pub answer: Digest,
    /// Digest of `delivery.age`.
    pub ciphertext: Digest,
    /// Its length.
    pub ciphertext_bytes: u64,
    /// The names of the delivered files, in the order of the archive.
    pub files: Vec<String>,
    format: String,
    /// Digest of the key.
    pub key: Digest,
    /// Until when the key is handed over for the price, as text.
    pub key_by: String,
    /// SHA-256 of the key, for an escrow that knows no BLAKE3.
    pub key_sha256: Digest,
    /// Digest of the offer.
    pub offer: Digest,
    /// The price, as text.
    pub price: String,
    /// Version of how the adapter's files are read and quantised.
    pub quantisation: u32,
    /// The version of zklora that made it.
    pub tool: String,
    /// Until when the buyer settles, as text.
    pub verdict_by: String,
    version: u32,
}

/// What the contributor says of a delivery.
#[derive(Debug, Clone)]
pub struct DeliveryTerms {
    /// Digest of the answer that it is for.
    pub answer: Digest,
    /// Until when the key is handed over.
    pub key_by: String,
    /// The price.
    pub price: String,
    /// Until when the buyer settles.
    pub verdict_by: String,
}

impl DeliveryTerms {
    /// Checks the texts.
    ///
    /// # Errors
    /// [`Error::Form`].
    pub fn check(&self) -> Result<(), Error> {
        for (name, text) in
            [("price", &self.price), ("key_by", &self.key_by), ("verdict_by", &self.verdict_by)]
        {
            check_text(name, text)?;
        }
        match self.price.trim().is_empty() {
            true => Err(Error::form("price", "it is empty: say what the key costs")),
            false => Ok(()),
        }
    }
}

/// Encrypts the files of a delivery to a key.
///
/// # Errors
/// The ciphertext cannot be made.
pub fn encrypt<'a>(
    key: &DeliveryKey,
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<Vec<u8>, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Internal(format!("encryption: {error}"));
    let recipient: Recipient = key.identity()?.to_public();
    let recipients = std::iter::once(&recipient as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients).map_err(|error| failed(&error))?;
    let mut ciphertext = Vec::new();
    let mut writer = encryptor.wrap_output(&mut ciphertext).map_err(|error| failed(&error))?;
    archive::write(files, &mut writer)?;
    writer.flush().map_err(|error| failed(&error))?;
    writer.finish().map_err(|error| failed(&error))?;
    Ok(ciphertext)
}

/// The files of a delivery.
///
/// # Errors
/// [`Error::Form`]: the key does not decrypt it, or it is no archive. Under digests that the
/// contributor signed, that is the contributor's fault.
pub fn decrypt(key: &DeliveryKey, ciphertext: &[u8]) -> Result<Vec<Entry>, Error> {
    let refuse = |error: &dyn std::fmt::Display| Error::form(CIPHERTEXT, error);
    check_header(ciphertext)?;
    let decryptor = age::Decryptor::new(ciphertext).map_err(|error| refuse(&error))?;
    let identity = key.identity()?;
    let identities = std::iter::once(&identity as &dyn age::Identity);
    let mut reader = decryptor.decrypt(identities).map_err(|error| refuse(&error))?;
    // The plaintext is no longer than the ciphertext.
    let mut bytes = Zeroizing::new(Vec::with_capacity(ciphertext.len()));
    reader.read_to_end(&mut bytes).map_err(|error| refuse(&error))?;
    archive::read(&bytes, CIPHERTEXT)
}

/// Whether the header of a ciphertext means the same to all tools: binary, and one recipient beside
/// those that stand for nothing ("grease").
///
/// # Errors
/// [`Error::Form`].
pub fn check_header(ciphertext: &[u8]) -> Result<(), Error> {
    const MAX_HEADER: usize = 16 << 10;
    let refuse = |why: &str| Err(Error::form(CIPHERTEXT, why));
    let start = &ciphertext[..ciphertext.len().min(MAX_HEADER)];
    let mut lines = start.split(|byte| *byte == b'\n');
    if lines.next() != Some(b"age-encryption.org/v1") {
        return refuse("it is no binary file of age, version 1");
    }
    let mut recipients = 0;
    for line in lines {
        if line.starts_with(b"---") {
            return match recipients {
                1 => Ok(()),
                _ => refuse("it is not encrypted to one X25519 key"),
            };
        }
        if let Some(stanza) = line.strip_prefix(b"-> ") {
            let kind = stanza.split(|byte| *byte == b' ').next().unwrap_or_default();
            match kind {
                b"X25519" => recipients += 1,
                kind if kind.ends_with(b"-grease") => {}
                _ => return refuse("it has a recipient that is no X25519 key"),
            }
        }
    }
    refuse("its header does not end")
}

impl Delivery {
    /// Signs the statement for a ciphertext.
    ///
    /// # Errors
    /// A text is too long.
    pub fn sign(
        signing: &SigningKey,
        offer: &SignedOffer,
        terms: DeliveryTerms,
        key: &DeliveryKey,
        (ciphertext, files): (&[u8], Vec<String>),
    ) -> Result<Vec<u8>, Error> {
        let (format, version) = FORMAT;
        let delivery = Delivery {
            answer: terms.answer,
            ciphertext: Digest::of(ciphertext),
            ciphertext_bytes: ciphertext.len() as u64,
            files,
            format: format.into(),
            key: key.digest(),
            key_by: terms.key_by,
            key_sha256: key.sha256(),
            offer: offer.digest,
            price: terms.price,
            quantisation: QUANTISATION,
            tool: env!("CARGO_PKG_VERSION").into(),
            verdict_by: terms.verdict_by,
            version,
        };
        delivery.check()?;
        Envelope::sign(signing, Kind::Delivery, &canonical::to_bytes(&delivery)?).to_bytes()
    }

    /// Reads a statement that the offer's key signed for this answer to this offer.
    ///
    /// # Errors
    /// It is signed by another key, or for something else.
    pub fn read(bytes: &[u8], offer: &SignedOffer, answer: &Digest) -> Result<Delivery, Error> {
        let envelope = Envelope::parse(bytes, Kind::Delivery)?;
        let payload = envelope.open(Kind::Delivery, &offer.offer.key)?;
        let delivery: Delivery = canonical::parse(&payload, FILE)?;
        delivery.check()?;
        if delivery.offer != offer.digest {
            return Err(Error::mismatch(FILE, "it is for another offer"));
        }
        if delivery.answer != *answer {
            let why = format!("it is for answer {}, and not for {answer}", delivery.answer);
            return Err(Error::mismatch(FILE, why));
        }
        Ok(delivery)
    }

    fn check(&self) -> Result<(), Error> {
        check_format(FILE, (&self.format, self.version), FORMAT)?;
        for text in [&self.price, &self.key_by, &self.verdict_by, &self.tool] {
            check_text(FILE, text)?;
        }
        if self.files.len() > MAX_FILES {
            return Err(Error::form(FILE, "its list of files is too long"));
        }
        if !self.files.iter().all(|file| archive::is_plain(file)) {
            return Err(Error::form(FILE, "a name of its files is none of an archive"));
        }
        if release(&self.tool).is_none() {
            return Err(Error::form(FILE, "tool is no version of zklora"));
        }
        Ok(())
    }

    /// Whether a newer zklora made it than this one, which may not read all adapters.
    pub fn is_newer(&self) -> bool {
        release(&self.tool) > release(env!("CARGO_PKG_VERSION"))
    }

    /// Whether the ciphertext is the one that the contributor signed.
    ///
    /// # Errors
    /// [`Error::Mismatch`].
    pub fn check_ciphertext(&self, ciphertext: &[u8]) -> Result<(), Error> {
        if ciphertext.len() as u64 == self.ciphertext_bytes
            && Digest::of(ciphertext) == self.ciphertext
        {
            return Ok(());
        }
        let why = "it is not the ciphertext of the delivery statement: get it again";
        Err(Error::mismatch(CIPHERTEXT, why))
    }

    /// The key, if this is the text that the contributor signed; as it came, or without white space
    /// around it.
    ///
    /// # Errors
    /// [`Error::Mismatch`]: it is another text. [`Error::Form`]: it is the text, and no key, or the
    /// two signed digests are of two texts, which is the contributor's fault.
    pub fn key(&self, text: &[u8]) -> Result<DeliveryKey, Error> {
        let matches =
            |text: &[u8]| (digest_of_key(text) == self.key, sha256_of_key(text) == self.key_sha256);
        let texts = [text, text.trim_ascii()];
        let Some(text) = texts.into_iter().find(|text| matches(text) != (false, false)) else {
            let why = "it is not the key of the delivery statement";
            return Err(Error::mismatch("key", why));
        };
        // An escrow may know either digest, and pays for the text that has it.
        if matches(text) != (true, true) {
            let why = "the statement's two digests, BLAKE3 and SHA-256, are of two texts";
            return Err(Error::form("key", why));
        }
        let no_key = || Error::form("key", "the signed digest is of a text that is no key");
        DeliveryKey::parse(std::str::from_utf8(text).map_err(|_| no_key())?)
    }
}

/// The three numbers of a version.
fn release(version: &str) -> Option<[u32; 3]> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    let release = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(release)
}
