//! Scores of units, from the logits' integers: log-probabilities, choices, greedy generation.
//!
//! A log-probability is exact: the score of the token minus the least normaliser of all scores
//! ([`crate::operators::normaliser`]), in units of `2^−score_bits` nats.

use std::sync::Mutex;

use crate::{
    Error,
    evaluate::{Evaluation, OutOfRange, check_unit, evaluate},
    operators::{self, Beyond},
    program::Program,
    rules,
    unit::{Normalisation, Sequence, Unit},
};

/// Most tokens that are evaluated at once: bounds the memory of several units.
const TOKENS_AT_ONCE: usize = 512;

/// The log-probability of tokens that follow others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogProbability {
    /// For each token, in units of `2^−bits` nats.
    pub tokens: Vec<i64>,
}

impl LogProbability {
    /// The sum over the tokens.
    pub fn sum(&self) -> i64 {
        self.tokens.iter().sum()
    }
}

/// The result of a unit.
#[derive(Debug, Clone, PartialEq)]
pub enum Score {
    /// Of tokens that follow others.
    LogProbability(LogProbability),
    /// Of choices: the log-probability of each, and which is the largest; the first of equals.
    Choice {
        /// One for each choice.
        choices: Vec<LogProbability>,
        /// The chosen one.
        chosen: usize,
        /// Whether it is the answer, if the unit has one.
        correct: Option<bool>,
    },
    /// Tokens that were generated.
    Generated(Vec<u32>),
    /// None: the unit left a range.
    OutOfRange(OutOfRange),
}

/// What was seen while units were scored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Usage {
    /// For each operator, the largest part of its range that was used.
    pub used: Vec<f64>,
}

/// Scores units, in their order.
///
/// # Errors
/// [`Error::Unit`]: a unit cannot be evaluated at all. A unit that leaves a range is no error.
pub fn score(program: &Program, units: &[Unit]) -> Result<(Vec<Score>, Usage), Error> {
    let mut usage = Usage { used: vec![0.0; program.steps.len()] };
    // Every sequence of every unit.
    let mut sequences: Vec<(usize, &Sequence)> = Vec::new();
    for (at, unit) in units.iter().enumerate() {
        match unit {
            Unit::LogProbability(sequence) => sequences.push((at, sequence)),
            Unit::Choice { choices, .. } => {
                sequences.extend(choices.iter().map(|choice| (at, choice)));
            }
            Unit::Generate { prompt, .. } => check_unit(program, at, prompt)?,
        }
    }
    let mut found: Vec<Vec<Result<LogProbability, OutOfRange>>> = vec![Vec::new(); units.len()];
    let mut rest = sequences.as_slice();
    while !rest.is_empty() {
        let count = batch(rest);
        let (now, later) = rest.split_at(count);
        let ids: Vec<&[u32]> = now.iter().map(|(_, sequence)| sequence.tokens.as_slice()).collect();
        let evaluation = evaluate(program, &ids, &mut |_| {}).map_err(|error| match error {
            Error::Unit { unit, why } => Error::Unit { unit: now[unit].0, why },
            other => other,
        })?;
        usage.add(&evaluation);
        let froms: Vec<usize> = now.iter().map(|(_, sequence)| sequence.from).collect();
        let scores = log_probabilities(program, &evaluation, &ids, &froms, &mut usage);
        for ((unit, _), score) in now.iter().zip(scores) {
            found[*unit].push(score);
        }
        rest = later;
    }
    let scores = units.iter().zip(found).map(|(unit, found)| match unit {
        Unit::Generate { prompt, tokens } => generated(program, prompt, *tokens, &mut usage),
        unit => Ok(joined(unit, found)),
    });
    let scores = scores.collect::<Result<Vec<_>, _>>()?;
    Ok((scores, usage))
}

/// How many of the sequences are evaluated at once.
fn batch(sequences: &[(usize, &Sequence)]) -> usize {
    let mut tokens = 0;
    let fits = |(_, sequence): &&(usize, &Sequence)| {
        tokens += sequence.tokens.len();
        tokens <= TOKENS_AT_ONCE
    };
    sequences.iter().take_while(fits).count().max(1)
}

impl Usage {
    fn add(&mut self, evaluation: &Evaluation<'_>) {
        let pairs = self.used.iter_mut().zip(&evaluation.used);
        pairs.for_each(|(used, more)| *used = used.max(*more));
    }
}

fn joined(unit: &Unit, found: Vec<Result<LogProbability, OutOfRange>>) -> Score {
    let mut found: Vec<LogProbability> = match found.into_iter().collect() {
        Ok(found) => found,
        Err(failure) => return Score::OutOfRange(failure),
    };
    let Unit::Choice { choices, lengths, normalisation, answer } = unit else {
        return Score::LogProbability(found.pop().unwrap_or(LogProbability { tokens: vec![] }));
    };
    let tokens: Vec<usize> =
        choices.iter().map(|choice| choice.tokens.len().saturating_sub(choice.from)).collect();
    let chosen = match normalisation {
        Normalisation::None => chosen(&found, None),
        Normalisation::Tokens => chosen(&found, Some(&tokens)),
        Normalisation::Bytes => chosen(&found, Some(lengths)),
    };
    Score::Choice { choices: found, chosen, correct: answer.map(|answer| answer == chosen) }
}

