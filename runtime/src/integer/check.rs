//! How far the integer model is from the float model.

use std::{path::PathBuf, sync::Arc, time::Instant};

use serde::Serialize;
use zklora_integer::{
    program::Program,
    score::{Score, score},
    unit::Unit,
};
use zklora_models::language_model::{LanguageModel, negative_log_likelihood};

use super::{float_adapter::FloatAdapter, run::units_of_text, setup::Setup};
use crate::{Error, infer};

/// Tokens that are listed as the worst.
const WORST: usize = 10;

/// What is compared.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// The base model's ONNX file.
    pub base: PathBuf,
    /// Its tokenizer. `None` is `tokenizer.json` beside the base model.
    pub tokenizer: Option<PathBuf>,
    /// The text.
    pub text: PathBuf,
    /// Tokens of a unit.
    pub context: usize,
    /// Most units.
    pub units: usize,
}

/// Differences on a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Without the adapter.
    pub base: Side,
    /// With the adapter, if there is one.
    pub adapted: Option<Side>,
    /// The tokens with the largest differences, largest first.
    pub worst: Vec<WorstToken>,
    /// The operators that used most of their range, most first.
    pub headroom: Vec<Headroom>,
    /// Seconds of all units in integers, and in floats.
    pub seconds: (f64, f64),
}

/// Differences of one model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// Tokens that were compared.
    pub tokens: usize,
    /// Mean negative log-probability of a token in floats, nats.
    pub float_loss: f64,
    /// The same in integers.
    pub integer_loss: f64,
    /// Mean absolute difference of a token's log-probability, nats.
    pub mean: f64,
    /// The largest.
    pub largest: f64,
    /// Units that left a range and have no score: their index, and why.
    pub out_of_range: Vec<(usize, String)>,
    /// One for each unit that has a score.
    pub units: Vec<UnitDifference>,
    /// Absolute differences of all tokens, sorted.
    #[serde(skip)]
    pub differences: Vec<f64>,
}

/// Differences of one unit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UnitDifference {
    /// Its index.
    pub unit: usize,
    /// Tokens that were compared.
    pub tokens: usize,
    /// Mean negative log-probability in floats, nats a token.
    pub float_loss: f64,
    /// The same in integers.
    pub integer_loss: f64,
    /// Mean absolute difference.
    pub mean: f64,
    /// The largest.
    pub largest: f64,
}

/// A token with a large difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorstToken {
    /// Whether the adapter was on.
    pub adapted: bool,
    /// The unit.
    pub unit: usize,
    /// The token's place in it.
    pub token: usize,
    /// Its text.
    pub text: String,
    /// Its log-probability in floats, nats.
    pub float: f64,
    /// The same in integers.
    pub integer: f64,
}

/// How much of a range was used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Headroom {
    /// Index of the operator.
    pub operator: usize,
    /// Its name.
    pub name: String,
    /// The layer of the base model that it follows, if it follows one.
    pub layer: Option<String>,
    /// The largest part of its range, 0 to 1.
    pub used: f64,
}

