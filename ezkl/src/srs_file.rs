//! Reads SRS files of EZKL: KZG parameters over BN254. (The Ethereum ceremony is over BLS12-381 and
//! cannot be used.)

use std::{io::Read, path::Path};

use crate::Error;

/// The file's digest and log₂ of its points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SrsFile {
    pub digest: String,
    pub logrows: u32,
}

/// Most points, as log₂.
const MAX_LOGROWS: u32 = 28;

/// Bytes of a file with 2^`logrows` points: k, the points as powers and as Lagrange basis, and two
/// points of the other group.
const fn size(logrows: u32) -> u64 {
    4 + (128 << logrows) + 256
}

/// Largest file that is read, in bytes.
pub(super) const MAX_BYTES: u64 = size(MAX_LOGROWS);

/// Digests a file in one pass, without loading it. Errors call it `path`: `file` may be a copy of
/// that.
///
/// # Errors
/// The size of the file does not fit its number of points.
pub(super) fn inspect(path: &Path, file: &Path) -> Result<SrsFile, Error> {
    let (mut file, length) = zklora_files::open(file, MAX_BYTES)?;
    let mut start = [0u8; 4];
    file.read_exact(&mut start)
        .map_err(|e| Error::file(path, format!("not an SRS of EZKL: {e}")))?;
    let logrows = u32::from_le_bytes(start);
    if !(1..=MAX_LOGROWS).contains(&logrows) || size(logrows) != length {
        let why =
            format!("not an SRS of EZKL: it begins with k = {logrows} and has {length} bytes");
        return Err(Error::file(path, why));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&start);
    hasher.update_reader(&mut file).map_err(|e| Error::file(path, e))?;
    Ok(SrsFile { digest: hasher.finalize().to_hex().to_string(), logrows })
}
