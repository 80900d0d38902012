//! A request: which units are scored, in which groups, and with which metrics.

use serde::{Deserialize, Serialize};
use zklora_integer::unit::{Sequence, Unit};

use crate::{
    Error,
    canonical::{self, check_format},
    digest::Digest,
    merkle::Tree,
    metric::{Metric, WORST, log2_up},
    offer::{MAX_UNITS, SignedOffer},
    unit_bytes,
};

const FILE: &str = "request.json";
const FORMAT: (&str, u32) = ("zklora-request", 1);
const CONTEXT: &str = "zklora v1 evaluation request";
/// Longest request without its units, in bytes.
pub const MAX_BYTES: u64 = 4 << 20;
/// Most groups.
pub const MAX_GROUPS: usize = 1 << 12;
/// Most units that an answer lists as unscored.
pub const MAX_LISTED: u32 = 16;

/// A group: units with their metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What is asked, sorted.
    pub metrics: Vec<Metric>,
    /// Its name.
    pub name: String,
    /// The Merkle root of its units.
    pub root: Digest,
    /// How many units it has.
    pub units: u64,
}

/// The request without its units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The digest of a second nonce, for a later draw.
    pub draw: Digest,
    format: String,
    /// The groups, in the order of the units.
    pub groups: Vec<Group>,
    /// How many units without a score are listed.
    pub list_unscored: u32,
    /// The buyer's nonce; zeros for a public claim.
    pub nonce: Digest,
    /// The digest of the offer.
    pub offer: Digest,
    /// Whether scores of single units are asked for.
    pub per_unit: bool,
    version: u32,
}

/// The name of a group: 1 to 64 plain characters.
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

/// A group before its root is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitGroup {
    /// Its name.
    pub name: String,
    /// What is asked.
    pub metrics: Vec<Metric>,
    /// The units.
    pub units: Vec<Unit>,
}

/// What a buyer draws and chooses for a request.
#[derive(Debug, Clone)]
pub struct Choices {
    /// 32 random bytes; zeros for a public claim.
    pub nonce: Digest,
    /// The digest of 32 other random bytes.
    pub draw: Digest,
    /// How many units without a score the answer may list.
    pub list_unscored: u32,
    /// Ask for scores of single units.
    pub per_unit: bool,
}

/// A request with its units, which belong to each other.
#[derive(Debug, Clone)]
pub struct FullRequest {
    /// The request.
    pub request: Request,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its digest.
    pub digest: Digest,
    /// All units, group by group.
    pub units: Vec<Unit>,
    /// Their bytes, one after the other.
    pub unit_bytes: Vec<u8>,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// [`Error::Form`].
    pub fn parse(bytes: &[u8]) -> Result<Request, Error> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Error::form(FILE, format!("it is longer than {MAX_BYTES} bytes")));
        }
        let request: Request = canonical::parse(bytes, FILE)?;
        request.check()?;
        Ok(request)
    }

    fn check(&self) -> Result<(), Error> {
        check_format(FILE, (&self.format, self.version), FORMAT)?;
        let refuse = |why: String| Err(Error::form(FILE, why));
        if self.groups.is_empty() || self.groups.len() > MAX_GROUPS {
            return refuse(format!("it has {} groups, 1 to {MAX_GROUPS}", self.groups.len()));
        }
        if self.list_unscored > MAX_LISTED {
            return refuse(format!("list_unscored is at most {MAX_LISTED}"));
        }
        let mut names = std::collections::BTreeSet::new();
        for group in &self.groups {
            if !is_name(&group.name) || !names.insert(&group.name) {
                return refuse(
                    "names of groups are different, of 1 to 64 letters, digits, `.`, `_`, `-`"
                        .into(),
                );
            }
            if !group.metrics.is_sorted_by(|a, b| a < b) {
                return refuse(format!("the metrics of group {} are not sorted", group.name));
            }
            if group.metrics.is_empty() && !self.per_unit {
                return refuse(format!("group {} has no metric", group.name));
            }
            if group.units == 0 {
                return refuse(format!("group {} has no units", group.name));
            }
        }
        let units = self.groups.iter().fold(0u64, |all, group| all.saturating_add(group.units));
        if units > MAX_UNITS as u64 {
            return refuse(format!("{units} units, at most {MAX_UNITS}"));
        }
        Ok(())
    }

    /// The number of all units.
    pub fn units(&self) -> u64 {
        self.groups.iter().map(|group| group.units).sum()
    }

    /// Each group with its units.
    pub fn with_units<'a, T>(
        &'a self,
        units: &'a [T],
    ) -> impl Iterator<Item = (&'a Group, &'a [T])> {
        let mut rest = units;
        self.groups.iter().map(move |group| {
            let (own, others) = rest.split_at((group.units as usize).min(rest.len()));
            rest = others;
            (group, own)
        })
    }

    /// Whether it asks for a public claim.
    pub fn is_claim(&self) -> bool {
        self.nonce == Digest::ZERO
    }
}