/// Compares on a text, with and without the adapter.
///
/// # Errors
/// The text cannot be read or evaluated.
pub fn check(
    setup: &Setup,
    options: &CheckOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<Comparison, Error> {
    let tokenizer = infer::tokenizer(&options.base, options.tokenizer.as_deref())?;
    let mut units =
        units_of_text(&options.text, &tokenizer, options.context, setup.bound.model.tokens)?;
    units.truncate(options.units.max(1));
    let injections: Vec<_> =
        setup.bound.points.iter().map(|point| point.injection.clone()).collect();
    progress("load the float model");
    let adapter = Arc::new(FloatAdapter::new(setup.artifacts.clone(), setup.bound.points.clone()));
    let float = LanguageModel::load(&options.base, &injections, Arc::clone(&adapter) as _)?;
    let base_program = setup.bound.base_program()?;
    let mut worst = Vec::new();
    let mut seconds = (0.0, 0.0);
    let mut used = vec![0f64; base_program.steps.len()];
    let mut side = |program: &Program, adapted: bool| -> Result<Side, Error> {
        adapter.turn(adapted);
        let started = Instant::now();
        let (scores, usage) = score(program, &units)?;
        seconds.0 += started.elapsed().as_secs_f64();
        used.iter_mut().zip(&usage.used).for_each(|(used, more)| *used = used.max(*more));
        let mut side = Compared::default();
        for (at, (unit, score)) in units.iter().zip(&scores).enumerate() {
            let Unit::LogProbability(sequence) = unit else { continue };
            let integers = match score {
                Score::LogProbability(integers) => integers,
                Score::OutOfRange(failure) => {
                    side.out_of_range.push((at, failure.to_string()));
                    continue;
                }
                _ => continue,
            };
            let started = Instant::now();
            let logits = float.logits(&sequence.tokens)?;
            seconds.1 += started.elapsed().as_secs_f64();
            let scale = (-f64::from(setup.bound.model.score_bits)).exp2();
            let mut pairs = Vec::with_capacity(integers.tokens.len());
            for (place, integer) in integers.tokens.iter().enumerate() {
                let token = place + 1;
                let id = sequence.tokens[token];
                let nll = logits
                    .row(place)
                    .and_then(|row| negative_log_likelihood(row, id as usize))
                    .filter(|nll| nll.is_finite());
                let float = -nll.ok_or_else(|| Error::input("the float model has no number"))?;
                let integer = *integer as f64 * scale;
                pairs.push((float, integer));
                let text = tokenizer.decode(&[id])?;
                worst.push(WorstToken { adapted, unit: at, token, text, float, integer });
            }
            side.add(at, &pairs);
        }
        Ok(side.finish())
    };
    progress("base model: integers and floats");
    let base = side(&base_program, false)?;
    let adapted = match &setup.adapted {
        None => None,
        Some(program) => {
            progress("with the adapter: integers and floats");
            Some(side(program, true)?)
        }
    };
    let difference = |token: &WorstToken| (token.float - token.integer).abs();
    worst.sort_by(|a, b| difference(b).total_cmp(&difference(a)));
    worst.truncate(WORST);
    Ok(Comparison { base, adapted, worst, headroom: headroom(&base_program, &used), seconds })
}

fn headroom(program: &Program, used: &[f64]) -> Vec<Headroom> {
    let graph = &program.graph;
    let each = used.iter().enumerate().filter(|(_, used)| **used > 0.0);
    let mut all: Vec<Headroom> = each
        .map(|(operator, used)| Headroom {
            operator,
            name: graph.operators[operator].name().into(),
            layer: graph.layer_of(operator).map(String::from),
            used: *used,
        })
        .collect();
    all.sort_by(|a, b| b.used.total_cmp(&a.used));
    all.truncate(WORST);
    all
}

/// A side while it grows.
#[derive(Default)]
struct Compared {
    units: Vec<UnitDifference>,
    differences: Vec<f64>,
    float: f64,
    integer: f64,
    out_of_range: Vec<(usize, String)>,
}

impl Compared {
    fn add(&mut self, unit: usize, pairs: &[(f64, f64)]) {
        let count = pairs.len().max(1) as f64;
        let differences = || pairs.iter().map(|(float, integer)| (float - integer).abs());
        let float: f64 = pairs.iter().map(|pair| pair.0).sum();
        let integer: f64 = pairs.iter().map(|pair| pair.1).sum();
        self.units.push(UnitDifference {
            unit,
            tokens: pairs.len(),
            float_loss: -float / count,
            integer_loss: -integer / count,
            mean: differences().sum::<f64>() / count,
            largest: differences().fold(0.0, f64::max),
        });
        self.differences.extend(differences());
        self.float += float;
        self.integer += integer;
    }

    fn finish(mut self) -> Side {
        let tokens = self.differences.len();
        let count = tokens.max(1) as f64;
        self.differences.sort_by(f64::total_cmp);
        Side {
            tokens,
            float_loss: -self.float / count,
            integer_loss: -self.integer / count,
            mean: self.differences.iter().sum::<f64>() / count,
            largest: self.differences.last().copied().unwrap_or(0.0),
            out_of_range: self.out_of_range,
            units: self.units,
            differences: self.differences,
        }
    }
}
