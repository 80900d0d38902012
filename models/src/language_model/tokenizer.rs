//! Converts text to token ids and back, with a `tokenizer.json`.
//!
//! Must not know which model the tokens are for.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{Error, panics};

/// Longest `tokenizer.json` that is read, in bytes.
const MAX_FILE: u64 = 256 << 20;

/// Special tokens that models end a text or a turn with.
const END_TOKENS: [&str; 9] = [
    "<|endoftext|>",
    "<|im_end|>",
    "</s>",
    "<eos>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "<|eos|>",
];

/// A tokenizer.
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// The file is too long, unreadable or not a tokenizer.
    pub fn load(path: &Path) -> Result<Tokenizer, Error> {
        let content = zklora_files::read(path, MAX_FILE)?;
        let refuse = |reason: String| Error::Tokenizer { path: path.to_owned(), reason };
        let text = std::str::from_utf8(&content)
            .map_err(|error| refuse(format!("is not UTF-8: {error}")))?;
        let mut inner = panics::catch(|| tokenizers::Tokenizer::from_str(text))
            .ok_or_else(|| refuse("is not a tokenizer.json".into()))?
            .map_err(|error| refuse(format!("is not a tokenizer.json: {error}")))?;
        // A file may ask for truncation or padding, which would silently change the text that is
        // evaluated.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| refuse(error.to_string()))?;
        Ok(Tokenizer { path: path.to_owned(), inner })
    }

    /// The tokens of a text, including the special tokens that the tokenizer adds to every text.
    ///
    /// # Errors
    /// A text that the tokenizer cannot split.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = panics::catch(|| self.inner.encode_fast(text, true))
            .ok_or_else(|| self.error("stopped unexpectedly"))?;
        Ok(encoding.map_err(|error| self.error(&error.to_string()))?.get_ids().to_vec())
    }

    /// The text of tokens, without special tokens. A character of which a part is missing becomes
    /// `�`.
    ///
    /// # Errors
    /// Tokens that the tokenizer cannot join.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        let text = panics::catch(|| self.inner.decode(ids, true))
            .ok_or_else(|| self.error("stopped unexpectedly"))?;
        text.map_err(|error| self.error(&error.to_string()))
    }

    /// Ids of the special tokens that models end a text or a turn with, as far as the tokenizer has
    /// them.
    pub fn end_of_text(&self) -> Vec<u32> {
        let special = self.inner.get_added_tokens_decoder();
        let ends = |(_, token): &(&u32, &tokenizers::AddedToken)| {
            token.special && END_TOKENS.contains(&token.content.as_str())
        };
        let mut ids: Vec<u32> = special.iter().filter(ends).map(|(&id, _)| id).collect();
        ids.sort_unstable();
        ids
    }

    fn error(&self, reason: &str) -> Error {
        Error::Tokenizer {
            path: self.path.clone(),
            reason: format!("the tokenizer fails on this text or these tokens: {reason}"),
        }
    }
}
