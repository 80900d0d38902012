//! A file that only grows: records with checksums, so that a crash at any moment loses nothing but
//! a torn last record.
//!
//! ```text
//! magic (8 bytes)  version: u8
//! per record:  length: u32 LE   check of the length: 4 bytes   checksum: 16 bytes   payload
//! ```
//!
//! The checksum is the first half of BLAKE3 over the checksum before it (zeros at the beginning),
//! the length and the payload: a record that is changed, left out or moved breaks the chain. The
//! length has a check of its own, for a wrong length would look like a torn end, and all that
//! follows would be cut. Must not know what the records are.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{Error, close_in_child::CloseInChild};

const MAGIC: &[u8; 8] = b"zkloralg";
const VERSION: u8 = 1;
/// Bytes before the first record.
pub(crate) const HEADER: usize = MAGIC.len() + 1;
const CHECKSUM: usize = 16;
const LENGTH: usize = 4 + 4;
/// Bytes of a record before its payload.
pub(crate) const FRAME: usize = LENGTH + CHECKSUM;

/// Longest payload, in bytes.
pub const MAX_RECORD: usize = 1 << 28;

/// How much may be lost if the power fails (not if the process dies): records of this long.
const SYNC_EVERY: Duration = Duration::from_secs(1);

type Checksum = [u8; CHECKSUM];

fn checksum(previous: &Checksum, payload: &[u8]) -> Checksum {
    let mut hasher = blake3::Hasher::new_derive_key("zklora v1 log record");
    hasher.update(previous).update(&(payload.len() as u64).to_le_bytes()).update(payload);
    let mut out = Checksum::default();
    out.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM]);
    out
}

/// A length and its check.
fn length_field(previous: &Checksum, length: u32) -> [u8; LENGTH] {
    let mut hasher = blake3::Hasher::new_derive_key("zklora v1 log length");
    hasher.update(previous).update(&length.to_le_bytes());
    let mut field = [0u8; LENGTH];
    field[..4].copy_from_slice(&length.to_le_bytes());
    field[4..].copy_from_slice(&hasher.finalize().as_bytes()[..LENGTH - 4]);
    field
}

/// A log that records are appended to, by nobody else meanwhile.
#[derive(Debug)]
pub struct FrameLog {
    path: PathBuf,
    /// Before the file: it is closed after this.
    _not_inherited: CloseInChild,
    file: fs::File,
    /// Length of the whole records, in bytes.
    len: u64,
    last: Checksum,
    synced: Instant,
    /// Whether something that is no whole record may follow them.
    dirty: bool,
    /// Whether the disk failed to take something, behind the back of the appending thread.
    late: Arc<AtomicBool>,
}

