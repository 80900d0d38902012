//! Makes the integer model of a base model.

use std::path::{Path, PathBuf};

use zklora_integer::model::{Calibration, IntegerModel};

use crate::{Error, infer};

/// What was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// `integer-model.json`
    pub model: PathBuf,
    /// `tables.safetensors`
    pub tables: PathBuf,
    /// BLAKE3 of `integer-model.json`, as hex.
    pub digest: String,
    /// Number of operators.
    pub operators: usize,
    /// Public weights.
    pub parameters: usize,
    /// Most tokens of a unit.
    pub tokens: usize,
    /// Fractional bits of scores.
    pub score_bits: i32,
}

/// Makes the integer model of `base` and writes it into `out`. Without a tokenizer's texts, it is
/// calibrated on generated tokens.
///
/// # Errors
/// The base model has no integer model, its tokenizer is missing, or the folder cannot be written.
pub fn compile(
    base: &Path,
    tokenizer: Option<&Path>,
    generated_tokens: bool,
    out: &Path,
) -> Result<Compiled, Error> {
    if !base.is_file() {
        return Err(Error::file(base, "there is no such file: name the base model's ONNX file"));
    }
    if out.is_file() {
        return Err(Error::file(out, "this is a file, and a folder is needed: name another"));
    }
    if !generated_tokens && tokenizer.is_none() && !base.with_file_name("tokenizer.json").exists() {
        return Err(Error::input(format!(
            "{} does not exist: name the tokenizer.json of the base model with --tokenizer, or \
             calibrate on generated tokens with --generated-tokens",
            base.with_file_name("tokenizer.json").display()
        )));
    }
    let tokenizer = match generated_tokens {
        true => None,
        false => Some(infer::tokenizer(base, tokenizer)?),
    };
    let calibration = tokenizer.as_ref().map_or(Calibration::Tokens, Calibration::Texts);
    let model = IntegerModel::compile(base, calibration)?;
    let (path, tables, digest) = model.write(out)?;
    Ok(Compiled {
        model: path,
        tables,
        digest: digest.to_hex().to_string(),
        operators: model.graph.operators.len(),
        parameters: model.graph.weights.iter().map(|w| w.inputs() * w.outputs()).sum(),
        tokens: model.tokens,
        score_bits: model.score_bits,
    })
}
