//! Temporary files and folders, and the removal of those that killed processes left behind.
//!
//! A killed process leaves its temporary files, which may be large or hold a secret. So each
//! temporary file has a name `.zklora-*.tmp` and each temporary folder `zklora-scratch-*`, and the
//! process that creates one holds a lock (`flock`) on the file, or on the file `.lock` in the
//! folder, as long as it needs it. The operating system releases the lock however the process ends.
//! The next process that creates a temporary file or folder in the same place removes those that no
//! process locks ([`sweep`]).

use std::{
    collections::HashSet,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use tempfile::{Builder, NamedTempFile, TempDir};

const FILE_PREFIX: &str = ".zklora-";
const FILE_SUFFIX: &str = ".tmp";
const FOLDER_PREFIX: &str = "zklora-scratch-";
/// The file in a temporary folder that its process locks.
const LOCK: &str = ".lock";
/// Most times that a file or folder is created again because another process swept it before it was
/// locked.
const ATTEMPTS: usize = 32;

/// The folder that a file is in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Creates a locked file of mode 0600 in this folder. The caller renames it; otherwise it is
/// removed when it is dropped. The first call in a process sweeps the folder.
///
/// # Errors
/// Those of the operating system.
pub fn temporary_in(folder: &Path) -> io::Result<NamedTempFile> {
    sweep_once(folder);
    for _ in 0..ATTEMPTS {
        let file = Builder::new().prefix(FILE_PREFIX).suffix(FILE_SUFFIX).tempfile_in(folder)?;
        if hold(file.as_file()) {
            return Ok(file);
        }
    }
    Err(raced())
}

/// A locked temporary folder of mode 0700, which is removed with its content when it is dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    /// Released after the folder is removed: fields are dropped in this order.
    _lock: File,
}

impl Scratch {
    /// Creates one in the system's folder for temporary files (`$TMPDIR`).
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn new() -> io::Result<Scratch> {
        Scratch::within(&std::env::temp_dir())
    }

    /// Creates one in this folder. The first call in a process sweeps the folder.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn within(parent: &Path) -> io::Result<Scratch> {
        sweep_once(parent);
        for _ in 0..ATTEMPTS {
            let mut folder = Builder::new();
            #[cfg(unix)]
            folder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
            let folder = folder.prefix(FOLDER_PREFIX).tempdir_in(parent)?;
            // A sweep may remove the folder while it is empty.
            match File::create_new(folder.path().join(LOCK)) {
                Ok(lock) if hold(&lock) => return Ok(Scratch { folder, _lock: lock }),
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Err(raced())
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The lock file is removed last, with the folder. If the process is killed before, a sweep
        // can still recognise the folder.
        empty(self.path());
    }
}

fn raced() -> io::Error {
    io::Error::other(
        "another process keeps removing new temporary files here; stop it and try again",
    )
}

/// Locks a new file. False: a sweep locked it first and removes it.
fn hold(file: &File) -> bool {
    match file.try_lock() {
        Ok(()) => is_linked(file),
        Err(TryLockError::WouldBlock) => false,
        // The file system has no locks, so sweeps get none and remove nothing.
        Err(TryLockError::Error(_)) => true,
    }
}

#[cfg(unix)]
fn is_linked(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|found| found.nlink() > 0)
}

#[cfg(not(unix))]
fn is_linked(_: &File) -> bool {
    true
}

/// Folders that this process has swept.
static SWEPT: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
/// Most folders that are remembered: a server writes to one folder per session.
const REMEMBERED: usize = 4096;

fn sweep_once(folder: &Path) {
    let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let swept = swept.get_or_insert_default();
    if swept.len() >= REMEMBERED {
        swept.clear();
    }
    if swept.insert(folder.to_path_buf()) {
        sweep(folder);
    }
}

/// Removes the temporary files and folders in `folder` that killed processes of this user left:
/// those with the names above that no process locks. Never follows or removes links, and never
/// touches files of other users. Files that cannot be removed stay.
pub fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        // The next process tries again after a failure.
        let _ = if name.starts_with(FILE_PREFIX) && name.ends_with(FILE_SUFFIX) {
            remove_file(&entry.path())
        } else if name.starts_with(FOLDER_PREFIX) {
            remove_folder(&entry.path())
        } else {
            Ok(())
        };
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match free_lock(path)? {
        Some(_lock) => fs::remove_file(path),
        None => Ok(()),
    }
}

fn remove_folder(path: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || !is_own(&found) {
        return Ok(());
    }
    match free_lock(&path.join(LOCK)) {
        Ok(Some(_lock)) => {
            empty(path);
            fs::remove_dir_all(path)
        }
        // Its process was killed before it created the lock file. A folder with content belongs to
        // another program; `remove_dir` fails on it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs::remove_dir(path),
        _ => Ok(()),
    }
}

