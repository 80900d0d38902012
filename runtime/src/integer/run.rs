//! Scores units with the integer model.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use zklora_integer::{
    score::{Score, score},
    unit::{self, Unit},
};
use zklora_models::language_model::Tokenizer;

use super::setup::Setup;
use crate::{Error, infer};

/// Longest file of units or text, in bytes.
const MAX_UNITS: u64 = 1 << 30;

/// What is scored.
#[derive(Debug, Clone)]
pub enum RunOptions {
    /// Lines of JSON.
    Units(PathBuf),
    /// Windows of a text.
    Text {
        /// The file.
        file: PathBuf,
        /// Tokens of a window.
        context: usize,
    },
}

/// The units' scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// One for each unit.
    pub scores: Vec<Score>,
    /// For generated tokens, their text.
    pub texts: Vec<Option<String>>,
    /// Fractional bits of log-probabilities.
    pub bits: i32,
    /// How long scoring took.
    pub time: Duration,
}

/// Scores units, with the adapter if the setup has one.
///
/// # Errors
/// The units cannot be read or evaluated. A unit that leaves a range is no error.
pub fn run(
    setup: &Setup,
    base: &Path,
    tokenizer: Option<&Path>,
    options: &RunOptions,
) -> Result<Scored, Error> {
    let named_or_beside = tokenizer.is_some() || base.with_file_name("tokenizer.json").exists();
    let (units, tokenizer) = match options {
        RunOptions::Units(file) => {
            let tokenizer =
                named_or_beside.then(|| infer::tokenizer(base, tokenizer)).transpose()?;
            let lines = read_text(file)?;
            let units = unit::read(&lines, tokenizer.as_ref())
                .map_err(|error| Error::file(file, error.to_string()))?;
            if units.is_empty() {
                return Err(Error::file(file, "it has no units"));
            }
            (units, tokenizer)
        }
        RunOptions::Text { file, context } => {
            let tokenizer = infer::tokenizer(base, tokenizer)?;
            (units_of_text(file, &tokenizer, *context, setup.bound.model.tokens)?, Some(tokenizer))
        }
    };
    let own;
    let program = match &setup.adapted {
        Some(program) => program,
        None => {
            own = setup.bound.base_program()?;
            &own
        }
    };
    let started = Instant::now();
    let (scores, _) = score(program, &units)?;
    let time = started.elapsed();
    let texts = scores.iter().map(|score| match (score, &tokenizer) {
        (Score::Generated(ids), Some(tokenizer)) => tokenizer.decode(ids).map(Some),
        _ => Ok(None),
    });
    let texts = texts.collect::<Result<_, _>>()?;
    Ok(Scored { scores, texts, bits: setup.bound.model.score_bits, time })
}

/// The units of a text file: windows of at most `context` tokens.
///
/// # Errors
/// The file cannot be read, or has fewer than two tokens.
pub fn units_of_text(
    file: &Path,
    tokenizer: &Tokenizer,
    context: usize,
    longest: usize,
) -> Result<Vec<Unit>, Error> {
    let ids = tokenizer.encode(&read_text(file)?)?;
    let units = unit::windows(&ids, context.min(longest));
    if units.is_empty() {
        return Err(Error::file(file, "it has fewer than two tokens: nothing is predicted"));
    }
    Ok(units)
}

fn read_text(file: &Path) -> Result<String, Error> {
    let bytes = zklora_files::read(file, MAX_UNITS)?;
    String::from_utf8(bytes).map_err(|_| Error::file(file, "not text in UTF-8"))
}
