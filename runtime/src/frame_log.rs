//! A file that only grows: records with checksums, so that a crash at any moment loses nothing but a torn last record.
//!
//! ```text
//! magic (8 bytes)  version: u8
//! per record:  length: u32 LE   checksum: 16 bytes   payload
//! ```
//!
//! The checksum is the first half of BLAKE3 over the checksum before it (zeros at the beginning), the length and the payload: a record
//! that is changed, left out or moved breaks the chain. Must not know what the records are.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::Error;

const MAGIC: &[u8; 8] = b"zkloralg";
const VERSION: u8 = 1;
const HEADER: usize = MAGIC.len() + 1;
const CHECKSUM: usize = 16;
const FRAME: usize = 4 + CHECKSUM;

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

/// A log that records are appended to.
#[derive(Debug)]
pub struct FrameLog {
    path: PathBuf,
    file: fs::File,
    /// Length of the whole records, in bytes.
    len: u64,
    last: Checksum,
    synced: Instant,
}

impl FrameLog {
    /// A new log (mode 0600) with a first record, on disk before this returns.
    ///
    /// # Errors
    /// [`Error::File`], also if there is a file of this name.
    pub fn create(path: &Path, first: &[u8]) -> Result<FrameLog, Error> {
        let mut options = fs::OpenOptions::new();
        options.create_new(true).append(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let mut file = options.open(path).map_err(|e| Error::file(path, e))?;
        let header = [&MAGIC[..], &[VERSION]].concat();
        file.write_all(&header).map_err(|e| Error::file(path, e))?;
        let (len, last) = (HEADER as u64, Checksum::default());
        let mut log = FrameLog { path: path.to_path_buf(), file, len, last, synced: Instant::now() };
        log.append(first)?;
        log.sync()?;
        Ok(log)
    }

    /// Opens a log, gives every whole record to `visit` and cuts a torn last one.
    ///
    /// # Errors
    /// [`Error::File`]: not such a log, or damaged before its end; what `visit` says.
    pub fn open(path: &Path, visit: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<FrameLog, Error> {
        let (len, last) = scan(path, visit)?;
        let file = fs::OpenOptions::new().append(true).open(path).map_err(|e| Error::file(path, e))?;
        file.set_len(len).map_err(|e| Error::file(path, e))?;
        Ok(FrameLog { path: path.to_path_buf(), file, len, last, synced: Instant::now() })
    }

    /// Appends a record. When this returns, the record survives the death of the process; after [`SYNC_EVERY`] or
    /// [`FrameLog::sync`] that of the machine, too.
    ///
    /// # Errors
    /// [`Error::File`]: then the log is as it was before.
    pub fn append(&mut self, payload: &[u8]) -> Result<(), Error> {
        if payload.len() > MAX_RECORD {
            return Err(Error::file(&self.path, format!("a record of {} bytes", payload.len())));
        }
        let sum = checksum(&self.last, payload);
        let mut frame = Vec::with_capacity(FRAME + payload.len());
        frame.extend((payload.len() as u32).to_le_bytes());
        frame.extend(sum);
        frame.extend(payload);
        if let Err(e) = self.file.write_all(&frame) {
            // Half a record must not stay in front of the next one.
            let cut = self.file.set_len(self.len);
            return Err(Error::file(&self.path, cut.err().map_or(e.to_string(), |cut| format!("{e}; {cut}"))));
        }
        self.len += frame.len() as u64;
        self.last = sum;
        if self.synced.elapsed() >= SYNC_EVERY { self.sync() } else { Ok(()) }
    }

    /// Waits until everything is on the disk.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.file.sync_data().map_err(|e| Error::file(&self.path, e))?;
        self.synced = Instant::now();
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Gives every whole record of a log to `visit`; a torn last one is passed over. Nothing is written.
pub fn read(path: &Path, visit: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
    scan(path, visit).map(|_| ())
}

/// The first record of a log.
pub fn first(path: &Path) -> Result<Vec<u8>, Error> {
    let mut reader = Records::open(path)?;
    reader.next()?.ok_or_else(|| Error::file(path, "this log has no whole record: it was cut at its beginning"))
}

fn scan(path: &Path, visit: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(u64, Checksum), Error> {
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
        let mut reader = std::io::BufReader::with_capacity(1 << 20, fs::File::open(path).map_err(failed)?);
        let mut header = [0u8; HEADER];
        reader.read_exact(&mut header).map_err(|_| Error::file(path, "not a log of zklora: it ends in its header"))?;
        if header[..MAGIC.len()] != MAGIC[..] {
            return Err(Error::file(path, "not a log of zklora"));
        }
        if header[MAGIC.len()] != VERSION {
            let version = header[MAGIC.len()];
            return Err(Error::file(path, format!("log version {version}: this build reads version {VERSION}")));
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
        let (length, sum) = frame.split_at(4);
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        if (FRAME + length) as u64 > left {
            return Ok(None);
        }
        let is_last = (FRAME + length) as u64 == left;
        let damaged = || {
            Error::file(
                self.path,
                format!(
                    "the record at byte {} is damaged and others follow it: this is no torn end; restore the file",
                    self.at
                ),
            )
        };
        if length > MAX_RECORD {
            return if is_last { Ok(None) } else { Err(damaged()) };
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
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
            let all = records(&path).unwrap();
            assert_eq!((all.len(), all.last().unwrap().as_slice()), (whole + 1, &b"next"[..]), "cut at {cut}");
        }
        for cut in 0..HEADER {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert!(records(&path).is_err());
        }
    }

    #[test]
    fn a_changed_byte_is_never_read_as_a_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = FrameLog::create(&path, b"one").unwrap();
        log.append(b"two").unwrap();
        log.append(b"three").unwrap();
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            let read = records(&path);
            let intact = [&b"one"[..], b"two", b"three"];
            // Refused, or cut: what is read is a beginning of what was written, and not all of it.
            if let Ok(read) = read {
                assert!(read.len() < 3 && read.iter().zip(intact).all(|(read, written)| read == written), "byte {at}");
            }
        }
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
