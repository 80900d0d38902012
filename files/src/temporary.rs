//! Files and folders that are there only while something is made, and what a killed process left of
//! them.
//!
//! A file that is there whole or not at all is written under another name in the same folder, and
//! renamed. A process that is killed leaves what it had written, which may be large or hold a
//! secret. So each temporary file is called `.zklora-*.tmp`, each temporary folder
//! `zklora-scratch-*`, and the process that makes one holds a lock (`flock`) on it, or on the file
//! `.lock` in it, for as long as it needs it. The system frees the lock however the process ends.
//! Whoever next makes something temporary in the same folder removes those whose lock is free
//! ([`sweep`]).

use std::{
    collections::HashSet,
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use tempfile::{Builder, NamedTempFile, TempDir};

const FILE_PREFIX: &str = ".zklora-";
const FILE_SUFFIX: &str = ".tmp";
const FOLDER_PREFIX: &str = "zklora-scratch-";
/// In a temporary folder: what its process holds the lock of.
const LOCK: &str = ".lock";
/// Times that something is made anew because a sweep of another process was faster than its lock.
const ATTEMPTS: usize = 32;

/// Who may read a file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone whom the folder lets in.
    Public,
    /// The owner only (mode 0600).
    Private,
}

/// Writes to a temporary name in the same folder, flushes, renames: a crash leaves the old file or
/// the new one.
///
/// # Errors
/// Those of the operating system; then the old file is as it was.
pub fn write(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
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

/// The folder that a file is in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A file of mode 0600 in this folder, under a lock, to be renamed by its owner or removed when it
/// is dropped. What killed processes left in the folder is removed, once a process.
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

/// A temporary folder of mode 0700, under a lock; removed with all that is in it when it is
/// dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    /// Freed after the folder is gone: fields are dropped in this order.
    _lock: File,
}

impl Scratch {
    /// In the system's folder for temporary files (`$TMPDIR`).
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn new() -> io::Result<Scratch> {
        Scratch::within(&std::env::temp_dir())
    }

    /// In this folder, in which what killed processes left is removed, once a process.
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
            // A sweep may take the folder away while it is empty.
            match File::create_new(folder.path().join(LOCK)) {
                Ok(lock) if hold(&lock) => return Ok(Scratch { folder, _lock: lock }),
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Err(raced())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The lock file goes last, with the folder: if this is killed half way, a sweep can still
        // tell.
        empty(self.path());
    }
}

fn raced() -> io::Error {
    io::Error::other("another process removes what is made here, again and again")
}

/// Takes the lock of a file that was just made. False: a sweep was faster and removes it.
fn hold(file: &File) -> bool {
    match file.try_lock() {
        Ok(()) => is_linked(file),
        Err(TryLockError::WouldBlock) => false,
        // A file system without locks: a sweep gets none either, and removes nothing.
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
/// Most of them that are remembered: a server writes to a folder for each session.
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

/// Removes temporary files and folders that processes of this user left here when they were killed:
/// those with the names above that no process holds the lock of. Links are neither followed nor
/// removed, and nothing of another user is touched. What cannot be removed stays.
pub fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        // What fails here is tried again by the next process.
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
        // Its process was killed before it made the lock. Whatever is not empty is somebody's.
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs::remove_dir(path),
        _ => Ok(()),
    }
}

/// Removes all that is in a temporary folder, but for its lock.
fn empty(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name() != LOCK) {
        let is_folder = entry.file_type().is_ok_and(|found| found.is_dir());
        // What stays is named by what comes next: the folder cannot be removed.
        let _ = if is_folder {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
    }
}

/// The lock of a regular file of this user, if no process holds it.
fn free_lock(path: &Path) -> io::Result<Option<File>> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() || !is_own(&found) {
        return Ok(None);
    }
    let file = open(path)?;
    // What was opened is what was looked at.
    let opened = file.metadata()?;
    if !opened.is_file() || !is_same(&found, &opened) {
        return Ok(None);
    }
    Ok(file.try_lock().is_ok().then_some(file))
}

#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    // Neither a link is followed, nor does a pipe that took the place of the file wait for a
    // writer.
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
    /// Whose a file is that this process makes.
    static OWN: OnceLock<Option<u32>> = OnceLock::new();
    let own = OWN.get_or_init(|| Some(tempfile::tempfile().ok()?.metadata().ok()?.uid()));
    *own == Some(found.uid())
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
    fn nothing_but_the_finished_file_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write(&path, b"one", Access::Public).unwrap();
        write(&path, b"two", Access::Private).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        fs::create_dir(dir.path().join("taken")).unwrap();
        write(&dir.path().join("taken"), b"x", Access::Private).unwrap_err();
        assert_eq!(names(dir.path()), ["f", "taken"]);
    }

    #[test]
    fn what_nobody_holds_is_removed_and_what_somebody_holds_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (file, folder) =
            (temporary_in(dir.path()).unwrap(), Scratch::within(dir.path()).unwrap());
        fs::write(folder.path().join("seed"), "secret").unwrap();
        // As a killed process leaves them.
        fs::write(dir.path().join(".zklora-old.tmp"), "rows").unwrap();
        let old = dir.path().join("zklora-scratch-old");
        fs::create_dir_all(old.join("private")).unwrap();
        fs::write(old.join("private/seed"), "secret").unwrap();
        fs::write(old.join(LOCK), "").unwrap();
        fs::create_dir(dir.path().join("zklora-scratch-empty")).unwrap();
        // Somebody else's.
        fs::write(dir.path().join("zklora.tmp"), "").unwrap();
        fs::create_dir_all(dir.path().join("zklora-session-1/in")).unwrap();
        fs::create_dir_all(dir.path().join("zklora-scratch-mine/in")).unwrap();
        sweep(dir.path());
        let held = [file.path(), folder.path()]
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_string());
        let mut expected =
            vec!["zklora-scratch-mine", "zklora-session-1", "zklora.tmp", &held[0], &held[1]];
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
        // A folder whose lock is a link, and one that holds a link: the link goes, not what it
        // names.
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
    fn a_temporary_folder_lets_its_owner_in_alone() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::new().unwrap();
        assert_eq!(fs::metadata(scratch.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_sweep_that_is_faster_than_the_lock_makes_the_file_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = tempfile::tempfile_in(dir.path()).unwrap();
        assert!(!hold(&file), "it has no name any more");
        let named = NamedTempFile::new_in(dir.path()).unwrap();
        let other = File::open(named.path()).unwrap();
        other.lock().unwrap();
        assert!(!hold(named.as_file()), "somebody else holds it");
    }
}
