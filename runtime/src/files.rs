//! Reading with a bound, writing beside and renaming.
//!
//! Temporary files and folders are those of [`zklora_models::temporary`]: what is made elsewhere
//! than by [`write()`] is made by [`temporary_in`] or [`scratch`], so that what a killed process
//! leaves is found and removed.

use std::{fs, io::Read, path::Path};

use zklora_models::temporary;
pub use zklora_models::temporary::{Access, Scratch, folder_of, sweep, temporary_in};

use crate::Error;

/// Largest trace, activation or ONNX file that is read, in bytes.
pub const MAX_FILE: u64 = 64 << 30;

/// Opens a regular file of at most `limit` bytes.
pub fn open(path: &Path, limit: u64) -> Result<fs::File, Error> {
    // Before it is opened: opening a pipe would wait for somebody to write to it.
    let metadata = fs::metadata(path).map_err(|e| Error::file(path, e))?;
    if !metadata.is_file() {
        return Err(Error::file(path, "not a file"));
    }
    if metadata.len() > limit {
        return Err(Error::file(
            path,
            format!("{} bytes, at most {limit} are read", metadata.len()),
        ));
    }
    fs::File::open(path).map_err(|e| Error::file(path, e))
}

/// The whole file, if it is a regular file of at most `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let file = open(path, limit)?;
    let length = file.metadata().map_err(|e| Error::file(path, e))?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    // The file may grow while it is read: the bound holds all the same.
    file.take(limit).read_to_end(&mut bytes).map_err(|e| Error::file(path, e))?;
    Ok(bytes)
}

/// The first bytes of a regular file: `most` of them, or all.
pub fn read_start(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    if !fs::metadata(path).map_err(|e| Error::file(path, e))?.is_file() {
        return Err(Error::file(path, "not a file"));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|e| Error::file(path, e))?;
    file.take(most).read_to_end(&mut bytes).map_err(|e| Error::file(path, e))?;
    Ok(bytes)
}

/// Writes to a temporary name in the same folder, flushes, renames: a crash leaves the old file or
/// the new one.
pub fn write(path: &Path, bytes: &[u8], access: Access) -> Result<(), Error> {
    require_folder_of(path)?;
    temporary::write(path, bytes, access).map_err(|e| Error::file(path, e))
}

/// A folder for what is not kept: of mode 0700, in the system's folder for temporary files, and
/// removed with all that is in it.
pub fn scratch() -> Result<Scratch, Error> {
    Scratch::new().map_err(|e| Error::file(&std::env::temp_dir(), e))
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::file(path, e)),
        _ => Ok(()),
    }
}

/// Whether a file could be written here: to be asked before work is done that would be lost.
pub fn require_folder_of(path: &Path) -> Result<(), Error> {
    if folder_of(path).is_dir() {
        return Ok(());
    }
    // Of the system's kind: the folder may be away for a moment, and who can wait does.
    let why = std::io::Error::new(
        std::io::ErrorKind::NotFound,
        "its folder does not exist: create it first",
    );
    Err(Error::file(path, why))
}

/// Creates a folder and its parents; a private one lets only its owner in (mode 0700). One that is
/// there stays as it is: it may be somebody's home, and what is private in it is so by its own
/// mode.
pub fn create_folder(path: &Path, access: Access) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(|e| Error::file(path, e))?;
    #[cfg(unix)]
    if access == Access::Private {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|e| Error::file(path, e))?;
    }
    #[cfg(not(unix))]
    let _ = access;
    Ok(())
}
