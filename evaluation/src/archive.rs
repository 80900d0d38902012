//! Tar archives of a few named files, read with bounds.

use std::io::{Read, Write};

use tar::{Archive, Builder, EntryType, Header};
use zeroize::Zeroizing;

use crate::Error;

/// Most entries.
const MAX_ENTRIES: usize = 1 << 12;
/// Errors of the library quote the file.
const NO_TAR: &str = "it is no tar archive";
/// Longest name of an entry.
const MAX_NAME: usize = 100;

/// A file of an archive. Its bytes may be secret, and are zeroised.
pub struct Entry {
    /// Its name, with `/` between folders.
    pub name: String,
    /// Its content.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// Writes an archive. The same files give the same bytes.
///
/// # Errors
/// [`Error::Internal`]: a name is too long.
pub fn write<'a>(
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    to: impl Write,
) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::Internal(format!("an archive: {error}"));
    let mut builder = Builder::new(to);
    for (name, bytes) in files {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_path(name).map_err(failed)?;
        header.set_mode(0o600);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, bytes).map_err(failed)?;
    }
    builder.finish().map_err(failed)
}

/// Whether a name stays in its folder and means the same on every system.
pub(crate) fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    let part = |part: &str| !part.is_empty() && !part.starts_with('.');
    name.len() <= MAX_NAME && name.bytes().all(plain) && name.split('/').all(part)
}

/// Reads an archive: regular files with plain names, each once. Nothing else may be in it: the
/// bytes must be those that [`write()`] makes of the same files.
///
/// # Errors
/// [`Error::Form`].
pub fn read(bytes: &[u8], what: &str) -> Result<Vec<Entry>, Error> {
    let refuse = |why: String| Error::form(what, why);
    let mut archive = Archive::new(bytes);
    let mut entries: Vec<Entry> = Vec::new();
    let raw = archive.entries().map_err(|_| refuse(NO_TAR.into()))?.raw(true);
    for entry in raw {
        let mut entry = entry.map_err(|_| refuse(NO_TAR.into()))?;
        if entries.len() == MAX_ENTRIES {
            return Err(refuse(format!("more than {MAX_ENTRIES} files")));
        }
        let path = entry.path_bytes().into_owned();
        let name = String::from_utf8(path).map_err(|_| refuse("a name is no text".into()))?;
        if entry.header().entry_type() != EntryType::Regular || !is_plain(&name) {
            return Err(refuse(format!("`{name}` is no regular file with a plain name")));
        }
        if entries.iter().any(|known| known.name.eq_ignore_ascii_case(&name)) {
            return Err(refuse(format!("`{name}` is there twice")));
        }
        let size = entry.header().entry_size().map_err(|error| refuse(error.to_string()))?;
        if size > bytes.len() as u64 {
            return Err(refuse(format!("`{name}` ends early")));
        }
        let mut content = Zeroizing::new(Vec::with_capacity(size as usize));
        entry.read_to_end(&mut content).map_err(|error| refuse(error.to_string()))?;
        entries.push(Entry { name, bytes: content });
    }
    let files = entries.iter().map(|entry| (entry.name.as_str(), entry.bytes.as_slice()));
    let mut again = Zeroizing::new(Vec::with_capacity(bytes.len()));
    write(files, &mut *again)?;
    if *again != bytes {
        return Err(refuse(
            "it holds more than its files: headers, padding or bytes at the end".into(),
        ));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(bytes: &[u8]) -> Result<Vec<String>, Error> {
        Ok(read(bytes, "test")?.into_iter().map(|entry| entry.name).collect())
    }

    #[test]
    fn files_come_back() {
        let mut bytes = Vec::new();
        write([("a", &b"1"[..]), ("b/c.d", &[7; 600])], &mut bytes).unwrap();
        let back = read(&bytes, "test").unwrap();
        assert_eq!(back[1].bytes[..], [7; 600]);
        assert_eq!(names(&bytes).unwrap(), ["a", "b/c.d"]);
        assert!(names(&[&bytes[..], &[0; 512]].concat()).is_err());
        assert!(names(&bytes[..bytes.len() - 512]).is_err());
    }

    #[test]
    fn hostile_archives_are_refused() {
        let entry = |name: &[u8], kind: EntryType, size: u64, content: &[u8]| {
            let mut header = Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name);
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_cksum();
            let mut bytes = Vec::new();
            let mut builder = Builder::new(&mut bytes);
            builder.append(&header, content).unwrap();
            builder.into_inner().unwrap();
            bytes
        };
        let regular = EntryType::Regular;
        for name in [&b"../a"[..], b"/a", b"a/../b", b"", b"a//b", b"a\\b", b".a", b"a\n", &[0xff]]
        {
            assert!(names(&entry(name, regular, 1, b"x")).is_err(), "{name:?}");
        }
        for kind in [
            EntryType::Link,
            EntryType::Symlink,
            EntryType::Directory,
            EntryType::GNUSparse,
            EntryType::XHeader,
            EntryType::GNULongName,
            EntryType::Fifo,
        ] {
            assert!(names(&entry(b"a", kind, 0, b"")).is_err(), "{kind:?}");
        }
        // A size that is not there, and one beyond all memory.
        assert!(names(&entry(b"a", regular, 900, b"x")[..600]).is_err());
        assert!(names(&entry(b"a", regular, u64::MAX >> 3, b"x")).is_err());
        let twice = [entry(b"a", regular, 1, b"x"), entry(b"a", regular, 1, b"y")];
        assert!(names(&[&twice[0][..1024], &twice[1]].concat()).is_err());
        assert!(names(b"not a tar archive").is_err());
    }
}
