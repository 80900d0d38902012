//! Caches the decompressed and checked commitments of manifests in the user's cache folder.
//!
//! A cached file is compared with the manifest point by point
//! ([`CheckedManifest::parse_with_points`]). A file that does not match is replaced. Membership in
//! the prime-order group is checked only when the file is written, so the file must belong to this
//! user, and no other user may have write access.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use zklora_files::Access;
use zklora_proof::{checked_manifest::CheckedManifest, manifest::AdapterId};

use crate::Error;

/// Fewest points that are cached. Reading the file takes as long as checking some dozens of points.
const MIN_CACHED_POINTS: usize = 128;
/// Longest file that is read, in bytes: as many points as a manifest can have.
const MAX_POINTS: u64 = 1 << 28;
/// Most files in the cache.
const MAX_FILES: usize = 64;
const SUFFIX: &str = "points";

/// The cache folder: `$ZKLORA_CACHE_DIR`, else `$XDG_CACHE_HOME/zklora`, else `~/.cache/zklora`.
fn cache_folder() -> Option<PathBuf> {
    let set =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("ZKLORA_CACHE_DIR")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("zklora")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/zklora")))
}

/// Reads a file that belongs to this user and that no other user can write to.
fn read_own(path: &Path) -> Option<Vec<u8>> {
    let (file, _) = zklora_files::open(path, MAX_POINTS).ok()?;
    let found = file.metadata().ok()?;
    if !zklora_files::temporary::is_own(&found) || may_be_written_by_others(&found) {
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

/// Parses a manifest. With a pin, it must have that adapter id. The cache only saves time: a folder
/// that cannot be written to is no error.
///
/// Only pinned manifests are cached. Otherwise the sender of a manifest could fill the cache.
pub fn parse(bytes: &[u8], pin: Option<&AdapterId>) -> Result<CheckedManifest, Error> {
    parse_in(cache_folder().as_deref(), bytes, pin, pin.is_some())
}

/// The same for a manifest whose pin came with it, such as that of evidence: it is not cached.
pub fn parse_unkept(bytes: &[u8], pin: &AdapterId) -> Result<CheckedManifest, Error> {
    parse_in(cache_folder().as_deref(), bytes, Some(pin), false)
}

fn parse_in(
    folder: Option<&Path>,
    bytes: &[u8],
    pin: Option<&AdapterId>,
    keep: bool,
) -> Result<CheckedManifest, Error> {
    let id = AdapterId::of(bytes);
    if let Some(pin) = pin.filter(|pin| **pin != id) {
        // The error says how the ids differ.
        return Ok(CheckedManifest::parse_pinned(bytes, pin)?);
    }
    let path = folder.map(|folder| folder.join(format!("{id}.{SUFFIX}")));
    if let Some(points) = path.as_deref().and_then(read_own)
        && let Ok(manifest) = CheckedManifest::parse_with_points(bytes, &points)
    {
        return Ok(manifest);
    }
    let manifest = CheckedManifest::parse(bytes)?;
    let count: usize = manifest.points().iter().map(|pair| pair.a.len() + pair.b.len()).sum();
    if let Some((folder, path)) = folder.zip(path).filter(|_| keep && count >= MIN_CACHED_POINTS)
        && zklora_files::create_folder(folder, Access::Public).is_ok()
        && zklora_files::write(&path, &manifest.points_to_bytes(), Access::Public).is_ok()
    {
        forget_oldest(folder, &path);
    }
    Ok(manifest)
}

/// Removes the oldest files, so that [`MAX_FILES`] are left. Never removes `new`.
fn forget_oldest(folder: &Path, new: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let points = entries.flatten().map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let id = name.strip_suffix(SUFFIX).and_then(|name| name.strip_suffix('.'));
        // The cache did not write files with other names.
        path != new && id.is_some_and(|id| id.parse::<AdapterId>().is_ok())
    });
    let changed = |path: &PathBuf| path.symlink_metadata().and_then(|found| found.modified()).ok();
    let mut others: Vec<_> = points.map(|path| (changed(&path), path)).collect();
    others.sort();
    let too_many = (others.len() + 1).saturating_sub(MAX_FILES);
    for (_, path) in others.into_iter().take(too_many) {
        let _ = zklora_files::remove(&path);
    }
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
        for (mode, taken) in
            [(0o644, true), (0o600, true), (0o664, false), (0o646, false), (0o666, false)]
        {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_own(&path).is_some(), taken, "{mode:o}");
        }
    }

    /// A manifest with enough commitments to be cached, and a folder for the cache.
    fn manifest() -> (tempfile::TempDir, Vec<u8>, AdapterId) {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
        let folder = tempfile::tempdir().unwrap();
        let onnx = folder.path().join("onnx");
        std::fs::create_dir(&onnx).unwrap();
        let adapter =
            zklora_models::Adapter::load(&fixtures.join("adapters/smollm2-r4-qv")).unwrap();
        zklora_models::export(&adapter, &[], &onnx).unwrap();
        let out = folder.path().join("out");
        let options = zklora_runtime::compile::Options {
            paths: &[onnx],
            out: &out,
            seed_file: None,
            calibrate: None,
            k: None,
            registered: false,
        };
        let (srs, keys) =
            (crate::srs_file::load(None).unwrap(), zklora_proof::keys::KeyStore::default());
        zklora_runtime::compile::compile(&options, &srs, &keys).unwrap();
        let bytes = std::fs::read(out.join("public/manifest.json")).unwrap();
        let id = AdapterId::of(&bytes);
        (folder, bytes, id)
    }

    #[test]
    fn points_are_kept_of_pinned_manifests_and_of_the_newest_ones() {
        let (folder, bytes, id) = manifest();
        let cache = folder.path().join("cache");
        let kept = cache.join(format!("{id}.points"));
        parse_in(Some(&cache), &bytes, None, false).unwrap();
        assert!(!cache.exists(), "points of a manifest that is not pinned are cached");
        parse_in(Some(&cache), &bytes, Some(&id), false).unwrap();
        assert!(!cache.exists(), "points of a manifest that came with its pin are cached");
        assert!(parse_in(Some(&cache), &bytes, Some(&AdapterId([7; 32])), true).is_err());
        assert!(!cache.exists(), "points of another manifest than the pinned one are cached");

        std::fs::create_dir(&cache).unwrap();
        let name = |at: usize| cache.join(format!("{}.points", AdapterId([at as u8; 32])));
        for at in 0..MAX_FILES + 5 {
            std::fs::write(name(at), "points").unwrap();
            let age = std::time::Duration::from_secs(1000 - at as u64);
            let file = std::fs::File::options().write(true).open(name(at)).unwrap();
            file.set_modified(std::time::SystemTime::now() - age).unwrap();
        }
        std::fs::write(cache.join("notes.points"), "mine").unwrap();
        parse_in(Some(&cache), &bytes, Some(&id), true).unwrap();
        assert!(kept.exists());
        // The six oldest are gone. A file whose name is no adapter id is not.
        let there: Vec<bool> = (0..MAX_FILES + 5).map(|at| name(at).exists()).collect();
        assert_eq!(there.iter().position(|there| *there), Some(6));
        assert_eq!(there.iter().filter(|there| **there).count(), MAX_FILES - 1);
        assert!(cache.join("notes.points").exists());
        // The cache is read without a pin, too.
        assert_eq!(parse_in(Some(&cache), &bytes, None, false).unwrap().id(), id);
    }
}
