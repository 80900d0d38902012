//! Measures an evaluation: scoring against the bare graph in tract, bytes on the wire, and the time
//! of everything around scoring.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use zklora_artifacts::folder::Artifacts;
use zklora_evaluation::{
    Error as Evaluating,
    answer::Answer,
    answering::Answering,
    digest::Digest,
    identity::{DEFAULT_LINEAGE, Identity},
    metric::Metric,
    offer::{Bits, Limits, SignedOffer, Terms},
    request::{Choices, FullRequest, UnitGroup, scored_tokens, sequences},
    unit_scores::{Scorer, SequenceScore, UnitScores},
};
use zklora_integer::{
    rules,
    unit::{Sequence, Unit},
};
use zklora_models::language_model::{Identity as NoAdapter, LanguageModel};
use zklora_proof::srs::Srs;
use zklora_runtime::{
    evaluate::{self, Source, TermsOptions},
    integer::{BaseModel, Setup},
    process::peak_memory,
};

use crate::{Error, compared::Compared};

/// Units that integers and floats score in turn, so that both see the same noise.
const BLOCK: usize = 20;
/// Bytes that gRPC and HTTP/2 add to a message, with the fields' headers.
const MESSAGE: usize = 5 + 9 + 8;

/// What to measure.
pub struct Options<'a> {
    /// The base model, ONNX.
    pub base: &'a Path,
    /// Its tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// The folder of its integer model; it is made if it has none.
    pub integer: &'a Path,
    /// A text of which units are made.
    pub text: &'a Path,
    /// Units that are scored.
    pub units: usize,
    /// Tokens of a unit.
    pub tokens: usize,
    /// Units of the request whose handling is measured without scoring.
    pub many: usize,
    /// A folder for files. The caller removes it.
    pub scratch: &'a Path,
}

/// The result.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Measured {
    /// Units that were scored.
    pub units: usize,
    /// Tokens of a unit.
    pub tokens: usize,
    /// Scoring all units with and without the adapter, against one pass of the bare f32 graph in
    /// tract for each.
    pub scoring: Compared,
    /// Bytes of a unit on the wire, both directions.
    pub bytes_per_unit: f64,
    /// Units of the request whose handling was measured.
    pub many: usize,
    /// Seconds of everything but scoring for them: encode, send, check, charge, store, sign,
    /// verify.
    pub handling_seconds: f64,
    /// The same against scoring that many units.
    pub handling_share: f64,
    /// Peak memory of the process after handling them, before a model was loaded.
    pub handling_memory: Option<u64>,
    /// Peak memory of the process in the end.
    pub memory: Option<u64>,
}

/// Scores that depend on the tokens alone.
struct Invented;

impl Scorer for Invented {
    fn refuses(&self, _: &Unit) -> Option<String> {
        None
    }

    fn score(&self, units: &[Unit]) -> Result<Vec<UnitScores>, Evaluating> {
        let side = |unit: &Unit, by: i64| {
            let score = |of: &Sequence| {
                let tokens: i64 = of.tokens.iter().map(|token| i64::from(token % 1000)).sum();
                SequenceScore { sum: -tokens - by, greedy: tokens % 2 == 0 }
            };
            Some(sequences(unit).iter().map(score).collect())
        };
        Ok(units.iter().map(|of| UnitScores { base: side(of, 9), adapted: side(of, 0) }).collect())
    }
}