impl FullRequest {
    /// A new request.
    ///
    /// # Errors
    /// A group or a unit breaks a rule.
    pub fn new(offer: Digest, choices: &Choices, groups: Vec<UnitGroup>) -> Result<Self, Error> {
        let (mut units, mut unit_bytes, mut headers) = (Vec::new(), Vec::new(), Vec::new());
        for UnitGroup { name, mut metrics, units: own } in groups {
            metrics.sort();
            metrics.dedup();
            let mut tree = Tree::default();
            for unit in &own {
                let start = unit_bytes.len();
                unit_bytes::encode(unit, &mut unit_bytes)
                    .map_err(|error| Error::Refused(format!("group {name}: {error}")))?;
                tree.add(&unit_bytes[start..]);
            }
            headers.push(Group { metrics, name, root: tree.root(), units: own.len() as u64 });
            units.extend(own);
        }
        let (format, version) = FORMAT;
        let request = Request {
            draw: choices.draw,
            format: format.into(),
            groups: headers,
            list_unscored: choices.list_unscored,
            nonce: choices.nonce,
            offer,
            per_unit: choices.per_unit,
            version,
        };
        request.check()?;
        let bytes = canonical::to_bytes(&request)?;
        let digest = digest_of(&bytes);
        Ok(FullRequest { request, bytes, digest, units, unit_bytes })
    }

    /// Reads a request and its units, and checks that they belong to each other.
    ///
    /// # Errors
    /// [`Error::Form`], or [`Error::Mismatch`] if the units are others.
    pub fn parse(bytes: &[u8], unit_bytes: Vec<u8>) -> Result<Self, Error> {
        FullRequest::parse_within(bytes, unit_bytes, u64::MAX)
    }

    /// As [`FullRequest::parse`], and stops at the first unit beyond a number of tokens: choices
    /// may share a long prefix, so that units are much larger than their bytes.
    ///
    /// # Errors
    /// Those of [`FullRequest::parse`], and [`Error::Refused`] beyond the limit.
    pub fn parse_within(
        bytes: &[u8],
        unit_bytes: Vec<u8>,
        most_tokens: u64,
    ) -> Result<Self, Error> {
        let request = Request::parse(bytes)?;
        let possible = unit_bytes.len() / unit_bytes::SHORTEST + 1;
        let mut units = Vec::with_capacity(possible.min(request.units() as usize));
        let mut tokens = 0;
        let mut rest = unit_bytes.as_slice();
        for group in &request.groups {
            let mut tree = Tree::default();
            for _ in 0..group.units {
                let (unit, length) = unit_bytes::decode(rest, units.len())?;
                tokens += sequences(&unit).iter().map(|of| of.tokens.len() as u64).sum::<u64>();
                if tokens > most_tokens {
                    let why = format!("{tokens} tokens and more, at most {most_tokens} a request");
                    return Err(Error::Refused(why));
                }
                tree.add(&rest[..length]);
                rest = &rest[length..];
                units.push(unit);
            }
            if tree.root() != group.root {
                let why = format!("the units of group {} are not those of the request", group.name);
                return Err(Error::mismatch("units.bin", why));
            }
        }
        if !rest.is_empty() {
            return Err(Error::form("units.bin", "there are bytes after the last unit"));
        }
        let digest = digest_of(bytes);
        Ok(FullRequest { request, bytes: bytes.to_vec(), digest, units, unit_bytes })
    }

    /// Whether an offer allows it, and its price in bits. Both depend on public things alone.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn price(&self, offer: &SignedOffer) -> Result<u64, Error> {
        let refuse = |why: String| Err(Error::Refused(why));
        if self.request.offer != offer.digest {
            let (asked, own) = (self.request.offer, offer.digest);
            return refuse(format!("the request is for offer {asked}, and this one is {own}"));
        }
        let offer = &offer.offer;
        let Request { per_unit, list_unscored, .. } = self.request;
        if per_unit && !offer.per_unit {
            return refuse(
                "this contributor answers no requests for scores of single units (per_unit)".into(),
            );
        }
        if self.units.len() as u64 > offer.limits.units {
            let (asked, most) = (self.units.len(), offer.limits.units);
            return refuse(format!("{asked} units, at most {most} a request"));
        }
        let tokens = || self.units.iter().flat_map(sequences).map(|of| of.tokens.len() as u64);
        let most = offer.limits.unit_tokens;
        if let Some(longest) = tokens().max().filter(|longest| *longest > most) {
            return refuse(format!("a sequence has {longest} tokens, at most {most}"));
        }
        let in_all: u64 = tokens().sum();
        if in_all > offer.limits.tokens {
            return refuse(format!("{in_all} tokens, at most {} a request", offer.limits.tokens));
        }
        // Whether there are more unscored units than listed, and whether there is an answer at all.
        let mut bits = 2 + u64::from(list_unscored) * log2_up(self.units.len() as u128 + 1);
        for (group, units) in self.request.with_units(&self.units) {
            for metric in &group.metrics {
                if let Some(why) = metric.refuses(units) {
                    return refuse(format!("group {}: {why}", group.name));
                }
                bits += metric.bits(units, offer.score_bits);
            }
        }
        if per_unit {
            bits += self.units.iter().flat_map(sequences).map(bits_of_sequence).sum::<u64>();
        }
        Ok(bits)
    }
}

/// The digest of a request's bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest::derived(CONTEXT, bytes)
}

/// The sequences of a unit.
pub fn sequences(unit: &Unit) -> &[Sequence] {
    match unit {
        Unit::LogProbability(sequence) => std::slice::from_ref(sequence),
        Unit::Choice { choices, .. } => choices,
        Unit::Generate { .. } => &[],
    }
}

/// Tokens of a sequence that are scored.
pub fn scored_tokens(sequence: &Sequence) -> usize {
    sequence.tokens.len().saturating_sub(sequence.from)
}

/// The bits of a sequence's own score.
fn bits_of_sequence(sequence: &Sequence) -> u64 {
    1 + log2_up(WORST as u128 * scored_tokens(sequence) as u128 + 2)
}
