//! Manifests that were parsed before: their commitments, decompressed and checked, are kept in the user's cache folder.
//!
//! A kept file is held to the manifest point by point ([`Pinned::parse_with_points`]); one that does not fit is made again. That its points
//! lie in the prime-order group was checked when it was written, so it has to be this user's, and nobody else may write to it.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use zklora_circuit::manifest::{AdapterId, Pinned};

use crate::{
    Error,
    files::{self, Access},
};

/// Points from which on keeping them is faster than parsing: a file is read in the time of some dozens.
const WORTH_KEEPING: usize = 128;
/// Longest file that is read, in bytes: as many points as a manifest can hold.
const MAX_POINTS: u64 = 1 << 28;

/// Where files are kept: `$ZKLORA_CACHE_DIR`, else `$XDG_CACHE_HOME/zklora`, else `~/.cache/zklora`.
fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("ZKLORA_CACHE_DIR")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("zklora")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/zklora")))
}

/// What this user wrote and nobody else can have changed.
fn read_own(path: &Path) -> Option<Vec<u8>> {
    let file = files::open(path, MAX_POINTS).ok()?;
    let found = file.metadata().ok()?;
    if !zklora_models::temporary::is_own(&found) || may_be_written_by_others(&found) {
        return None;
    }
    let mut points = Vec::with_capacity(usize::try_from(found.len()).ok()?);
    file.take(MAX_POINTS).read_to_end(&mut points).ok()?;
    Some(points)
}

#[cfg(unix)]
fn may_be_written_by_others(found: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    found.permissions().mode() & 0o022 != 0
}

#[cfg(not(unix))]
fn may_be_written_by_others(_: &std::fs::Metadata) -> bool {
    false
}

/// A manifest; with a pin, it must have that adapter id. That points are kept only makes it faster: a folder that
/// cannot be written to is no error.
pub(crate) fn parse(bytes: &[u8], pin: Option<&AdapterId>) -> Result<Pinned, Error> {
    let id = AdapterId(*blake3::hash(bytes).as_bytes());
    if let Some(pin) = pin.filter(|pin| **pin != id) {
        // It says what differs.
        return Ok(Pinned::parse_pinned(bytes, pin)?);
    }
    let path = cache_folder().map(|folder| folder.join(format!("{id}.points")));
    if let Some(points) = path.as_deref().and_then(read_own)
        && let Ok(pinned) = Pinned::parse_with_points(bytes, &points)
    {
        return Ok(pinned);
    }
    let pinned = Pinned::parse(bytes)?;
    let count: usize = pinned.points().iter().map(|pair| pair.a.len() + pair.b.len()).sum();
    if let Some(path) = path.filter(|_| count >= WORTH_KEEPING)
        && path.parent().is_some_and(|folder| files::create_folder(folder, Access::Public).is_ok())
    {
        let _ = files::write(&path, &pinned.points_to_bytes(), Access::Public);
    }
    Ok(pinned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[cfg(unix)]
    #[test]
    fn points_that_others_may_have_written_are_not_taken() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.points");
        std::fs::write(&path, "points").unwrap();
        for (mode, taken) in [(0o644, true), (0o600, true), (0o664, false), (0o646, false), (0o666, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_own(&path).is_some(), taken, "{mode:o}");
        }
    }
}
