//! The files of the seed and of the opening (the mask key that a buyer receives): mode 0600, never
//! printed.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};
use zklora_proof::{
    manifest::AdapterId,
    masks::{MaskKey, Seed},
};

use crate::Error;

const MAX_SECRET_FILE: u64 = 4096;

/// Reads a seed: 64 hex digits.
pub fn read_seed(path: &Path) -> Result<Seed, Error> {
    let bytes = Zeroizing::new(zklora_files::read(path, MAX_SECRET_FILE)?);
    let mut seed = Zeroizing::new([0u8; 32]);
    hex::decode_to_slice(bytes.trim_ascii(), seed.as_mut()).map_err(|_| {
        Error::file(path, "a seed file holds 64 hex digits: 32 random bytes, never a passphrase")
    })?;
    if seed.iter().all(|byte| *byte == seed[0]) {
        return Err(Error::file(
            path,
            "all bytes of this seed are equal: it was not drawn at random",
        ));
    }
    Ok(Seed::from_bytes(*seed))
}

/// The bytes of a seed file.
pub fn seed_bytes(seed: &Seed) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(hex::encode(seed.expose()));
    let mut bytes = Zeroizing::new(text.as_bytes().to_vec());
    text.zeroize();
    bytes.push(b'\n');
    bytes
}

/// The mask key of one adapter, which the contributor delivers after payment. It opens no other
/// adapter of the same seed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpeningFile {
    adapter_id: String,
    format: String,
    mask_key: String,
    version: u32,
}

impl Drop for OpeningFile {
    fn drop(&mut self) {
        self.mask_key.zeroize();
    }
}

const OPENING_FORMAT: &str = "zklora-opening";
const OPENING_VERSION: u32 = 1;

/// The bytes of an opening file.
pub fn opening_bytes(adapter: &AdapterId, key: &MaskKey) -> Result<Zeroizing<Vec<u8>>, Error> {
    let file = OpeningFile {
        adapter_id: adapter.to_string(),
        format: OPENING_FORMAT.into(),
        mask_key: hex::encode(key.expose()),
        version: OPENING_VERSION,
    };
    serde_json::to_vec(&file)
        .map(Zeroizing::new)
        .map_err(|e| Error::Input(format!("the opening cannot be written: {e}")))
}

/// Reads an opening, and the id of its adapter.
pub fn read_opening(path: &Path) -> Result<(AdapterId, MaskKey), Error> {
    let bytes = Zeroizing::new(zklora_files::read(path, MAX_SECRET_FILE)?);
    let refuse = |why: &str| Error::file(path, format!("not an opening: {why}"));
    let file: OpeningFile = serde_json::from_slice(&bytes).map_err(|e| refuse(&e.to_string()))?;
    if file.format != OPENING_FORMAT || file.version != OPENING_VERSION {
        return Err(refuse("another format or version"));
    }
    let mut key = Zeroizing::new([0u8; 32]);
    hex::decode_to_slice(&file.mask_key, key.as_mut())
        .map_err(|_| refuse("the mask key is not 64 hex digits"))?;
    let adapter =
        file.adapter_id.parse().map_err(|e: zklora_proof::Error| refuse(&e.to_string()))?;
    Ok((adapter, MaskKey::from_bytes(*key)))
}
