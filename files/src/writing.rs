//! Writes files atomically, so that a crash leaves the old content or the new one, and creates
//! private folders.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use crate::{
    Error,
    temporary::{Scratch, folder_of, temporary_in},
};

/// Who may read a new file or enter a new folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Every user whom the parent folder admits.
    Public,
    /// The owner only (mode 0600 for files, 0700 for folders).
    Private,
}

/// Writes a file under a temporary name in the same folder, flushes it to the disk and renames it:
/// a crash leaves the old file or the new one.
///
/// # Errors
/// The folder does not exist, or an error of the operating system. The old file is then unchanged.
pub fn write(path: &Path, bytes: &[u8], access: Access) -> Result<(), Error> {
    require_folder_of(path)?;
    replace(path, bytes, access).map_err(|e| Error::new(path, e))
}

fn replace(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let mut temporary = temporary_in(folder_of(path))?;
    temporary.write_all(bytes)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = if access == Access::Private { 0o600 } else { 0o644 };
        temporary.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    }
    #[cfg(not(unix))]
    let _ = access;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// Creates a temporary folder of mode 0700 in the system's folder for temporary files. It is
/// removed with its content when it is dropped.
///
/// # Errors
/// Those of the operating system.
pub fn scratch() -> Result<Scratch, Error> {
    Scratch::new().map_err(|e| Error::new(&std::env::temp_dir(), e))
}

/// Removes a file if it exists.
///
/// # Errors
/// Those of the operating system.
pub fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::new(path, e)),
        _ => Ok(()),
    }
}

/// Checks that the folder of a file exists. Call this before work whose result would be lost.
///
/// # Errors
/// The folder does not exist.
pub fn require_folder_of(path: &Path) -> Result<(), Error> {
    if folder_of(path).is_dir() {
        return Ok(());
    }
    // An `io::Error`, so that its kind is `System`: the folder may be missing for a moment only,
    // and callers retry errors of this kind.
    let why = io::Error::new(io::ErrorKind::NotFound, "its folder does not exist: create it first");
    Err(Error::new(path, why))
}

/// Creates a folder and its parents. A new private folder gets mode 0700. An existing folder keeps
/// its mode, because it may be a home folder; private files in it have their own mode.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_finished_file_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write(&path, b"one", Access::Public).unwrap();
        write(&path, b"two", Access::Private).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        fs::create_dir(dir.path().join("taken")).unwrap();
        write(&dir.path().join("taken"), b"x", Access::Private).unwrap_err();
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["f", "taken"]);
    }
}
