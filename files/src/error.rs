//! Errors of files, and their kinds.

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
};

/// An error about a file or folder.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", .path.display())]
pub struct Error {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub why: String,
    /// The kind of error.
    pub kind: Kind,
}

impl Error {
    /// If `why` is an [`io::Error`], it determines the kind; otherwise the kind is
    /// [`Kind::Content`].
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
    /// This process or this machine has too many open files. The error is temporary.
    TooManyOpen,
    /// The disk or the user's quota is full. The error is temporary.
    DiskFull,
    /// Another error of the operating system.
    System,
    /// A folder, pipe or device instead of a regular file.
    NotAFile,
    /// The file is larger than the limit for its kind.
    TooLarge,
    /// The content or the location of the file is wrong.
    Content,
}

impl Kind {
    /// Whether the operating system reported the error. Such an error may be temporary, so a caller
    /// may try again.
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

/// Whether the error means that no file can be opened and no connection accepted, because too many
/// are open.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    // EMFILE and ENFILE have no `io::ErrorKind`. Their numbers are the same on every Unix.
    cfg!(unix) && matches!(error.raw_os_error(), Some(24 | 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_error_determines_the_kind() {
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
