//! Writing a file so that it is there whole or not at all: to a temporary name in the same folder, then renamed.
//!
//! Must not know what is written.

use std::io::Write;
use std::path::Path;

use crate::Error;

/// Writes `content` to `dir/name`, replacing what was there. The file is readable by its owner only, as
/// adapters are their contributor's property.
pub(crate) fn write(dir: &Path, name: &str, content: &[u8]) -> Result<(), Error> {
    let path = dir.join(name);
    let write_error = |source| Error::Write { path: path.clone(), source };
    let mut file = tempfile::Builder::new().prefix(".zklora-").tempfile_in(dir).map_err(write_error)?;
    file.write_all(content).map_err(write_error)?;
    file.persist(&path).map_err(|error| write_error(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_but_the_finished_file_is_left() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "f", b"one").unwrap();
        write(dir.path(), "f", b"two").unwrap();
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::create_dir(dir.path().join("taken")).unwrap();
        assert!(matches!(write(dir.path(), "taken", b"x"), Err(Error::Write { .. })));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
