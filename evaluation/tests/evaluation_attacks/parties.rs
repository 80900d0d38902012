//! A buyer, and a contributor whose scores are made up.

use std::{fs, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use zklora_evaluation::{
    Error,
    answering::Answering,
    digest::Digest,
    envelope::{Envelope, Kind},
    identity::{DEFAULT_LINEAGE, Identity},
    metric::Metric,
    offer::{Bits, Limits, SignedOffer, Terms},
    request::{Choices, FullRequest, UnitGroup, scored_tokens, sequences},
    unit_bytes,
    unit_scores::{Scorer, SequenceScore, Side, UnitScores},
};
use zklora_integer::unit::{Normalisation, Sequence, Unit};

/// Tokens of the made-up model.
pub const VOCABULARY: u32 = 1000;

pub fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

/// What is offered of an adapter.
pub fn terms(adapter: &str) -> Terms {
    Terms {
        adapter_id: digest(adapter),
        base_model: "tiny".into(),
        budget: Bits { bits: 100_000, bits_per_client: 60_000 },
        contact: "somebody, https://example.org".into(),
        integer_model: digest("integer model"),
        layers: vec![3, 5, 8],
        limits: Limits { tokens: 50_000, unit_tokens: 5000, units: 64 },
        per_unit: true,
        rotations: Vec::new(),
        rules: 1,
        score_bits: 9,
    }
}

/// Scores that are a function of the adapter and the unit, as a model's are. Some units have none.
pub struct Scores(pub u64);

fn side(seed: u64, unit: &Unit) -> Side {
    let mut bytes = seed.to_le_bytes().to_vec();
    unit_bytes::encode(unit, &mut bytes).unwrap();
    let mut random = blake3::Hasher::new().update(&bytes).finalize_xof();
    let mut number = || {
        let mut bytes = [0; 4];
        random.fill(&mut bytes);
        i64::from(u32::from_le_bytes(bytes))
    };
    if number() % 9 == 0 {
        return None;
    }
    let score = |of: &Sequence| SequenceScore {
        sum: -(number() % (4096 * scored_tokens(of) as i64)),
        greedy: number() % 2 == 0,
    };
    Some(sequences(unit).iter().map(score).collect())
}

impl Scorer for Scores {
    fn refuses(&self, unit: &Unit) -> Option<String> {
        let unknown = |of: &Sequence| of.tokens.iter().any(|token| *token >= VOCABULARY);
        sequences(unit).iter().any(unknown).then(|| "no such token".into())
    }

    fn score(&self, units: &[Unit]) -> Result<Vec<UnitScores>, Error> {
        let one = |unit| {
            let base = side(0, unit);
            let adapted = base.as_ref().and_then(|_| side(self.0, unit));
            UnitScores { base, adapted }
        };
        Ok(units.iter().map(one).collect())
    }
}

/// A scorer that nothing may reach.
pub struct NeverReached;

impl Scorer for NeverReached {
    fn refuses(&self, unit: &Unit) -> Option<String> {
        Scores(0).refuses(unit)
    }

    fn score(&self, _: &[Unit]) -> Result<Vec<UnitScores>, Error> {
        panic!("a refused request was scored")
    }
}

/// A contributor with one offer.
pub struct Shop {
    pub folder: tempfile::TempDir,
    pub offer: SignedOffer,
}

impl Shop {
    pub fn new() -> Shop {
        Shop::with(terms("adapter"))
    }

    pub fn with(terms: Terms) -> Shop {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::open_or_create(folder.path()).unwrap();
        let offer = SignedOffer::sign(&identity.key, terms).unwrap();
        identity.lineage(DEFAULT_LINEAGE, &offer.offer.adapter_id).unwrap();
        Shop { folder, offer }
    }

    pub fn identity(&self) -> Identity {
        Identity::open(self.folder.path()).unwrap()
    }

    /// The server, as after a start.
    pub fn start(&self, scorer: impl Scorer + 'static) -> Answering {
        Answering::new(self.offer.clone(), self.identity(), Arc::new(scorer)).unwrap()
    }

    /// The answer to a request.
    pub fn answer(&self, request: &FullRequest) -> Vec<u8> {
        let server = self.start(Scores(7));
        server.accept(request, "buyer").unwrap();
        server.answer(&request.digest, &mut |_, _| true).unwrap().unwrap()
    }

    /// The same folder somewhere else: a restored backup.
    pub fn backup(&self) -> Shop {
        let folder = tempfile::tempdir().unwrap();
        copy(self.folder.path(), folder.path());
        Shop { folder, offer: self.offer.clone() }
    }

    /// Signs any payload with the contributor's key.
    pub fn sign(&self, kind: Kind, payload: &[u8]) -> Vec<u8> {
        Envelope::sign(&self.identity().key, kind, payload).to_bytes().unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

pub fn sequence(at: u32) -> Unit {
    let tokens = (0..4 + at % 5).map(|place| (at * 31 + place * 7) % VOCABULARY).collect();
    Unit::LogProbability(Sequence { tokens, from: 1 + (at % 3) as usize })
}

pub fn question(at: u32, choices: u32) -> Unit {
    let choice = |choice| {
        let tokens = vec![at % VOCABULARY, 5, 6, (at + choice) % VOCABULARY, choice];
        Sequence { tokens, from: 3 }
    };
    Unit::Choice {
        choices: (0..choices).map(choice).collect(),
        lengths: (0..choices).map(|choice| 1 + choice as usize).collect(),
        normalisation: Normalisation::None,
        answer: Some((at % choices) as usize),
    }
}

pub fn group(name: &str, metrics: &[Metric], units: impl IntoIterator<Item = Unit>) -> UnitGroup {
    let (name, metrics) = (name.into(), metrics.to_vec());
    UnitGroup { name, metrics, units: units.into_iter().collect() }
}

pub const OF_SEQUENCES: [Metric; 3] = [Metric::Error, Metric::Greedy, Metric::LogProbability];
pub const OF_QUESTIONS: [Metric; 3] =
    [Metric::Accuracy, Metric::AccuracyNormalised, Metric::Confusion];

/// Two groups with all metrics.
pub fn groups() -> Vec<UnitGroup> {
    vec![
        group("text", &OF_SEQUENCES, (0..12).map(sequence)),
        group("questions", &OF_QUESTIONS, (0..12).map(|at| question(at, 3))),
    ]
}

pub fn choices(nonce: &str) -> Choices {
    Choices { nonce: digest(nonce), draw: digest("draw"), list_unscored: 2, per_unit: true }
}

pub fn request(offer: &SignedOffer, nonce: &str) -> FullRequest {
    FullRequest::new(offer.digest, &choices(nonce), groups()).unwrap()
}

/// The payload of an envelope, whoever signed it.
pub fn payload(envelope: &[u8]) -> Vec<u8> {
    let envelope: Value = serde_json::from_slice(envelope).unwrap();
    STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap()
}

/// The same envelope, with its old signature, around another payload.
pub fn with_payload(envelope: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut envelope: Value = serde_json::from_slice(envelope).unwrap();
    envelope["payload"] = STANDARD.encode(payload).into();
    serde_json::to_vec(&envelope).unwrap()
}

/// A JSON file with another value at a place.
pub fn with(json: &[u8], place: &str, value: impl Into<Value>) -> Vec<u8> {
    let mut all: Value = serde_json::from_slice(json).unwrap();
    *all.pointer_mut(place).unwrap_or_else(|| panic!("no {place}")) = value.into();
    serde_json::to_vec(&all).unwrap()
}

/// All files that differ from this one in one value, with the place of the value.
pub fn changes(json: &[u8]) -> Vec<(String, Vec<u8>)> {
    fn places(value: &Value, at: String, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, of)| places(of, format!("{at}/{name}"), found));
            }
            Value::Array(items) => {
                (0..).zip(items).for_each(|(index, of)| places(of, format!("{at}/{index}"), found));
            }
            _ => found.push(at),
        }
    }
    let all: Value = serde_json::from_slice(json).unwrap();
    let mut found = Vec::new();
    places(&all, String::new(), &mut found);
    let change = |place: String| {
        let value: Value = match all.pointer(&place).unwrap() {
            Value::String(text) => {
                // Another digest stays a digest; another text stays a text.
                let first = if text.starts_with('0') { "1" } else { "0" };
                format!("{first}{}", text.get(1..).unwrap_or_default()).into()
            }
            Value::Number(number) => (number.as_i64().unwrap() + 1).into(),
            Value::Bool(is) => (!is).into(),
            _ => 1.into(),
        };
        let changed = with(json, &place, value);
        (place, changed)
    };
    found.into_iter().map(change).collect()
}
