//! Seeds, mask keys and masks (docs/protocol.md, "Masks").
//!
//! The mask key is bound to everything that is committed to, so a change of a weight, name, order,
//! bit width, k or SRS changes all masks. The difference of two commitments of one seed is
//! therefore never an unmasked commitment.

use rand_core::{OsRng, RngCore};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    Error,
    field::{F, from_wide},
    manifest::Manifest,
    weights::Weights,
};

/// 32 secret bytes from the operating system, never a passphrase. Not printed, overwritten when
/// dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A fresh seed.
    pub fn generate() -> Result<Seed, Error> {
        Ok(Seed(*os_bytes()?))
    }

    /// A stored seed.
    pub fn from_bytes(bytes: [u8; 32]) -> Seed {
        Seed(bytes)
    }

    /// The bytes, for storage in a file that only the owner can read.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// 32 bytes from the operating system.
pub fn os_bytes() -> Result<Zeroizing<[u8; 32]>, Error> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    OsRng.try_fill_bytes(bytes.as_mut()).map_err(|e| Error::Randomness(e.to_string()))?;
    Ok(bytes)
}

/// Which side of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A.
    A = 0,
    /// B.
    B = 1,
}

/// The key of all masks of one adapter. A buyer gets it with the weights (the opening). It opens no
/// other adapter of the same seed. Not printed, overwritten when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MaskKey([u8; 32]);

impl MaskKey {
    /// `K = derive_key("zklora v1 mask key", seed ‖ BLAKE3_keyed(seed, content))`, where `content`
    /// is the canonical manifest without its commitments and all integers in manifest order,
    /// every field length-prefixed.
    pub fn derive(seed: &Seed, manifest: &Manifest, weights: &Weights) -> Result<MaskKey, Error> {
        let mut content = blake3::Hasher::new_keyed(&seed.0);
        field(&mut content, &manifest.bytes_without_commitments()?);
        // As long as the longest vector: a buffer that grows leaves copies of secrets in memory.
        let longest =
            weights.pairs().iter().map(|pair| pair.a.len().max(pair.b.len())).max().unwrap_or(0);
        let mut buffer = Zeroizing::new(Vec::with_capacity(4 * longest));
        for pair in weights.pairs() {
            for vector in [&pair.a, &pair.b] {
                buffer.clear();
                for value in vector {
                    buffer.extend_from_slice(&value.to_le_bytes());
                }
                field(&mut content, &buffer);
            }
        }
        let mut digest = *content.finalize().as_bytes();
        let mut hasher = blake3::Hasher::new_derive_key("zklora v1 mask key");
        hasher.update(&seed.0);
        hasher.update(&digest);
        let key = MaskKey(*hasher.finalize().as_bytes());
        digest.zeroize();
        content.zeroize();
        hasher.zeroize();
        Ok(key)
    }

    /// A stored or delivered key.
    pub fn from_bytes(bytes: [u8; 32]) -> MaskKey {
        MaskKey(bytes)
    }

    /// The bytes, for storage in a file that only the owner can read, or for delivery after
    /// payment.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The mask of `slot` (0 or 1) in one column of one vector. `module` is the position in the
    /// manifest, `j` the pair's index within its module; all fields have fixed width.
    pub fn mask(&self, module: usize, side: Side, j: usize, column: usize, slot: u8) -> F {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&(module as u64).to_le_bytes());
        hasher.update(&[side as u8]);
        hasher.update(&(j as u64).to_le_bytes());
        hasher.update(&(column as u64).to_le_bytes());
        hasher.update(&[slot]);
        let mut wide = Zeroizing::new([0u8; 64]);
        hasher.finalize_xof().fill(wide.as_mut());
        hasher.zeroize();
        from_wide(&wide)
    }
}

fn field(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}
