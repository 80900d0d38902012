//! What a contributor offers, signed.

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    canonical::{self, check_format},
    digest::Digest,
    envelope::{Envelope, Kind},
    signing_key::SigningKey,
};

const FILE: &str = "offer.json";
const FORMAT: (&str, u32) = ("zklora-offer", 1);
const ROTATION: (&str, u32) = ("zklora-rotation", 1);
/// Most changes of a key.
const MAX_ROTATIONS: usize = 64;
/// Longest texts, in bytes.
pub const MAX_TEXT: usize = 1024;
/// Most units of a request, whatever an offer says.
pub const MAX_UNITS: usize = 1 << 20;
/// Most tokens of a request, whatever an offer says.
pub const MAX_TOKENS: u64 = 1 << 31;

/// Bits that answers may tell of the adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bits {
    /// Of this adapter's lineage, to all clients together.
    pub bits: u64,
    /// To one client.
    pub bits_per_client: u64,
}

/// The largest request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Tokens of all sequences. What the choices of a question share counts for each.
    pub tokens: u64,
    /// Tokens of one sequence.
    pub unit_tokens: u64,
    /// Units.
    pub units: u64,
}

impl Limits {
    /// Most bytes of the units of a request.
    pub fn most_bytes(&self) -> u64 {
        // A token has 4 bytes. A sequence has at least 2 tokens, and up to 12 bytes besides; a unit
        // 17.
        self.tokens.saturating_mul(10).saturating_add(self.units.saturating_mul(17))
    }
}

/// The payload of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The pin: BLAKE3 of the manifest.
    pub adapter_id: Digest,
    /// The base model's name, for people.
    pub base_model: String,
    /// The budget.
    pub budget: Bits,
    /// How the key is bound to somebody, for people. Not checked.
    pub contact: String,
    format: String,
    /// BLAKE3 of `integer-model.json`.
    pub integer_model: Digest,
    /// The public key.
    pub key: Digest,
    /// For each module of the manifest, the operator of the integer model that it adapts.
    pub layers: Vec<u32>,
    /// The largest request.
    pub limits: Limits,
    /// Whether scores of single units are answered.
    pub per_unit: bool,
    /// Earlier keys, oldest first.
    pub rotations: Vec<Envelope>,
    /// Version of the rules of the integer model.
    pub rules: u32,
    /// Fractional bits of a score.
    pub score_bits: i32,
    version: u32,
}

/// What an offer says, and what zklora adds.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The pin.
    pub adapter_id: Digest,
    /// The base model's name.
    pub base_model: String,
    /// The budget.
    pub budget: Bits,
    /// How the key is bound to somebody.
    pub contact: String,
    /// Digest of the integer model.
    pub integer_model: Digest,
    /// The adapted operators.
    pub layers: Vec<u32>,
    /// The largest request.
    pub limits: Limits,
    /// Whether scores of single units are answered.
    pub per_unit: bool,
    /// Earlier keys.
    pub rotations: Vec<Envelope>,
    /// Version of the rules.
    pub rules: u32,
    /// Fractional bits of a score.
    pub score_bits: i32,
}

/// The payload of a change of keys, signed by the old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    format: String,
    new: Digest,
    old: Digest,
    version: u32,
}

/// The statement that `new` follows `old`.
pub fn rotation(old: &SigningKey, new: &Digest) -> Result<Envelope, Error> {
    let (format, version) = ROTATION;
    let rotation = Rotation { format: format.into(), new: *new, old: old.public(), version };
    Ok(Envelope::sign(old, Kind::Rotation, &canonical::to_bytes(&rotation)?))
}

/// Checks a text of a statement: plain ASCII, which has one JSON form.
pub(crate) fn check_text(what: &str, text: &str) -> Result<(), Error> {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && !b"\"\\".contains(&byte);
    match text.len() <= MAX_TEXT && text.bytes().all(plain) {
        true => Ok(()),
        false => Err(Error::form(
            what,
            format!("`{text}` is no text of up to {MAX_TEXT} ASCII characters without \" and \\"),
        )),
    }
}

/// The key that a rotation is to, whoever signed it.
pub(crate) fn rotated_to(rotation: &Envelope) -> Result<Digest, Error> {
    let payload = rotation.unverified(Kind::Rotation)?;
    Ok(canonical::parse::<Rotation>(&payload, "rotation of a key")?.new)
}

