//! Writing files so that a crash leaves the old content or the new one, and folders that let only
//! their owner in.

use std::{fs, io, path::Path};

pub use crate::temporary::Access;
use crate::{
    Error,
    temporary::{self, Scratch, folder_of},
};

/// Writes to a temporary name in the same folder, flushes and renames: a crash leaves the old file
/// or the new one.
///
/// # Errors
/// The folder does not exist, or an error of the operating system; the old file is then unchanged.
pub fn write(path: &Path, bytes: &[u8], access: Access) -> Result<(), Error> {
    require_folder_of(path)?;
    temporary::write(path, bytes, access).map_err(|e| Error::new(path, e))
}

/// A temporary folder of mode 0700 in the system's folder for temporary files. It is removed with
/// its content when it is dropped.
///
/// # Errors
/// Those of the operating system.
pub fn scratch() -> Result<Scratch, Error> {
    Scratch::new().map_err(|e| Error::new(&std::env::temp_dir(), e))
}

/// Removes a file, if it is there.
///
/// # Errors
/// Those of the operating system.
pub fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::new(path, e)),
        _ => Ok(()),
    }
}

/// Checks that the folder of a file exists, before work is done that would be lost.
///
/// # Errors
/// The folder does not exist.
pub fn require_folder_of(path: &Path) -> Result<(), Error> {
    if folder_of(path).is_dir() {
        return Ok(());
    }
    // An error of the system's kind: the folder may be away for a moment, so callers that retry do.
    let why = io::Error::new(io::ErrorKind::NotFound, "its folder does not exist: create it first");
    Err(Error::new(path, why))
}

/// Creates a folder and its parents. A new private folder gets mode 0700. An existing folder keeps
/// its mode: it may be a home folder, and private files in it have a mode of their own.
///
/// # Errors
/// Those of the operating system.
pub fn create_folder(path: &Path, access: Access) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(|e| Error::new(path, e))?;
    #[cfg(unix)]
    if access == Access::Private {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|e| Error::new(path, e))?;
    }
    #[cfg(not(unix))]
    let _ = access;
    Ok(())
}
