//! Reads files that an attacker may have written: regular files only, and at most a limit.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use crate::{Error, Kind};

/// Largest trace, activation or ONNX file that is read, in bytes.
pub const MAX_FILE: u64 = 64 << 30;

/// Opens a regular file of at most `limit` bytes, and returns its length.
///
/// # Errors
/// [`Kind::NotAFile`], [`Kind::TooLarge`], or an error of the operating system.
pub fn open(path: &Path, limit: u64) -> Result<(File, u64), Error> {
    // Checked before opening: opening a pipe blocks until another process writes to it.
    let metadata = fs::metadata(path).map_err(|e| Error::new(path, e))?;
    require_regular(path, &metadata)?;
    require_at_most(path, metadata.len(), limit)?;
    Ok((File::open(path).map_err(|e| Error::new(path, e))?, metadata.len()))
}

/// Reads the whole content of a regular file of at most `limit` bytes.
///
/// # Errors
/// Those of [`open()`]. A file that grows beyond the limit while it is read is [`Kind::TooLarge`].
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let (file, length) = open(path, limit)?;
    let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    // Reading one byte more than the limit detects a file that grew after it was opened.
    file.take(limit.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(|e| Error::new(path, e))?;
    require_at_most(path, content.len() as u64, limit)?;
    Ok(content)
}

/// Reads the first `most` bytes of a regular file, or all if it is shorter.
///
/// # Errors
/// [`Kind::NotAFile`], or an error of the operating system.
pub fn read_start(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    require_regular(path, &fs::metadata(path).map_err(|e| Error::new(path, e))?)?;
    let mut content = Vec::new();
    let file = File::open(path).map_err(|e| Error::new(path, e))?;
    file.take(most).read_to_end(&mut content).map_err(|e| Error::new(path, e))?;
    Ok(content)
}

fn require_regular(path: &Path, metadata: &fs::Metadata) -> Result<(), Error> {
    if metadata.is_file() {
        return Ok(());
    }
    let why = "not a file".to_string();
    Err(Error { path: path.to_path_buf(), why, kind: Kind::NotAFile })
}

fn require_at_most(path: &Path, bytes: u64, limit: u64) -> Result<(), Error> {
    if bytes <= limit {
        return Ok(());
    }
    let why = format!("{bytes} bytes, at most {limit} are read");
    Err(Error { path: path.to_path_buf(), why, kind: Kind::TooLarge })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, [0u8; 11]).unwrap();
        assert_eq!(read(&path, 11).unwrap().len(), 11);
        let error = read(&path, 10).unwrap_err();
        assert_eq!(error.kind, Kind::TooLarge);
        assert!(error.to_string().ends_with("f: 11 bytes, at most 10 are read"), "{error}");
    }

    #[test]
    fn a_folder_is_not_a_file() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), 10).unwrap_err().kind, Kind::NotAFile);
        assert_eq!(read_start(dir.path(), 10).unwrap_err().kind, Kind::NotAFile);
    }

    #[test]
    fn no_more_than_the_start_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, [7u8; 11]).unwrap();
        assert_eq!(read_start(&path, 4).unwrap(), [7; 4]);
        assert_eq!(read_start(&path, 40).unwrap(), [7; 11]);
    }
}
