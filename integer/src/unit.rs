//! Units: token ids and what to score of them; read from lines of JSON.
//!
//! | line | scored |
//! |---|---|
//! | `{"text": "…"}` | the log-probability of all tokens after the first |
//! | `{"tokens": [1, 2, 3], "from": 2}` | that of the tokens from place 2 on |
//! | `{"prompt": "…", "completion": "…"}` | that of the completion |
//! | `{"prompt": "…", "choices": ["…", "…"], "answer": 0, "normalise": "bytes"}` | which choice is likeliest |
//! | `{"prompt": "…", "generate": 8}` | the tokens that follow |

use serde::Deserialize;
use zklora_files::text::condensed;
use zklora_models::language_model::Tokenizer;

use crate::Error;

/// Most units of a file.
const MAX_UNITS: usize = 1 << 20;
/// Most choices of a unit.
const MAX_CHOICES: usize = 1 << 10;

/// Tokens, and from which on they are scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// The first token that is scored, at least 1.
    pub from: usize,
}

/// One unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unit {
    /// The log-probability of a sequence.
    LogProbability(Sequence),
    /// The likeliest of several sequences.
    Choice {
        /// Each with the prompt before it.
        choices: Vec<Sequence>,
        /// Bytes of the text of each choice.
        lengths: Vec<usize>,
        /// Whether sums are divided by a length.
        normalisation: Normalisation,
        /// The right choice.
        answer: Option<usize>,
    },
    /// Greedy generation.
    Generate {
        /// The tokens of the prompt.
        prompt: Vec<u32>,
        /// Most tokens.
        tokens: usize,
    },
}

/// What the sum of a choice is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalisation {
    /// Nothing.
    #[default]
    None,
    /// Its tokens.
    Tokens,
    /// Bytes of its text.
    Bytes,
}

/// A line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    text: Option<String>,
    tokens: Option<Vec<u32>>,
    from: Option<usize>,
    prompt: Option<String>,
    completion: Option<String>,
    choices: Option<Vec<String>>,
    answer: Option<usize>,
    #[serde(default)]
    normalise: Normalisation,
    generate: Option<usize>,
}

/// Reads lines of JSON. Empty lines are left out.
///
/// # Errors
/// [`Error::UnitLine`].
pub fn read(lines: &str, tokenizer: Option<&Tokenizer>) -> Result<Vec<Unit>, Error> {
    let mut units = Vec::new();
    for (at, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let refuse = |why: String| Error::UnitLine { line: at + 1, why };
        if units.len() == MAX_UNITS {
            return Err(refuse(format!("the file has more than {MAX_UNITS} units")));
        }
        units.push(read_line(line, at + 1, tokenizer)?);
    }
    Ok(units)
}

/// Reads one line of JSON. `number` is its number, for the error.
///
/// # Errors
/// [`Error::UnitLine`].
pub fn read_line(line: &str, number: usize, tokenizer: Option<&Tokenizer>) -> Result<Unit, Error> {
    let refuse = |why: String| Error::UnitLine { line: number, why };
    let line: Line = serde_json::from_str(line)
        .map_err(|error| refuse(format!("it is no unit: {}", condensed(error))))?;
    line.unit(tokenizer).map_err(|problem| match problem {
        Problem::Form(why) => refuse(why),
        Problem::Tokenizer(error) => error,
    })
}

/// The units of a text: windows of `context` tokens that do not overlap. A last window of one token
/// predicts nothing and is left out.
pub fn windows(ids: &[u32], context: usize) -> Vec<Unit> {
    ids.chunks(context.max(2))
        .filter(|window| window.len() > 1)
        .map(|window| Unit::LogProbability(Sequence { tokens: window.to_vec(), from: 1 }))
        .collect()
}

enum Problem {
    Form(String),
    Tokenizer(Error),
}

impl From<&str> for Problem {
    fn from(why: &str) -> Problem {
        Problem::Form(why.into())
    }
}

impl Line {
    fn unit(self, tokenizer: Option<&Tokenizer>) -> Result<Unit, Problem> {
        let encode = |text: &str| -> Result<Vec<u32>, Problem> {
            let tokenizer =
                tokenizer.ok_or("it has text, and no tokenizer was named with --tokenizer")?;
            tokenizer.encode(text).map_err(|error| Problem::Tokenizer(error.into()))
        };
        let forms = [
            self.text.is_some(),
            self.tokens.is_some(),
            self.completion.is_some(),
            self.choices.is_some(),
            self.generate.is_some(),
        ];
        if forms.iter().filter(|form| **form).count() != 1 {
            return Err(
                "it needs exactly one of text, tokens, completion, choices, generate".into()
            );
        }
        let needs_prompt =
            self.completion.is_some() || self.choices.is_some() || self.generate.is_some();
        if needs_prompt != self.prompt.is_some() {
            return Err("a prompt belongs to completion, choices or generate".into());
        }
        if self.choices.is_none()
            && (self.answer.is_some() || self.normalise != Normalisation::None)
            || self.tokens.is_none() && self.from.is_some()
        {
            return Err("answer and normalise belong to choices, from belongs to tokens".into());
        }
        let prompt = self.prompt.unwrap_or_default();
        if let Some(text) = self.text {
            return sequence(encode(&text)?, 1).map(Unit::LogProbability);
        }
        if let Some(tokens) = self.tokens {
            return sequence(tokens, self.from.unwrap_or(1)).map(Unit::LogProbability);
        }
        if let Some(completion) = self.completion {
            return continuation(&prompt, &completion, &encode).map(Unit::LogProbability);
        }
        if let Some(tokens) = self.generate {
            let prompt = encode(&prompt)?;
            if prompt.is_empty() {
                return Err("its prompt has no tokens".into());
            }
            return Ok(Unit::Generate { prompt, tokens });
        }
        let texts = self.choices.unwrap_or_default();
        if texts.is_empty() || texts.len() > MAX_CHOICES {
            return Err(Problem::Form(format!("it needs 1 to {MAX_CHOICES} choices")));
        }
        if self.answer.is_some_and(|answer| answer >= texts.len()) {
            return Err("its answer is none of the choices, which are counted from 0".into());
        }
        let choices = texts.iter().map(|text| continuation(&prompt, text, &encode));
        Ok(Unit::Choice {
            choices: choices.collect::<Result<_, _>>()?,
            lengths: texts.iter().map(String::len).collect(),
            normalisation: self.normalise,
            answer: self.answer,
        })
    }
}

fn sequence(tokens: Vec<u32>, from: usize) -> Result<Sequence, Problem> {
    let from = from.max(1);
    if tokens.len() <= from {
        let count = tokens.len();
        return Err(Problem::Form(format!(
            "it scores no token: it has {count} tokens, and the first that is scored is token \
             {from}, counted from 0 (the first token of a unit is never predicted)"
        )));
    }
    Ok(Sequence { tokens, from })
}

/// Tokens of a prompt and of what follows it. Both are encoded together, because tokens may join
/// across the border; what both share with the prompt's own tokens is the prompt. Spaces at the
/// prompt's end belong to what follows.
fn continuation(
    prompt: &str,
    rest: &str,
    encode: &impl Fn(&str) -> Result<Vec<u32>, Problem>,
) -> Result<Sequence, Problem> {
    let own = encode(prompt.trim_end())?;
    let all = encode(&format!("{prompt}{rest}"))?;
    let from = own.iter().zip(&all).take_while(|(own, all)| own == all).count();
    sequence(all, from)
}
