//! Scores of units, from the logits' integers: log-probabilities, choices, greedy generation.
//!
//! A log-probability is exact: the score of the token minus the least normaliser of all scores
//! ([`crate::operators::normaliser`]), in units of `2^−score_bits` nats.

use rayon::prelude::*;

use crate::{
    Error,
    evaluate::{Evaluation, OutOfRange, check_unit, evaluate},
    matrix::Integers,
    operators::{self, Beyond},
    program::Program,
    rules,
    unit::{Normalisation, Sequence, Unit},
    whole::Whole,
};

/// Most tokens that are evaluated at once: bounds the memory of several units.
const TOKENS_AT_ONCE: usize = 512;

/// The log-probability of tokens that follow others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogProbability {
    /// For each token, in units of `2^−bits` nats.
    pub tokens: Vec<i64>,
    /// Whether every token's logit is the largest, and the first of equals.
    pub greedy: bool,
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

/// Scores of units, and what was seen.
pub type Scored = (Vec<Score>, Usage);

/// Scores units, in their order.
///
/// # Errors
/// [`Error::Unit`]: a unit cannot be evaluated at all. A unit that leaves a range is no error.
pub fn score(program: &Program, units: &[Unit]) -> Result<Scored, Error> {
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

/// Scores units with two programs at the same time, as [`score`] does with each: threads that wait
/// for one of them work on the other.
///
/// # Errors
/// As [`score`].
pub fn score_both(programs: [&Program; 2], units: &[Unit]) -> Result<[Scored; 2], Error> {
    let [first, second] = programs;
    let (first, second) = rayon::join(|| score(first, units), || score(second, units));
    Ok([first?, second?])
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
        let none = LogProbability { tokens: vec![], greedy: false };
        return Score::LogProbability(found.pop().unwrap_or(none));
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
    let logits = program.graph.logits;
    let shift = program.steps[logits].size.bits - program.score_bits;
    let mut found = Vec::with_capacity(wanted.len());
    evaluation.matrices_of_logits(&wanted, |first, logits| {
        let target = |(unit, position): &(usize, usize)| ids[*unit][position + 1] as usize;
        let rows = wanted[first..].par_iter().take(logits.rows);
        match &logits.integers {
            // What is shifted up may need more bits.
            Integers::Small(values) if shift >= 0 => {
                let rows = rows.zip(values.par_chunks(logits.columns));
                let each = rows.map(|(at, row)| log_probability(row, target(at), shift, program));
                found.par_extend(each);
            }
            _ => {
                let values = logits.values();
                let rows = rows.zip(values.par_chunks(logits.columns));
                let each = rows.map(|(at, row)| log_probability(row, target(at), shift, program));
                found.par_extend(each);
            }
        }
    });
    let mut found = found.into_iter().zip(&wanted).peekable();
    let mut results = Vec::with_capacity(ids.len());
    for unit in 0..ids.len() {
        let mut tokens = Vec::new();
        let mut greedy = true;
        let mut failure = evaluation.failures[unit].clone();
        while let Some((score, (_, position))) = found.next_if(|(_, (of, _))| *of == unit) {
            match score {
                Ok((score, used, is_largest)) => {
                    tokens.push(score);
                    greedy &= is_largest;
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
        results.push(failure.map_or(Ok(LogProbability { tokens, greedy }), Err));
    }
    results
}

/// The log-probability of token `target` from a row of logits, how much of the table it used, and
/// whether the token's logit is the largest, the first of equals.
fn log_probability<T: Whole>(
    row: &[T],
    target: usize,
    shift: i32,
    program: &Program,
) -> Result<(i64, f64, bool), Beyond> {
    // Less the largest: only differences count. Those beyond any table are out of range below.
    let (most_likely, largest) = operators::largest(row);
    let largest = operators::ceiling(largest, shift);
    let beyond = T::of(-(1 << 60));
    let score = |logit: &T| (operators::ceiling(*logit, shift) - largest).max(beyond).into() as i64;
    let scores: Vec<i64> = row.iter().map(score).collect();
    let bits = rules::SCORE_EXPONENTIAL_BITS;
    let limit = (1u64 << bits) + (1 << (bits as i32 - 1 - program.score_bits));
    let normaliser = operators::normaliser(&scores, &program.score_table, limit);
    let (place, least) =
        scores.iter().enumerate().min_by_key(|(_, score)| **score).unwrap_or((0, &0));
    let times = (normaliser - least) as f64 / rules::TABLE as f64;
    if times >= 1.0 {
        return Err(Beyond { place, times });
    }
    Ok((scores[target] - normaliser, times, target == most_likely))
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
        let mut next = 0;
        evaluation.matrices_of_logits(&[(0, ids.len() - 1)], |_, logits| {
            next = operators::largest(&logits.values()).0;
        });
        ids.push(next as u32);
    }
    Ok(Score::Generated(ids.split_off(prompt.len())))
}
