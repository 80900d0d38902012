//! Where the SRS comes from: the Ethereum ceremony (cached on disk after its first, checked use) or a file.

use std::path::{Path, PathBuf};

use zklora_circuit::srs::Srs;

use crate::{
    Error,
    files::{self, Access},
};

/// Largest SRS file that is read, in bytes: 2^20 points as hex.
const MAX_SRS_FILE: u64 = 1 << 28;
const CACHE_NAME: &str = "ethereum-kzg-ceremony-k12.srs";

/// Where the cache lies: `$ZKLORA_CACHE_DIR`, else `$XDG_CACHE_HOME/zklora`, else `~/.cache/zklora`.
pub fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("ZKLORA_CACHE_DIR")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("zklora")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/zklora")))
}

/// The SRS of `file`, or the Ethereum ceremony.
///
/// The cache is held to a digest that is part of this program: a changed one is refused and made again. If it cannot be
/// written, the next start is slower, and that is all.
pub fn load(file: Option<&Path>) -> Result<Srs, Error> {
    match file {
        Some(path) => from_json(path, &files::read(path, MAX_SRS_FILE)?),
        None => ethereum(cache_folder().as_deref()),
    }
}

/// The Ethereum ceremony, by way of a cache in `folder`.
pub fn ethereum(folder: Option<&Path>) -> Result<Srs, Error> {
    let path = folder.map(|folder| folder.join(CACHE_NAME));
    if let Some(bytes) = path.as_ref().and_then(|path| files::read(path, MAX_SRS_FILE).ok())
        && let Ok(srs) = Srs::ethereum_from_cache(&bytes)
    {
        return Ok(srs);
    }
    let srs = Srs::ethereum()?;
    if let (Some(folder), Some(path)) = (folder, path)
        && files::create_folder(folder, Access::Public).is_ok()
    {
        let _ = files::write(&path, &srs.to_cache(), Access::Public);
    }
    Ok(srs)
}

/// The format of the Ethereum consensus specifications: `g1_monomial` and `g2_monomial` as lists of hex strings.
#[derive(serde::Deserialize)]
struct CeremonyFile {
    g1_monomial: Vec<String>,
    g2_monomial: Vec<String>,
}

fn from_json(path: &Path, bytes: &[u8]) -> Result<Srs, Error> {
    let refuse = |why: String| Error::file(path, why);
    let file: CeremonyFile = serde_json::from_slice(bytes).map_err(|e| {
        refuse(format!("not a ceremony file (JSON with `g1_monomial` and `g2_monomial` as hex strings): {e}"))
    })?;
    let [g2, s_g2, ..] = file.g2_monomial.as_slice() else {
        return Err(refuse("`g2_monomial` has fewer than two points".into()));
    };
    let g1 = file.g1_monomial.iter().map(|text| point(text)).collect::<Result<Vec<[u8; 48]>, _>>().map_err(refuse)?;
    Ok(Srs::from_compressed(&g1, &point(g2).map_err(refuse)?, &point(s_g2).map_err(refuse)?)?)
}

fn point<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let mut bytes = [0u8; N];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut bytes)
        .map_err(|_| format!("`{text:.20}…` is not a point of {N} bytes as hex"))?;
    Ok(bytes)
}
