//! Signed statements: DSSE envelopes with one Ed25519 signature.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    Error, canonical,
    digest::Digest,
    signing_key::{SigningKey, verify},
};

/// Longest envelope that is read, in bytes.
pub const MAX_BYTES: u64 = 256 << 20;

/// The kinds of statements. A signature over one is none over another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What a contributor offers.
    Offer,
    /// The answer to a request.
    Answer,
    /// A delivery.
    Delivery,
    /// A new key.
    Rotation,
}

impl Kind {
    fn media_type(self) -> &'static str {
        match self {
            Kind::Offer => "application/vnd.zklora.offer.v1+json",
            Kind::Answer => "application/vnd.zklora.answer.v1+json",
            Kind::Delivery => "application/vnd.zklora.delivery.v1+json",
            Kind::Rotation => "application/vnd.zklora.rotation.v1+json",
        }
    }

    /// The name of its file, for errors.
    fn file(self) -> &'static str {
        match self {
            Kind::Offer => "offer.json",
            Kind::Answer => "answer.json",
            Kind::Delivery => "delivery.json",
            Kind::Rotation => "rotation of a key",
        }
    }
}

/// An envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    keyid: Digest,
    sig: String,
}

/// What is signed: DSSE's pre-authentication encoding.
fn signed_bytes(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let media_type = kind.media_type();
    let mut bytes =
        format!("DSSEv1 {} {media_type} {} ", media_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl Envelope {
    /// Signs a statement.
    pub fn sign(key: &SigningKey, kind: Kind, payload: &[u8]) -> Envelope {
        let sig = key.sign(&signed_bytes(kind, payload));
        Envelope {
            payload: STANDARD.encode(payload),
            payload_type: kind.media_type().into(),
            signatures: vec![Signature { keyid: key.public(), sig: STANDARD.encode(sig) }],
        }
    }

    /// The bytes of the envelope.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        canonical::to_bytes(self)
    }

    /// Reads an envelope. Nothing is verified yet.
    ///
    /// # Errors
    /// [`Error::Form`].
    pub fn parse(bytes: &[u8], kind: Kind) -> Result<Envelope, Error> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Error::form(kind.file(), format!("it is longer than {MAX_BYTES} bytes")));
        }
        canonical::parse(bytes, kind.file())
    }

    /// The payload, whoever signed it.
    pub(crate) fn unverified(&self, kind: Kind) -> Result<Vec<u8>, Error> {
        STANDARD.decode(&self.payload).map_err(|error| Error::form(kind.file(), error))
    }

    /// The payload, if this key signed it as a statement of this kind.
    ///
    /// # Errors
    /// [`Error::Signature`].
    pub fn open(&self, kind: Kind, key: &Digest) -> Result<Vec<u8>, Error> {
        let refuse = |why: String| Error::Signature { what: kind.file().into(), why };
        if self.payload_type != kind.media_type() {
            return Err(refuse("it is another kind of statement".into()));
        }
        let [signature] = self.signatures.as_slice() else {
            return Err(refuse(format!("{} signatures, expected one", self.signatures.len())));
        };
        if signature.keyid != *key {
            return Err(refuse(format!(
                "it is signed by key {}, and not by the contributor's key {key}",
                signature.keyid
            )));
        }
        let payload = self.unverified(kind)?;
        let sig = STANDARD.decode(&signature.sig).ok().and_then(|sig| sig.try_into().ok());
        match sig {
            Some(sig) if verify(key, &signed_bytes(kind, &payload), &sig) => Ok(payload),
            _ => Err(refuse(format!(
                "the signature is not one of key {key} over these bytes: they were changed, or \
                 signed by another key"
            ))),
        }
    }
}
