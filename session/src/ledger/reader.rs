//! Reading a ledger, while another process may append to it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{entry::Entry, index::LedgerIndex};
use crate::Error;

pub(super) const MAX_LEDGER: u64 = 1 << 32;

/// The entries of a ledger; none if there is no file yet.
pub fn read(path: &Path) -> Result<Vec<Entry>, Error> {
    lines(path, &bytes_if_present(path)?).collect()
}

/// The index of a ledger, while another process may append to it.
pub fn index(path: &Path) -> Result<LedgerIndex, Error> {
    index_lines(path, &bytes_if_present(path)?)
}

fn bytes_if_present(path: &Path) -> Result<Vec<u8>, Error> {
    // A failed stat does not mean that the file is absent.
    if !path.try_exists().map_err(|e| Error::file(path, e))? {
        return Ok(Vec::new());
    }
    Ok(zklora_files::read(path, MAX_LEDGER)?)
}

/// The index of the lines of a ledger.
pub(super) fn index_lines(path: &Path, bytes: &[u8]) -> Result<LedgerIndex, Error> {
    let mut index = LedgerIndex::default();
    for (number, entry) in lines(path, bytes).enumerate() {
        index
            .apply(entry?)
            .map_err(|why| Error::file(path, format!("line {}: {why}", number + 1)))?;
    }
    Ok(index)
}

/// Whether another process has locked the ledger. A server does so for as long as it runs.
pub fn is_locked(path: &Path) -> bool {
    // A shared lock, dropped at once. A server that starts meanwhile waits for longer than that.
    fs::File::open(path)
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
}

/// The lines without a torn last one.
pub(super) fn whole_lines(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1)]
}

/// Each entry, with the full path of its log.
fn lines<'a>(path: &'a Path, bytes: &'a [u8]) -> impl Iterator<Item = Result<Entry, Error>> + 'a {
    let folder = folder_of(path);
    let lines =
        whole_lines(bytes).split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines.map(move |(number, line)| {
        let refuse = |why: String| Error::file(path, format!("line {}: {why}", number + 1));
        let mut entry: Entry =
            serde_json::from_slice(line).map_err(|e| refuse(format!("not a ledger entry: {e}")))?;
        entry.check().map_err(refuse)?;
        entry.log = entry.log.map(|log| folder.join(log));
        entry.from = entry.from.map(|log| folder.join(log));
        Ok(entry)
    })
}

/// The full path of the folder that relative logs are in.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf())
}