impl FrameLog {
    /// A new log (mode 0600) with a first record, on disk before this returns.
    ///
    /// # Errors
    /// [`Error::File`], also if there is a file of this name; nothing is left of a log that could
    /// not be made.
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
        let not_inherited = lock(path, &file)?;
        let header = [&MAGIC[..], &[VERSION]].concat();
        file.write_all(&header).map_err(|e| Error::file(path, e))?;
        let mut log = FrameLog::of(path, file, not_inherited, HEADER as u64, Checksum::default());
        log.append_to_disk(first)?;
        // The name has to be on the disk, too.
        #[cfg(unix)]
        if let Some(folder) = path.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            fs::File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|e| Error::file(path, e))?;
        }
        Ok(log)
    }

    /// Opens a log, gives every whole record to `visit` and cuts a torn last one.
    ///
    /// # Errors
    /// [`Error::File`]: not such a log, or damaged before its end; what `visit` says. [`Error::Input`]: another process appends to it.
    pub fn open(
        path: &Path,
        visit: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<FrameLog, Error> {
        // Before anything is opened: opening a pipe would wait for somebody to read from it.
        drop(Records::open(path)?);
        let file =
            fs::OpenOptions::new().append(true).open(path).map_err(|e| Error::file(path, e))?;
        let not_inherited = lock(path, &file)?;
        let (len, last) = scan(path, visit)?;
        file.set_len(len).map_err(|e| Error::file(path, e))?;
        Ok(FrameLog::of(path, file, not_inherited, len, last))
    }

    /// A log whose whole records end at `len`.
    fn of(
        path: &Path,
        file: fs::File,
        _not_inherited: CloseInChild,
        len: u64,
        last: Checksum,
    ) -> FrameLog {
        let (synced, late) = (Instant::now(), Arc::default());
        FrameLog {
            path: path.to_path_buf(),
            _not_inherited,
            file,
            len,
            last,
            synced,
            dirty: false,
            late,
        }
    }

    /// Appends a record. When this returns, the record survives the death of the process; after a
    /// second or [`FrameLog::sync`] that of the machine, too.
    ///
    /// # Errors
    /// [`Error::File`]: then the log is as it was before.
    pub fn append(&mut self, payload: &[u8]) -> Result<(), Error> {
        if self.late.swap(false, Ordering::Relaxed) {
            // The disk did not take what it was given a second ago: it is asked again, and waited
            // for.
            return self.write(payload, true);
        }
        self.write(payload, false)?;
        if self.synced.elapsed() >= SYNC_EVERY {
            self.synced = Instant::now();
            self.sync_behind();
        }
        Ok(())
    }

    /// Has a thread wait for the disk: appending does not.
    fn sync_behind(&self) {
        let (file, late) = (self.file.try_clone(), Arc::clone(&self.late));
        // It has the lock, too.
        let not_inherited = file.as_ref().map(CloseInChild::new).ok();
        let sync = move || {
            let synced = file.as_ref().is_ok_and(|file| file.sync_data().is_ok());
            drop(not_inherited);
            if !synced {
                late.store(true, Ordering::Relaxed);
            }
        };
        if std::thread::Builder::new().name("sync".into()).spawn(sync).is_err() {
            self.late.store(true, Ordering::Relaxed);
        }
    }

    /// Appends a record that survives the death of the machine when this returns.
    ///
    /// # Errors
    /// [`Error::File`]: then the log is as it was before.
    pub fn append_to_disk(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.write(payload, true)
    }

    fn write(&mut self, payload: &[u8], sync: bool) -> Result<(), Error> {
        if payload.len() > MAX_RECORD {
            return Err(Error::file(&self.path, format!("a record of {} bytes", payload.len())));
        }
        let sum = checksum(&self.last, payload);
        let mut frame = Vec::with_capacity(FRAME);
        frame.extend(length_field(&self.last, payload.len() as u32));
        frame.extend(sum);
        self.cut()?;
        self.dirty = true;
        let written = self.file.write_all(&frame).and_then(|()| self.file.write_all(payload));
        let mut written = written.map_err(|e| Error::file(&self.path, e));
        if written.is_ok() && sync {
            written = self.sync();
        }
        if let Err(error) = written {
            // Neither half a record nor one that its writer was told is not there may stay in front
            // of the next one.
            let _ = self.cut();
            return Err(error);
        }
        self.dirty = false;
        self.len += (FRAME + payload.len()) as u64;
        self.last = sum;
        Ok(())
    }

    fn cut(&mut self) -> Result<(), Error> {
        if self.dirty {
            self.file.set_len(self.len).map_err(|e| Error::file(&self.path, e))?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Waits until everything is on the disk.
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

/// Locks a file. What is returned has to be dropped before the file.
fn lock(path: &Path, file: &fs::File) -> Result<CloseInChild, Error> {
    let not_inherited = CloseInChild::new(file);
    let locked = file.try_lock().map_err(|e| match e {
        fs::TryLockError::WouldBlock => Error::input(format!(
            "{}: another process goes on with this session: wait for it, or stop it",
            path.display()
        )),
        fs::TryLockError::Error(e) => Error::file(path, e),
    });
    locked.map(|()| not_inherited)
}

/// Gives every whole record of a log to `visit`; a torn last one is passed over. Nothing is
/// written.
pub fn read(path: &Path, visit: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
    scan(path, visit).map(|_| ())
}

/// The first record of a log.
pub fn first(path: &Path) -> Result<Vec<u8>, Error> {
    let mut reader = Records::open(path)?;
    reader.next()?.ok_or_else(|| {
        Error::file(path, "this log has no whole record: it was cut at its beginning")
    })
}

/// Whether a log was cut before the end of its first record: its writer died while it made it.
pub fn is_unborn(path: &Path) -> Result<bool, Error> {
    let begin = zklora_files::read_start(path, HEADER as u64)?;
    let header = [&MAGIC[..], &[VERSION]].concat();
    if begin.len() < HEADER {
        Ok(header.starts_with(&begin))
    } else {
        Ok(Records::open(path)?.next()?.is_none())
    }
}

fn scan(
    path: &Path,
    visit: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(u64, Checksum), Error> {
    let mut records = Records::open(path)?;
    while let Some(payload) = records.next()? {
        visit(&payload)?;
    }
    Ok((records.at, records.last))
}

/// Reads record by record.
struct Records<'a> {
    path: &'a Path,
    reader: std::io::BufReader<fs::File>,
    /// Length of the file, when it was opened.
    end: u64,
    /// End of the last whole record.
    at: u64,
    last: Checksum,
}

impl<'a> Records<'a> {
    fn open(path: &'a Path) -> Result<Records<'a>, Error> {
        let failed = |e: std::io::Error| Error::file(path, e);
        // Before it is opened: opening a pipe would wait for somebody to write to it.
        let metadata = fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() {
            return Err(Error::file(path, "not a file"));
        }
        let end = metadata.len();
        let mut reader =
            std::io::BufReader::with_capacity(1 << 20, fs::File::open(path).map_err(failed)?);
        let mut header = [0u8; HEADER];
        reader
            .read_exact(&mut header)
            .map_err(|_| Error::file(path, "not a log of zklora: it ends in its header"))?;
        if header[..MAGIC.len()] != MAGIC[..] {
            return Err(Error::file(path, "not a log of zklora"));
        }
        if header[MAGIC.len()] != VERSION {
            let version = header[MAGIC.len()];
            return Err(Error::file(
                path,
                format!("log version {version}: this build reads version {VERSION}"),
            ));
        }
        Ok(Records { path, reader, end, at: HEADER as u64, last: Checksum::default() })
    }

    /// The next whole record; none at the end, or where a torn record begins.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let left = self.end.saturating_sub(self.at);
        if left < FRAME as u64 {
            return Ok(None);
        }
        let failed = |e: std::io::Error| Error::file(self.path, e);
        let mut frame = [0u8; FRAME];
        self.reader.read_exact(&mut frame).map_err(failed)?;
        let (field, sum) = frame.split_at(LENGTH);
        let length = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
        let (path, at) = (self.path, self.at);
        let damaged = || {
            Error::file(
                path,
                format!(
                    "the record at byte {at} is damaged and others follow it: this is no torn end; restore the file"
                ),
            )
        };
        if field != length_field(&self.last, length) {
            // Zeros to the end are room that was made for a record whose bytes the machine's death
            // kept back.
            let zeros = frame == [0u8; FRAME] && self.only_zeros()?;
            return if zeros { Ok(None) } else { Err(damaged()) };
        }
        let length = length as usize;
        if (FRAME + length) as u64 > left {
            return Ok(None);
        }
        let is_last = (FRAME + length) as u64 == left;
        if length > MAX_RECORD {
            return Err(damaged());
        }
        let mut payload = vec![0u8; length];
        self.reader.read_exact(&mut payload).map_err(failed)?;
        let expected = checksum(&self.last, &payload);
        if expected[..] != *sum {
            return if is_last { Ok(None) } else { Err(damaged()) };
        }
        self.at += (FRAME + length) as u64;
        self.last = expected;
        Ok(Some(payload))
    }

    fn only_zeros(&mut self) -> Result<bool, Error> {
        let mut buffer = [0u8; 4096];
        loop {
            let read = self.reader.read(&mut buffer).map_err(|e| Error::file(self.path, e))?;
            match &buffer[..read] {
                [] => return Ok(true),
                bytes if bytes.iter().any(|byte| *byte != 0) => return Ok(false),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn records(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
        let mut all = Vec::new();
        read(path, &mut |payload| {
            all.push(payload.to_vec());
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn a_log_that_is_cut_anywhere_keeps_its_whole_records_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = FrameLog::create(&path, b"first").unwrap();
        log.append(b"").unwrap();
        log.append(&[7; 300]).unwrap();
        drop(log);
        let bytes = fs::read(&path).unwrap();
        let ends = [HEADER, HEADER + FRAME + 5, HEADER + 2 * FRAME + 5, HEADER + 3 * FRAME + 305];
        assert_eq!(bytes.len(), ends[3]);
        for cut in HEADER..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(records(&path).unwrap().len(), whole, "cut at {cut}");
            let mut log = FrameLog::open(&path, &mut |_| Ok(())).unwrap();
            log.append(b"next").unwrap();
            drop(log);
            let all = records(&path).unwrap();
            assert_eq!(
                (all.len(), all.last().unwrap().as_slice()),
                (whole + 1, &b"next"[..]),
                "cut at {cut}"
            );
        }
        for cut in 0..HEADER {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert!(records(&path).is_err());
        }
    }

    #[test]
    fn a_changed_byte_is_damage_and_in_the_last_record_a_torn_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = FrameLog::create(&path, b"one").unwrap();
        log.append(b"two").unwrap();
        log.append(b"three").unwrap();
        let bytes = fs::read(&path).unwrap();
        let last = bytes.len() - FRAME - 5;
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                fs::write(&path, &changed).unwrap();
                match records(&path) {
                    // A length is never read as another one, wherever it is.
                    Err(error) if at < last + LENGTH => {
                        let text = error.to_string();
                        let header = text.contains("not a log") || text.contains("log version");
                        assert!(
                            text.contains("damaged") || (at < HEADER && header),
                            "byte {at}: {text}"
                        );
                    }
                    Ok(read) if at >= last + LENGTH => {
                        assert_eq!(read, [&b"one"[..], b"two"], "byte {at}")
                    }
                    read => panic!("byte {at}: {read:?}"),
                }
            }
        }
    }

    #[test]
    fn room_without_bytes_at_the_end_is_a_torn_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        drop(FrameLog::create(&path, b"one").unwrap());
        let bytes = fs::read(&path).unwrap();
        for zeros in [1, FRAME - 1, FRAME, FRAME + 1, 10_000] {
            fs::write(&path, [&bytes[..], &vec![0; zeros]].concat()).unwrap();
            assert_eq!(records(&path).unwrap(), [b"one"]);
        }
        fs::write(&path, [&bytes[..], &[0; 5000], &[1]].concat()).unwrap();
        assert!(records(&path).unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn a_log_has_one_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = FrameLog::create(&path, b"one").unwrap();
        let second = FrameLog::open(&path, &mut |_| Ok(())).unwrap_err();
        assert!(second.to_string().contains("another process goes on"), "{second}");
        assert_eq!(records(&path).unwrap(), [b"one"]);
        drop(log);
        FrameLog::open(&path, &mut |_| Ok(())).unwrap().append(b"two").unwrap();
    }

    #[test]
    fn records_that_change_places_are_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = FrameLog::create(&path, b"one").unwrap();
        log.append(b"two").unwrap();
        log.append(b"six").unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let (a, b) = (HEADER + FRAME + 3, HEADER + 2 * (FRAME + 3));
        let (second, third) = (bytes[a..b].to_vec(), bytes[b..].to_vec());
        bytes[a..b].copy_from_slice(&third);
        bytes[b..].copy_from_slice(&second);
        fs::write(&path, &bytes).unwrap();
        assert!(records(&path).unwrap_err().to_string().contains("damaged"));
    }
}