/// Measures.
///
/// # Errors
/// The model, the adapter or the text cannot be used.
pub fn measure(
    artifacts: Artifacts,
    srs: &Srs,
    options: &Options<'_>,
    progress: &mut dyn FnMut(&str),
) -> Result<Measured, Error> {
    progress("handle a large request");
    let before = Instant::now();
    let (request_bytes, answer_bytes) = handle(options)?;
    let handling_seconds = before.elapsed().as_secs_f64();
    let handling_memory = peak_memory();

    progress("read the models");
    let base = BaseModel {
        base: options.base.into(),
        base_weights: None,
        allow_other_base: false,
        maps: vec![],
        digest: None,
    };
    let tokenizer = options.tokenizer.as_deref();
    let setup = Setup::load_or_make(options.integer, &base, tokenizer, artifacts, srs)?;
    let longest = setup.bound.model.tokens;
    let terms = TermsOptions {
        model: options.integer.into(),
        base,
        tokenizer: options.tokenizer.clone(),
        policy: zklora_proof::verifier::SrsPolicy::AllowUntrusted,
    };
    let source = Source::Text { file: options.text.into(), context: options.tokens };
    let groups = evaluate::groups(&source, &terms, longest)?.groups;
    let all: Vec<Unit> = groups.into_iter().flat_map(|group| group.units).collect();
    // A short text is used several times.
    let whole = all.iter().filter(|unit| sequences(unit)[0].tokens.len() == options.tokens);
    let units: Vec<Unit> = whole.cycle().take(options.units).cloned().collect();
    if units.is_empty() {
        return Err(Error::input("the text has fewer tokens than a unit"));
    }
    let scorer = evaluate::scorer(setup)?;
    let float = LanguageModel::load(options.base, &[], Arc::new(NoAdapter))?;
    let (mut integers, mut floats) = (0.0, 0.0);
    for (at, block) in units.chunks(BLOCK).enumerate() {
        progress(&format!("{} of {} units", at * BLOCK, units.len()));
        let start = Instant::now();
        scorer.score(block)?;
        integers += start.elapsed().as_secs_f64();
        let start = Instant::now();
        for unit in block {
            float.logits(&sequences(unit)[0].tokens)?;
        }
        floats += start.elapsed().as_secs_f64();
    }
    let scoring_many = integers / units.len() as f64 * options.many as f64;
    Ok(Measured {
        units: units.len(),
        tokens: options.tokens,
        scoring: Compared {
            zklora_seconds: integers,
            other_seconds: floats,
            ratio: integers / floats,
        },
        bytes_per_unit: (request_bytes + answer_bytes) as f64 / options.many as f64,
        many: options.many,
        handling_seconds,
        handling_share: handling_seconds / scoring_many,
        handling_memory,
        memory: peak_memory(),
    })
}

/// Takes a large request through all steps of both parties but scoring. Returns the bytes that each
/// sends.
fn handle(options: &Options<'_>) -> Result<(usize, usize), Error> {
    let identity = Identity::open_or_create(&options.scratch.join("identity"))?;
    let adapter_id = Digest([1; 32]);
    identity.lineage(DEFAULT_LINEAGE, &adapter_id)?;
    let most = u64::MAX / 4;
    let terms = Terms {
        adapter_id,
        base_model: "none".into(),
        budget: Bits { bits: most, bits_per_client: most },
        contact: String::new(),
        integer_model: Digest([2; 32]),
        layers: vec![0],
        limits: Limits { tokens: 1 << 31, unit_tokens: 1 << 20, units: 1 << 20 },
        per_unit: false,
        rotations: vec![],
        rules: rules::VERSION,
        score_bits: rules::SCORE_BITS,
    };
    let offer = SignedOffer::sign(&identity.key, terms)?;
    let answering = Answering::new(offer.clone(), identity, Arc::new(Invented))?;
    // The buyer.
    let unit = |at: usize| {
        let token = |place: usize| ((at * 31 + place * 7) % 49_152) as u32;
        Unit::LogProbability(Sequence { tokens: (0..options.tokens).map(token).collect(), from: 1 })
    };
    let group = UnitGroup {
        name: "units".into(),
        metrics: vec![Metric::Error, Metric::LogProbability],
        units: (0..options.many).map(unit).collect(),
    };
    let choices = Choices {
        nonce: Digest([3; 32]),
        draw: Digest([4; 32]),
        list_unscored: 2,
        per_unit: false,
    };
    let own = FullRequest::new(offer.digest, &choices, vec![group])?;
    debug_assert!(own.units.iter().all(|unit| scored_tokens(&sequences(unit)[0]) > 0));
    let parts = own.unit_bytes.len().div_ceil(zklora_session::wire::evaluation::PART) + 1;
    let sent = own.bytes.len() + own.unit_bytes.len() + parts * MESSAGE;
    // The contributor reads what arrives.
    let (bytes, unit_bytes) = (own.bytes.clone(), own.unit_bytes.clone());
    let received = FullRequest::parse(&bytes, unit_bytes)?;
    answering.accept(&received, "buyer")?;
    drop(received);
    let answer = answering.answer(&own.digest, &mut |_, _| true)?.unwrap_or_default();
    // The buyer checks the answer.
    Answer::read(&answer, &offer, &own)?;
    Ok((sent, answer.len() + MESSAGE))
}
