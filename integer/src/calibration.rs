//! The tokens that a model is calibrated on: texts that ship with the program, and generated
//! tokens.

use zklora_models::language_model::Tokenizer;

use crate::Error;

/// The texts, in order.
const TEXTS: [&str; 6] = [
    include_str!("texts/prose.txt"),
    include_str!("texts/code.txt"),
    include_str!("texts/chat.txt"),
    include_str!("texts/facts.txt"),
    include_str!("texts/mixed.txt"),
    include_str!("texts/letter.txt"),
];
/// Tokens of a text that are used.
const TOKENS: usize = 96;
/// Units of generated tokens of a model without a tokenizer.
const GENERATED: u64 = 6;

/// The units of a model with a tokenizer: the first tokens of each text, and one unit of generated
/// tokens, whose activations spread further than those of texts.
///
/// # Errors
/// The tokenizer fails, or knows tokens that the model does not have.
pub fn from_texts(
    tokenizer: &Tokenizer,
    vocabulary: usize,
    limit: usize,
) -> Result<Vec<Vec<u32>>, Error> {
    let mut units = Vec::with_capacity(TEXTS.len() + 1);
    for (at, text) in TEXTS.iter().enumerate() {
        let mut ids = tokenizer.encode(text)?;
        ids.truncate(TOKENS.min(limit));
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
            return Err(Error::Unit {
                unit: at,
                why: format!(
                    "token {id} of the calibration is not one of the model's {vocabulary}; the \
                     tokenizer belongs to another model"
                ),
            });
        }
        units.push(ids);
    }
    units.push(generated(0, vocabulary, limit));
    units.retain(|unit| !unit.is_empty());
    Ok(units)
}

/// The units of a model without a tokenizer.
pub fn from_numbers(vocabulary: usize, limit: usize) -> Vec<Vec<u32>> {
    (0..GENERATED).map(|unit| generated(unit, vocabulary, limit)).collect()
}

/// Tokens from BLAKE3 of the unit's number: 64-bit little-endian words of its output, modulo the
/// vocabulary.
fn generated(unit: u64, vocabulary: usize, limit: usize) -> Vec<u32> {
    let mut hasher = blake3::Hasher::new_derive_key("zklora integer model, calibration tokens, 1");
    hasher.update(&unit.to_le_bytes());
    let mut reader = hasher.finalize_xof();
    (0..TOKENS.min(limit))
        .map(|_| {
            let mut word = [0; 8];
            reader.fill(&mut word);
            (u64::from_le_bytes(word) % vocabulary.max(1) as u64) as u32
        })
        .collect()
}

/// BLAKE3 of the units: the number of tokens of each, then its tokens, as 32-bit little-endian
/// numbers.
pub fn digest(units: &[Vec<u32>]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for unit in units {
        hasher.update(&(unit.len() as u32).to_le_bytes());
        unit.iter().for_each(|id| {
            hasher.update(&id.to_le_bytes());
        });
    }
    hasher.finalize()
}
