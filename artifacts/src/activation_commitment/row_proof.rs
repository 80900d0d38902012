//! Proves one row of committed values without the others (`docs/formats.md`, "Row proof").
//!
//! A proof reveals the nonce and hashes of neighbouring values. `docs/security.md` says what can be
//! guessed from them.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zklora_files::Access;

use super::{
    commitment::{Commitment, hex32, nothing},
    tree::{self, PathError, Shape, Tree},
    values::{MAX_VALUES, Values},
};
use crate::Error;

const FORMAT: &str = "zklora-activation-row";
const VERSION: u32 = 1;
const MAX_PROOF: u64 = 1 << 28;

/// Consecutive values, the nonce, and the nodes that lead from them to the root.
#[derive(Debug, Clone, PartialEq)]
pub struct RowProof {
    /// Number of committed values, as the prover claims.
    pub count: usize,
    /// Position of the first value of the row.
    pub first: usize,
    /// The values of the row.
    pub values: Vec<f64>,
    /// The nonce of all leaves.
    pub nonce: [u8; 32],
    /// Nodes beside the row, in the order of [`tree::root_of`].
    pub path: Vec<tree::Node>,
}

/// The proof as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    version: u32,
    count: usize,
    first: usize,
    values: Vec<f64>,
    nonce: String,
    path: Vec<String>,
}

impl RowProof {
    /// Proves the row that [`Values::row`] finds.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such row; [`Error::Claim`] if the commitment is not to these
    /// values.
    pub fn prove(
        values: &Values,
        commitment: &Commitment,
        row: usize,
        columns: Option<usize>,
    ) -> Result<RowProof, Error> {
        let range = values.row(row, columns)?;
        let tree = Tree::new(&values.numbers, &commitment.nonce).ok_or_else(nothing)?;
        let proof = RowProof {
            count: values.numbers.len(),
            first: range.start,
            values: values.numbers[range.clone()].to_vec(),
            nonce: commitment.nonce,
            path: tree.path(range),
        };
        // The path covers every other value, so this is a check of the whole file.
        if proof.root() != Ok(commitment.root) {
            return Err(Error::Claim(
                "the commitment is not to the values of this file: there is nothing to prove"
                    .into(),
            ));
        }
        Ok(proof)
    }

    /// The root that the row and its path lead to.
    fn root(&self) -> Result<tree::Node, String> {
        let (Some(shape), Some(end)) =
            (Shape::new(self.count), self.first.checked_add(self.values.len()))
        else {
            return Err("it is over no values".into());
        };
        if self.values.is_empty() || end > self.count || self.count > MAX_VALUES {
            return Err(format!(
                "it says that {} values from position {} on are among {} (at most {MAX_VALUES})",
                self.values.len(),
                self.first,
                self.count
            ));
        }
        let leaves = self.values.iter().map(|value| tree::leaf(*value, &self.nonce)).collect();
        tree::root_of(leaves, self.first, shape, &self.path).map_err(|e| match e {
            PathError::Length => {
                format!(
                    "it has another number of nodes than a tree of {} values asks for",
                    self.count
                )
            }
            PathError::Padding => {
                format!("it has padding where a tree of {} values has none", self.count)
            }
        })
    }

    /// Checks that the row is at its position under this root. `count` is the number of committed
    /// values, if the checker knows it.
    ///
    /// # Errors
    /// [`Error::Claim`] says which check failed.
    pub fn check(&self, root: &[u8; 32], count: Option<usize>) -> Result<(), Error> {
        let refuse = |why: String| {
            Err(Error::Claim(format!("the row is not shown to be under this root: {why}")))
        };
        if let Some(count) = count
            && count != self.count
        {
            return refuse(format!("the proof is for {} values, not for {count}", self.count));
        }
        match self.root() {
            Ok(found) if found == *root => Ok(()),
            Ok(found) => {
                refuse(format!("its values and nodes lead to the root 0x{}", hex::encode(found)))
            }
            Err(why) => refuse(why),
        }
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let file = File {
            format: FORMAT.into(),
            version: VERSION,
            count: self.count,
            first: self.first,
            values: self.values.clone(),
            nonce: hex::encode(self.nonce),
            path: self.path.iter().map(hex::encode).collect(),
        };
        let mut bytes = serde_json::to_vec(&file)
            .map_err(|e| Error::Input(format!("the row proof cannot be written: {e}")))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Writes the proof. The file is private, because it has the row and the nonce.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        Ok(zklora_files::write(path, &self.to_bytes()?, Access::Private)?)
    }

    /// Reads a proof. [`RowProof::check`] checks it.
    pub fn read(path: &Path) -> Result<RowProof, Error> {
        RowProof::parse(path, &zklora_files::read(path, MAX_PROOF)?)
    }

    /// [`RowProof::read`] of a file's bytes; `path` is for the error.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<RowProof, Error> {
        let refuse = |why: String| {
            Error::file(path, format!("not a row proof of `zklora trace prove-row`: {why}"))
        };
        let file: File = serde_json::from_slice(bytes).map_err(|e| refuse(e.to_string()))?;
        if file.format != FORMAT || file.version != VERSION {
            let (format, version) = (file.format, file.version);
            return Err(refuse(format!(
                "format `{format}` version {version}: this build reads `{FORMAT}` version {VERSION}"
            )));
        }
        let node =
            |text: &String| hex32(text).ok_or_else(|| refuse("a hash is not 64 hex digits".into()));
        Ok(RowProof {
            count: file.count,
            first: file.first,
            values: file.values,
            nonce: node(&file.nonce)?,
            path: file.path.iter().map(node).collect::<Result<_, _>>()?,
        })
    }
}