/// An offer with a valid signature, its envelope and its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedOffer {
    /// What it says.
    pub offer: Offer,
    /// BLAKE3 of the payload.
    pub digest: Digest,
    /// The bytes of the file.
    pub bytes: Vec<u8>,
    /// The key before all rotations, and those after it. The last one is the offer's.
    pub keys: Vec<Digest>,
}

impl SignedOffer {
    /// Signs an offer.
    ///
    /// # Errors
    /// The terms break a rule of an offer.
    pub fn sign(key: &SigningKey, terms: Terms) -> Result<SignedOffer, Error> {
        let (format, version) = FORMAT;
        let offer = Offer {
            adapter_id: terms.adapter_id,
            base_model: terms.base_model,
            budget: terms.budget,
            contact: terms.contact,
            format: format.into(),
            integer_model: terms.integer_model,
            key: key.public(),
            layers: terms.layers,
            limits: terms.limits,
            per_unit: terms.per_unit,
            rotations: terms.rotations,
            rules: terms.rules,
            score_bits: terms.score_bits,
            version,
        };
        let payload = canonical::to_bytes(&offer)?;
        SignedOffer::parse(&Envelope::sign(key, Kind::Offer, &payload).to_bytes()?)
    }

    /// Reads an offer, and checks its signature by the key that it names itself: who that key
    /// belongs to is for its reader to know.
    ///
    /// # Errors
    /// The file is no offer, or its signature is not valid.
    pub fn parse(bytes: &[u8]) -> Result<SignedOffer, Error> {
        let envelope = Envelope::parse(bytes, Kind::Offer)?;
        let offer: Offer = canonical::parse(&envelope.unverified(Kind::Offer)?, FILE)?;
        let payload = envelope.open(Kind::Offer, &offer.key)?;
        offer.check()?;
        let keys = offer.keys()?;
        let digest = Digest::of(&payload);
        Ok(SignedOffer { offer, digest, bytes: bytes.to_vec(), keys })
    }

    /// Whether the contributor of an earlier offer made this one: its key is this one's, or was
    /// replaced by it.
    pub fn follows(&self, earlier: &Offer) -> bool {
        self.keys.contains(&earlier.key)
    }
}

impl Offer {
    fn check(&self) -> Result<(), Error> {
        check_format(FILE, (&self.format, self.version), FORMAT)?;
        check_text(FILE, &self.base_model)?;
        check_text(FILE, &self.contact)?;
        let refuse = |why: &str| Err(Error::form(FILE, why));
        if self.layers.is_empty() {
            return refuse("it names no layers");
        }
        let Limits { tokens, unit_tokens, units } = self.limits;
        if units == 0 || units > MAX_UNITS as u64 || tokens > MAX_TOKENS || unit_tokens < 2 {
            return refuse("its limits are none that a contributor can keep");
        }
        if !(0..=16).contains(&self.score_bits) {
            return refuse("score_bits is none of an integer model");
        }
        if self.budget.bits_per_client > self.budget.bits {
            return refuse("bits_per_client exceeds bits");
        }
        Ok(())
    }

    /// The keys of the rotations, oldest first, and the offer's.
    fn keys(&self) -> Result<Vec<Digest>, Error> {
        if self.rotations.len() > MAX_ROTATIONS {
            return Err(Error::form(FILE, format!("more than {MAX_ROTATIONS} rotations")));
        }
        let mut keys = Vec::new();
        for envelope in &self.rotations {
            let what = "rotation of a key";
            let rotation: Rotation = canonical::parse(&envelope.unverified(Kind::Rotation)?, what)?;
            envelope.open(Kind::Rotation, &rotation.old)?;
            check_format(what, (&rotation.format, rotation.version), ROTATION)?;
            if keys.last().is_some_and(|last| *last != rotation.old) {
                return Err(Error::form(FILE, "its rotations are no chain"));
            }
            if keys.is_empty() {
                keys.push(rotation.old);
            }
            keys.push(rotation.new);
        }
        match keys.last() {
            None => Ok(vec![self.key]),
            Some(last) if *last == self.key => Ok(keys),
            Some(_) => Err(Error::form(FILE, "its last rotation is to another key")),
        }
    }
}