/// Removes the content of a temporary folder except its lock file.
fn empty(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name() != LOCK) {
        let is_folder = entry.file_type().is_ok_and(|found| found.is_dir());
        // After a failure here, removing the folder fails, too, and reports it.
        let _ = if is_folder {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
    }
}

/// Locks a regular file of this user, unless a process holds the lock.
fn free_lock(path: &Path) -> io::Result<Option<File>> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() || !is_own(&found) {
        return Ok(None);
    }
    let file = open(path)?;
    // The opened file must be the one whose metadata was checked.
    let opened = file.metadata()?;
    if !opened.is_file() || !is_same(&found, &opened) {
        return Ok(None);
    }
    Ok(file.try_lock().is_ok().then_some(file))
}

#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    // NOFOLLOW does not follow links; NONBLOCK does not wait for the writer of a pipe that replaced
    // the file.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Whether a file or folder belongs to the user of this process.
#[cfg(unix)]
pub fn is_own(found: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    /// Owner of the files that this process creates.
    static OWN: OnceLock<Option<u32>> = OnceLock::new();
    let user = OWN.get_or_init(|| Some(tempfile::tempfile().ok()?.metadata().ok()?.uid()));
    *user == Some(found.uid())
}

/// Whether a file or folder belongs to the user of this process.
#[cfg(not(unix))]
pub fn is_own(_: &fs::Metadata) -> bool {
    true
}

#[cfg(unix)]
fn is_same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same(_: &fs::Metadata, _: &fs::Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_sweep_removes_unlocked_temporaries_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (file, folder) =
            (temporary_in(dir.path()).unwrap(), Scratch::within(dir.path()).unwrap());
        fs::write(folder.path().join("seed"), "secret").unwrap();
        // Left by a killed process.
        fs::write(dir.path().join(".zklora-old.tmp"), "rows").unwrap();
        let old = dir.path().join("zklora-scratch-old");
        fs::create_dir_all(old.join("private")).unwrap();
        fs::write(old.join("private/seed"), "secret").unwrap();
        fs::write(old.join(LOCK), "").unwrap();
        fs::create_dir(dir.path().join("zklora-scratch-empty")).unwrap();
        // Files of other programs.
        fs::write(dir.path().join("zklora.tmp"), "").unwrap();
        fs::create_dir_all(dir.path().join("zklora-session-1/in")).unwrap();
        fs::create_dir_all(dir.path().join("zklora-scratch-mine/in")).unwrap();
        sweep(dir.path());
        let locked = [file.path(), folder.path()]
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_string());
        let mut expected =
            vec!["zklora-scratch-mine", "zklora-session-1", "zklora.tmp", &locked[0], &locked[1]];
        expected.sort_unstable();
        assert_eq!(names(dir.path()), expected);
        assert!(folder.path().join("seed").exists());
        drop((file, folder));
        assert_eq!(names(dir.path()), ["zklora-scratch-mine", "zklora-session-1", "zklora.tmp"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn links_are_neither_followed_nor_removed_and_pipes_are_not_waited_for() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join(LOCK), "").unwrap();
        fs::write(precious.join("data"), "x").unwrap();
        let swept = dir.path().join("swept");
        fs::create_dir(&swept).unwrap();
        symlink(precious.join("data"), swept.join(".zklora-a.tmp")).unwrap();
        symlink(&precious, swept.join("zklora-scratch-a")).unwrap();
        // A folder whose lock is a link, and one that contains a link: the link is removed, not its
        // target.
        fs::create_dir(swept.join("zklora-scratch-b")).unwrap();
        symlink(precious.join("data"), swept.join("zklora-scratch-b").join(LOCK)).unwrap();
        fs::create_dir(swept.join("zklora-scratch-c")).unwrap();
        fs::write(swept.join("zklora-scratch-c").join(LOCK), "").unwrap();
        symlink(&precious, swept.join("zklora-scratch-c/there")).unwrap();
        let pipe = swept.join(".zklora-pipe.tmp");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        sweep(&swept);
        assert_eq!(names(&precious), [LOCK, "data"]);
        assert_eq!(
            names(&swept),
            [".zklora-a.tmp", ".zklora-pipe.tmp", "zklora-scratch-a", "zklora-scratch-b"]
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_temporary_folder_is_accessible_to_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::new().unwrap();
        assert_eq!(fs::metadata(scratch.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_that_was_swept_or_locked_first_is_not_held() {
        let dir = tempfile::tempdir().unwrap();
        let file = tempfile::tempfile_in(dir.path()).unwrap();
        assert!(!hold(&file), "the file has no name any more");
        let named = NamedTempFile::new_in(dir.path()).unwrap();
        let other = File::open(named.path()).unwrap();
        other.lock().unwrap();
        assert!(!hold(named.as_file()), "another process holds the lock");
    }
}
