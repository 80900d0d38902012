//! `private/weights.bin`: the integers of an adapter, which a buyer receives (`docs/formats.md`).
//!
//! Magic, version, then for each pair two vectors: length (u64) and 32-bit integers, little-endian.
//! Shapes come from the manifest, so no length in the file decides an allocation.

use std::path::Path;

use zeroize::Zeroizing;
use zklora_proof::{
    manifest::Manifest,
    weights::{PairWeights, Weights},
};

use crate::Error;

const MAGIC: &[u8; 8] = b"zklorawt";
const VERSION: u8 = 1;

/// The bytes of the file.
pub fn to_bytes(weights: &Weights) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(
        weights.parameters() * 4 + weights.pairs().len() * 16 + 9,
    ));
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
    for pair in weights.pairs() {
        for vector in [&pair.a, &pair.b] {
            out.extend_from_slice(&(vector.len() as u64).to_le_bytes());
            out.extend(vector.iter().flat_map(|v| v.to_le_bytes()));
        }
    }
    out
}

/// Reads the file's bytes as the weights of `manifest`.
///
/// # Errors
/// [`Error::File`] if this is not a weights file; [`zklora_proof::Error::Weights`] if it does not
/// fit the manifest.
pub fn parse(path: &Path, bytes: &[u8], manifest: &Manifest) -> Result<Weights, Error> {
    let refuse = |why: &'static str| Error::file(path, why);
    let misfit = |why: &str| zklora_proof::Error::Weights(format!("{}: {why}", path.display()));
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| refuse("not a zklora weights file"))?;
    let mut rest = match rest.split_first() {
        Some((&VERSION, rest)) => rest,
        _ => return Err(refuse("a version that this build does not read")),
    };
    let mut pairs = Vec::new();
    for module in &manifest.modules {
        for term in &module.terms {
            let (a_len, b_len) = module.side_lengths(term);
            for _ in 0..term.rank {
                let mut vector = |expected: usize| -> Result<Vec<i32>, Error> {
                    let (values, tail) = take_vector(rest, expected).ok_or_else(|| {
                        misfit("it ends early or has other shapes than the manifest")
                    })?;
                    rest = tail;
                    Ok(values)
                };
                pairs.push(PairWeights { a: vector(a_len)?, b: vector(b_len)? });
            }
        }
    }
    if !rest.is_empty() {
        return Err(misfit("it has bytes after its end").into());
    }
    Ok(Weights::new(manifest, pairs)?)
}

fn take_vector(bytes: &[u8], expected: usize) -> Option<(Vec<i32>, &[u8])> {
    let (length, rest) = bytes.split_at_checked(8)?;
    if length != (expected as u64).to_le_bytes() {
        return None;
    }
    let (values, rest) = rest.split_at_checked(expected.checked_mul(4)?)?;
    let values =
        values.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Some((values, rest))
}
