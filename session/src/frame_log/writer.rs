//! Appending to a log, under its lock.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    format::{Checksum, FRAME, HEADER, MAGIC, MAX_RECORD, VERSION, checksum, length_field},
    reader::{Records, scan},
};
use crate::{Error, close_in_child::CloseInChild};

/// A power cut may lose the records of this time. The death of the process loses none.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// A log that is open for appending. No other process appends to it meanwhile.
#[derive(Debug)]
pub struct FrameLog {
    path: PathBuf,
    /// Declared before the file, so that it is dropped first.
    _close_in_child: CloseInChild,
    file: fs::File,
    /// Length of the whole records, in bytes.
    len: u64,
    last: Checksum,
    synced: Instant,
    /// Whether a torn record may follow them.
    has_torn_tail: bool,
    /// Whether a sync on the other thread failed.
    sync_failed: Arc<AtomicBool>,
}

impl FrameLog {
    /// A new log (mode 0600) with a first record, on disk before this returns.
    ///
    /// # Errors
    /// [`Error::Artifact`], also if there is a file of this name. A log that could not be created
    /// is removed.
    pub fn create(path: &Path, first: &[u8]) -> Result<FrameLog, Error> {
        let mut options = fs::OpenOptions::new();
        options.create_new(true).append(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let file = options.open(path).map_err(|e| Error::file(path, e))?;
        FrameLog::begin(path, file, first).inspect_err(|_| {
            let _ = fs::remove_file(path);
        })
    }

    fn begin(path: &Path, mut file: fs::File, first: &[u8]) -> Result<FrameLog, Error> {
        let close_in_child = lock(path, &file)?;
        let header = [&MAGIC[..], &[VERSION]].concat();
        file.write_all(&header).map_err(|e| Error::file(path, e))?;
        let mut log = FrameLog::of(path, file, close_in_child, HEADER as u64, Checksum::default());
        log.append_to_disk(first)?;
        // Sync the folder, so that the name is on the disk, too.
        #[cfg(unix)]
        if let Some(folder) = path.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            fs::File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|e| Error::file(path, e))?;
        }
        Ok(log)
    }

    /// Opens a log, passes every whole record to `visit` and cuts a torn last one.
    ///
    /// # Errors
    /// [`Error::Artifact`]: it is not such a log, is damaged before its end, or another process
    /// appends to it. Also errors of `visit`.
    pub fn open(
        path: &Path,
        visit: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<FrameLog, Error> {
        // Before it is opened for writing, because opening a pipe waits for a reader.
        drop(Records::open(path)?);
        let file =
            fs::OpenOptions::new().append(true).open(path).map_err(|e| Error::file(path, e))?;
        let close_in_child = lock(path, &file)?;
        let (len, last) = scan(path, visit)?;
        file.set_len(len).map_err(|e| Error::file(path, e))?;
        Ok(FrameLog::of(path, file, close_in_child, len, last))
    }

    /// A log whose whole records end at `len`.
    fn of(
        path: &Path,
        file: fs::File,
        _close_in_child: CloseInChild,
        len: u64,
        last: Checksum,
    ) -> FrameLog {
        let (synced, sync_failed) = (Instant::now(), Arc::default());
        FrameLog {
            path: path.to_path_buf(),
            _close_in_child,
            file,
            len,
            last,
            synced,
            has_torn_tail: false,
            sync_failed,
        }
    }

    /// Appends a record. When this returns, the record survives the death of the process. After a
    /// second, or [`FrameLog::sync`], it also survives a power cut.
    ///
    /// # Errors
    /// [`Error::Artifact`]: the log is unchanged.
    pub fn append(&mut self, payload: &[u8]) -> Result<(), Error> {
        if self.sync_failed.swap(false, Ordering::Relaxed) {
            // The disk did not take earlier records. This time, wait for it.
            return self.write(payload, true);
        }
        self.write(payload, false)?;
        if self.synced.elapsed() >= SYNC_EVERY {
            self.synced = Instant::now();
            self.sync_in_background();
        }
        Ok(())
    }

    /// Syncs on another thread, so that appending does not wait for the disk.
    fn sync_in_background(&self) {
        let (file, sync_failed) = (self.file.try_clone(), Arc::clone(&self.sync_failed));
        // The clone has the lock, too.
        let close_in_child = file.as_ref().map(CloseInChild::new).ok();
        let sync = move || {
            let synced = file.as_ref().is_ok_and(|file| file.sync_data().is_ok());
            drop(close_in_child);
            if !synced {
                sync_failed.store(true, Ordering::Relaxed);
            }
        };
        if std::thread::Builder::new().name("sync".into()).spawn(sync).is_err() {
            self.sync_failed.store(true, Ordering::Relaxed);
        }
    }

    /// Appends a record. When this returns, the record survives a power cut.
    ///
    /// # Errors
    /// [`Error::Artifact`]: the log is unchanged.
    pub fn append_to_disk(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.write(payload, true)
    }

    fn write(&mut self, payload: &[u8], sync: bool) -> Result<(), Error> {
        if payload.len() > MAX_RECORD {
            return Err(Error::file(
                &self.path,
                format!(
                    "a record of {} bytes, the longest may have {MAX_RECORD}: send smaller batches",
                    payload.len()
                ),
            ));
        }
        let sum = checksum(&self.last, payload);
        let mut frame = Vec::with_capacity(FRAME);
        frame.extend(length_field(&self.last, payload.len() as u32));
        frame.extend(sum);
        self.cut_torn_tail()?;
        self.has_torn_tail = true;
        let written = self.file.write_all(&frame).and_then(|()| self.file.write_all(payload));
        let mut written = written.map_err(|e| Error::file(&self.path, e));
        if written.is_ok() && sync {
            written = self.sync();
        }
        if let Err(error) = written {
            // The next record must not follow an incomplete one, nor one whose writer got an error.
            let _ = self.cut_torn_tail();
            return Err(error);
        }
        self.has_torn_tail = false;
        self.len += (FRAME + payload.len()) as u64;
        self.last = sum;
        Ok(())
    }

    fn cut_torn_tail(&mut self) -> Result<(), Error> {
        if self.has_torn_tail {
            self.file.set_len(self.len).map_err(|e| Error::file(&self.path, e))?;
            self.has_torn_tail = false;
        }
        Ok(())
    }

    /// Waits until everything is synced to the disk.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.file.sync_data().map_err(|e| Error::file(&self.path, e))?;
        self.synced = Instant::now();
        Ok(())
    }

    /// Where the whole records end, in bytes from the file's beginning.
    pub(crate) fn end(&self) -> u64 {
        self.len
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Tries of a locked file, and the wait between two. A process that another thread starts
/// holds the lock of a file that was closed meanwhile, until it runs its own program.
const LOCK_TRIES: (u32, Duration) = (80, Duration::from_millis(25));

/// Locks a file. Drop the result before the file.
fn lock(path: &Path, file: &fs::File) -> Result<CloseInChild, Error> {
    let close_in_child = CloseInChild::new(file);
    let (mut tries, wait) = LOCK_TRIES;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(close_in_child),
            Err(fs::TryLockError::Error(e)) => return Err(Error::file(path, e)),
            Err(fs::TryLockError::WouldBlock) if tries == 0 => {
                return Err(Error::input(format!(
                    "{}: another process uses this session: wait for it, or stop it",
                    path.display()
                )));
            }
            Err(fs::TryLockError::WouldBlock) => {
                tries -= 1;
                thread::sleep(wait);
            }
        }
    }
}
