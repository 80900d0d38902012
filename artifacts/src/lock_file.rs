//! `zklora.lock`: the digests of every input and output of a compilation. CI regenerates the files
//! and compares.
//!
//! Public files are digested with plain BLAKE3. Private ones (ONNX files, weights) are digested
//! under a key derived from the seed, because a plain hash would let an attacker confirm a guess of
//! the weights.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zklora_proof::{PROTOCOL_VERSION, manifest, masks::Seed};

/// The content of `zklora.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockFile {
    /// Id of the adapter that the inputs compile to.
    pub adapter_id: String,
    /// `zklora-lock`.
    pub format: String,
    /// Versions of the formats that were written.
    pub formats: BTreeMap<String, u32>,
    /// Keyed digest of each ONNX input, by module name.
    pub inputs: BTreeMap<String, String>,
    /// Digest of each output: plain for `public/`, keyed for `private/`.
    pub outputs: BTreeMap<String, String>,
    /// Digest of the SRS.
    pub srs: String,
    /// The program that wrote it.
    pub tool: String,
    /// Version of this format.
    pub version: u32,
}

impl LockFile {
    /// A lock file without inputs and outputs.
    pub fn new(adapter_id: String, srs: String) -> LockFile {
        let formats = [
            ("manifest", manifest::VERSION),
            ("protocol", PROTOCOL_VERSION),
            ("settings", PROTOCOL_VERSION),
            ("weights", 1),
        ];
        LockFile {
            adapter_id,
            format: "zklora-lock".into(),
            formats: formats.map(|(name, version)| (name.to_string(), version)).into(),
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
            srs,
            tool: concat!("zklora ", env!("CARGO_PKG_VERSION")).into(),
            version: 1,
        }
    }

    /// Canonical JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A map of strings to strings always has a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Digest of a public file.
pub fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Digest of a private file under the seed.
pub fn keyed_digest(seed: &Seed, bytes: &[u8]) -> String {
    let key = zeroize::Zeroizing::new(blake3::derive_key("zklora v1 lock key", seed.expose()));
    blake3::keyed_hash(&key, bytes).to_hex().to_string()
}
