//! SRS files of EZKL: KZG parameters over BN254. (The Ethereum ceremony is over BLS12-381 and cannot be used.)

use std::{io::Read, path::Path};

use crate::Error;

/// The file's digest and log₂ of its points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SrsFile {
    pub digest: String,
    pub logrows: u32,
}

/// Reads a file once, whatever its size.
///
/// # Errors
/// Says if the file cannot hold the points that it says it holds.
pub(super) fn inspect(path: &Path) -> Result<SrsFile, Error> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::file(path, e))?;
    if !metadata.is_file() {
        return Err(Error::file(path, "not a file"));
    }
    let mut file = std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
    let mut start = [0u8; 4];
    file.read_exact(&mut start).map_err(|e| Error::file(path, format!("not an SRS of EZKL: {e}")))?;
    let logrows = u32::from_le_bytes(start);
    // k, 2^k points as powers and as Lagrange basis, and two points of the other group.
    let expected = (1..=28).contains(&logrows).then(|| 4 + (128u64 << logrows) + 256);
    if expected != Some(metadata.len()) {
        let why = format!("not an SRS of EZKL: it begins with k = {logrows} and has {} bytes", metadata.len());
        return Err(Error::file(path, why));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&start);
    hasher.update_reader(&mut file).map_err(|e| Error::file(path, e))?;
    Ok(SrsFile { digest: hasher.finalize().to_hex().to_string(), logrows })
}
