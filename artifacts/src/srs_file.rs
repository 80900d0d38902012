//! Loads an SRS: from a ceremony file, or the built-in one of the Ethereum ceremony.

use std::path::Path;

use zklora_proof::srs::Srs;

use crate::Error;

/// Largest SRS file that is read, in bytes: 2^20 points as hex.
const MAX_SRS_FILE: u64 = 1 << 28;

/// Loads the SRS of `file`, or the Ethereum ceremony, which is part of the program.
pub fn load(file: Option<&Path>) -> Result<Srs, Error> {
    match file {
        Some(path) => from_json(path, &zklora_files::read(path, MAX_SRS_FILE)?),
        None => Ok(Srs::ethereum()?),
    }
}

/// The format of the Ethereum consensus specifications: `g1_monomial` and `g2_monomial` as lists of
/// hex strings.
#[derive(serde::Deserialize)]
struct CeremonyFile {
    g1_monomial: Vec<String>,
    g2_monomial: Vec<String>,
}

fn from_json(path: &Path, bytes: &[u8]) -> Result<Srs, Error> {
    let refuse = |why: String| Error::file(path, why);
    let file: CeremonyFile = serde_json::from_slice(bytes).map_err(|e| {
        refuse(format!(
            "not a ceremony file (JSON with `g1_monomial` and `g2_monomial` as hex strings): {e}"
        ))
    })?;
    let [g2, s_g2, ..] = file.g2_monomial.as_slice() else {
        return Err(refuse("`g2_monomial` has fewer than two points".into()));
    };
    let g1 = file
        .g1_monomial
        .iter()
        .map(|text| point(text))
        .collect::<Result<Vec<[u8; 48]>, _>>()
        .map_err(refuse)?;
    Ok(Srs::from_compressed(&g1, &point(g2).map_err(refuse)?, &point(s_g2).map_err(refuse)?)?)
}

fn point<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let mut bytes = [0u8; N];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut bytes)
        .map_err(|_| format!("`{text:.20}…` is not a point of {N} bytes as hex"))?;
    Ok(bytes)
}