/// The choice of the largest sum, or of the largest sum by length; the first of equals. Quotients
/// are compared exactly, as products.
fn chosen(found: &[LogProbability], lengths: Option<&[usize]>) -> usize {
    let length = |at: usize| {
        let length = lengths.map_or(1, |lengths| lengths.get(at).copied().unwrap_or(1));
        length.max(1) as i128
    };
    let better = |a: usize, b: usize| {
        i128::from(found[a].sum()) * length(b) > i128::from(found[b].sum()) * length(a)
    };
    (1..found.len()).fold(0, |best, at| if better(at, best) { at } else { best })
}

/// The log-probabilities of the tokens `from..` of every sequence.
fn log_probabilities(
    program: &Program,
    evaluation: &Evaluation<'_>,
    ids: &[&[u32]],
    froms: &[usize],
    usage: &mut Usage,
) -> Vec<Result<LogProbability, OutOfRange>> {
    let mut wanted: Vec<(usize, usize)> = Vec::new();
    for (unit, (ids, from)) in ids.iter().zip(froms).enumerate() {
        let first = (*from).max(1);
        if evaluation.failures[unit].is_none() {
            wanted.extend((first..ids.len()).map(|token| (unit, token - 1)));
        }
    }
    let found = Mutex::new(vec![Ok((0i64, 0.0)); wanted.len()]);
    let logits = program.graph.logits;
    let shift = program.steps[logits].size.bits - program.score_bits;
    evaluation.logits(&wanted, |at, row| {
        let (unit, position) = wanted[at];
        let target = ids[unit][position + 1] as usize;
        let score = log_probability(row, target, shift, program);
        if let Ok(mut found) = found.lock() {
            found[at] = score;
        }
    });
    let mut found = found.into_inner().unwrap_or_default().into_iter().zip(&wanted).peekable();
    let mut results = Vec::with_capacity(ids.len());
    for unit in 0..ids.len() {
        let mut tokens = Vec::new();
        let mut failure = evaluation.failures[unit].clone();
        while let Some((score, (_, position))) = found.next_if(|(_, (of, _))| *of == unit) {
            match score {
                Ok((score, used)) => {
                    tokens.push(score);
                    usage.used[logits] = usage.used[logits].max(used);
                }
                Err(beyond) => {
                    failure.get_or_insert(OutOfRange {
                        operator: logits,
                        what: "scores".into(),
                        token: *position,
                        beyond,
                    });
                }
            }
        }
        results.push(failure.map_or(Ok(LogProbability { tokens }), Err));
    }
    results
}

/// The log-probability of token `target` from a row of logits, and how much of the table it used.
fn log_probability(
    row: &[i128],
    target: usize,
    shift: i32,
    program: &Program,
) -> Result<(i64, f64), Beyond> {
    let scores: Vec<i128> = row.iter().map(|logit| operators::ceiling(*logit, shift)).collect();
    // Less the largest: only differences count. Those beyond any table are out of range below.
    let largest = scores.iter().copied().max().unwrap_or(0);
    let scores: Vec<i64> =
        scores.iter().map(|score| (score - largest).max(-(1 << 60)) as i64).collect();
    let bits = rules::SCORE_EXPONENTIAL_BITS;
    let limit = (1u64 << bits) + (1 << (bits as i32 - 1 - program.score_bits));
    let normaliser = operators::normaliser(&scores, &program.score_table, limit);
    let (place, least) =
        scores.iter().enumerate().min_by_key(|(_, score)| **score).unwrap_or((0, &0));
    let times = (normaliser - least) as f64 / rules::TABLE as f64;
    if times >= 1.0 {
        return Err(Beyond { place, times });
    }
    Ok((scores[target] - normaliser, times))
}

/// Continues a prompt with the token of the largest logit, the first of equals, until there are
/// `count` tokens or the model's limit is reached.
fn generated(
    program: &Program,
    prompt: &[u32],
    count: usize,
    usage: &mut Usage,
) -> Result<Score, Error> {
    let mut ids = prompt.to_vec();
    for _ in 0..count {
        if ids.len() >= program.tokens {
            break;
        }
        let evaluation = evaluate(program, &[&ids], &mut |_| {})?;
        usage.add(&evaluation);
        if let Some(failure) = &evaluation.failures[0] {
            return Ok(Score::OutOfRange(failure.clone()));
        }
        let next = Mutex::new(0usize);
        evaluation.logits(&[(0, ids.len() - 1)], |_, row| {
            let best =
                (1..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best });
            if let Ok(mut next) = next.lock() {
                *next = best;
            }
        });
        ids.push(next.into_inner().unwrap_or_default() as u32);
    }
    Ok(Score::Generated(ids.split_off(prompt.len())))
}
