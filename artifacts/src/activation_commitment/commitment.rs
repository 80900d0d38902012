//! A commitment: a root and its nonce, as JSON.

use std::{fmt, path::Path};

use serde::Deserialize;
use zklora_proof::masks::os_bytes;

use super::{tree, values::Values};
use crate::Error;

const MAX_COMMITMENT: u64 = 4096;

/// A root, and the nonce that opens it. With both, guesses of the values can be tested.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Commitment {
    /// The root of the tree.
    pub root: [u8; 32],
    /// 32 bytes that are hashed with every value.
    pub nonce: [u8; 32],
}

impl fmt::Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Commitment({}, nonce not shown)", self.root_text())
    }
}

/// The JSON of the original ZKLoRA: two keys, with the spaces of Python's `json.dumps`.
impl fmt::Display for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{{\"root\": \"0x{}\", \"nonce\": \"0x{}\"}}",
            hex::encode(self.root),
            hex::encode(self.nonce)
        )
    }
}

impl Commitment {
    /// Commits under a fresh nonce.
    pub fn new(values: &Values) -> Result<Commitment, Error> {
        Commitment::with_nonce(values, *os_bytes()?)
    }

    /// Commits under a given nonce. A nonce that is not fresh and random hides nothing:
    /// [`Commitment::new`] draws it.
    pub fn with_nonce(values: &Values, nonce: [u8; 32]) -> Result<Commitment, Error> {
        // The original's answer for an empty list.
        let root = tree::Tree::new(&values.numbers, &nonce).map_or(tree::PADDING, tree::Tree::root);
        Ok(Commitment { root, nonce })
    }

    /// Whether the commitment is to exactly these values, in this order.
    pub fn is_to(&self, values: &Values) -> Result<bool, Error> {
        Ok(Commitment::with_nonce(values, self.nonce)? == *self)
    }

    /// The root as it is printed: `0x` and 64 hex digits.
    pub fn root_text(&self) -> String {
        format!("0x{}", hex::encode(self.root))
    }

    /// Reads a commitment: the JSON itself, or the name of a file that holds it.
    pub fn read(text_or_path: &str) -> Result<Commitment, Error> {
        if text_or_path.trim_start().starts_with('{') {
            return Commitment::parse(text_or_path.as_bytes()).map_err(Error::Input);
        }
        let path = Path::new(text_or_path);
        Commitment::parse(&zklora_files::read(path, MAX_COMMITMENT)?)
            .map_err(|why| Error::file(path, why))
    }

    /// Reads the JSON of a commitment; `0x` may be left out, and hex digits may be of either case.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(json: &[u8]) -> Result<Commitment, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Text {
            root: String,
            nonce: String,
        }
        let refuse = |why: &str| {
            format!("not a commitment of the form {{\"root\": \"0x…\", \"nonce\": \"0x…\"}}: {why}")
        };
        let text: Text = serde_json::from_slice(json).map_err(|e| refuse(&e.to_string()))?;
        let part = |name: &str, text: &str| {
            hex32(text).ok_or_else(|| refuse(&format!("`{name}` is not 64 hex digits")))
        };
        Ok(Commitment { root: part("root", &text.root)?, nonce: part("nonce", &text.nonce)? })
    }
}

/// 32 bytes of hex of either case, with or without `0x`.
pub fn hex32(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(
        text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(text),
        &mut bytes,
    )
    .ok()?;
    Some(bytes)
}

pub(super) fn nothing() -> Error {
    Error::Input("there are no values to prove".into())
}
