//! Reading whole files that may be hostile: plain files only, and never more than a limit.
//!
//! Must not know what is in them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::Error;

/// Opens `path` for reading and says how long it is, in bytes. Refuses folders, pipes, devices and
/// anything over `limit`.
pub(crate) fn open(path: &Path, limit: u64) -> Result<(File, u64), Error> {
    let read_error = |source| Error::Read { path: path.to_owned(), source };
    // Asked before opening: opening a pipe that nobody writes to would wait for ever.
    let metadata = std::fs::metadata(path).map_err(read_error)?;
    if !metadata.is_file() {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    let bytes = metadata.len();
    if bytes > limit {
        return Err(Error::TooLarge { path: path.to_owned(), bytes, limit });
    }
    Ok((File::open(path).map_err(read_error)?, bytes))
}

/// The content of `path`, at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let (file, _) = open(path, limit)?;
    let mut content = Vec::new();
    // The file may have grown since it was measured; one byte more than the limit tells.
    file.take(limit.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let bytes = content.len() as u64;
    if bytes > limit {
        return Err(Error::TooLarge { path: path.to_owned(), bytes, limit });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, [0u8; 11]).unwrap();
        assert_eq!(read(&path, 11).unwrap().len(), 11);
        assert!(matches!(read(&path, 10), Err(Error::TooLarge { bytes: 11, limit: 10, .. })));
    }

    #[test]
    fn a_folder_is_not_a_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path(), 10), Err(Error::NotAFile { .. })));
    }
}
