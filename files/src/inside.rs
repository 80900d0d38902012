//! Resolves a relative path from a file that an attacker may have written, and refuses paths that
//! leave the folder.

use std::{
    fs::metadata,
    io,
    path::{Component, Path, PathBuf},
};

use crate::text::shown;

/// Why a path inside a folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// The path is empty, absolute, or has parts other than plain names.
    #[error("`{}` is not a relative path inside the folder", shown(.path))]
    NotInside {
        /// The path.
        path: String,
    },
    /// The file or the folder does not exist or cannot be read.
    #[error("`{}` cannot be found in the folder: {error}", shown(.path))]
    Missing {
        /// The path.
        path: String,
        /// The error of the operating system.
        error: io::Error,
    },
    /// A link leads out of the folder.
    #[error("`{}` is a link out of the folder", shown(.path))]
    LinkOut {
        /// The path.
        path: String,
    },
    /// The path is a folder, pipe or device.
    #[error("`{}` is not a file", shown(.path))]
    NotAFile {
        /// The path.
        path: String,
    },
}

/// The regular file that `path` names in `folder`, after links are resolved.
///
/// # Errors
/// [`PathError`]: the path leaves the folder, or is not a regular file. Nothing is opened.
pub fn resolve_inside(folder: &Path, path: &str) -> Result<PathBuf, PathError> {
    let plain = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    if path.is_empty() || path.contains(['\\', '\0']) || !Path::new(path).components().all(plain) {
        return Err(PathError::NotInside { path: path.into() });
    }
    let missing = |error| PathError::Missing { path: path.into(), error };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let folder = folder.canonicalize().map_err(missing)?;
    let resolved = folder.join(path).canonicalize().map_err(missing)?;
    if !resolved.starts_with(&folder) {
        return Err(PathError::LinkOut { path: path.into() });
    }
    // Checked before opening: opening a pipe blocks until another process writes to it.
    if !metadata(&resolved).map_err(missing)?.is_file() {
        return Err(PathError::NotAFile { path: path.into() });
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_regular_files_inside_the_folder_are_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        std::fs::create_dir_all(inner.join("sub")).unwrap();
        std::fs::write(dir.path().join("outside"), "x").unwrap();
        std::fs::write(inner.join("sub/file"), "x").unwrap();
        let file = inner.canonicalize().unwrap().join("sub/file");
        for path in ["sub/file", "./sub/file", "sub/./file"] {
            assert_eq!(resolve_inside(&inner, path).unwrap(), file, "{path}");
        }
        for path in ["", "../outside", "sub/../../outside", "/etc/passwd", "sub\\file", "a\0"] {
            assert!(
                matches!(resolve_inside(&inner, path), Err(PathError::NotInside { .. })),
                "{path}"
            );
        }
        assert!(matches!(resolve_inside(&inner, "absent"), Err(PathError::Missing { .. })));
        assert!(matches!(resolve_inside(&inner, "sub"), Err(PathError::NotAFile { .. })));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(dir.path(), inner.join("up")).unwrap();
            assert!(matches!(resolve_inside(&inner, "up/outside"), Err(PathError::LinkOut { .. })));
        }
    }
}
