//! What went wrong with a file, and whether it passes by itself.

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
};

/// What is wrong with a file or folder, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", .path.display())]
pub struct Error {
    /// Which file or folder.
    pub path: PathBuf,
    /// What is wrong with it, and what to do.
    pub why: String,
    /// What kind of error it is.
    pub kind: Kind,
}

impl Error {
    /// An [`io::Error`], given as it is, decides the kind; any other text means [`Kind::Content`].
    pub fn new(path: &Path, why: impl Display + 'static) -> Error {
        let io_error: Option<&io::Error> = (&why as &dyn std::any::Any).downcast_ref();
        let kind = io_error.map_or(Kind::Content, Kind::of);
        Error { path: path.to_path_buf(), why: why.to_string(), kind }
    }
}

/// Kinds of errors with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// This process, or this machine, has too many files open. It passes.
    TooManyOpen,
    /// The disk, or the user's share of it, is full. It passes.
    DiskFull,
    /// Another error of the operating system.
    System,
    /// A folder, a pipe or a device instead of a file.
    NotAFile,
    /// The file is larger than the limit for its kind.
    TooLarge,
    /// What the file holds, or where it is, is not what it must be.
    Content,
}

impl Kind {
    /// Whether the operating system reported the error: it may pass, so a caller may try again.
    pub fn is_of_system(self) -> bool {
        matches!(self, Kind::TooManyOpen | Kind::DiskFull | Kind::System)
    }

    fn of(error: &io::Error) -> Kind {
        match error.kind() {
            _ if is_out_of_descriptors(error) => Kind::TooManyOpen,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::DiskFull,
            _ => Kind::System,
        }
    }
}

/// Whether no file can be opened, and no connection accepted, because too many are open.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    // EMFILE and ENFILE have no `io::ErrorKind`; their numbers are the same on every Unix.
    cfg!(unix) && matches!(error.raw_os_error(), Some(24 | 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_has_its_kind() {
        let of = |code| Error::new(Path::new("log"), io::Error::from_raw_os_error(code)).kind;
        if cfg!(target_os = "linux") {
            let (emfile, enfile, enospc, edquot, enoent) = (24, 23, 28, 122, 2);
            assert_eq!((of(emfile), of(enfile)), (Kind::TooManyOpen, Kind::TooManyOpen));
            assert_eq!(
                (of(enospc), of(edquot), of(enoent)),
                (Kind::DiskFull, Kind::DiskFull, Kind::System)
            );
        }
        assert_eq!(Error::new(Path::new("log"), "it is damaged").kind, Kind::Content);
    }
}
