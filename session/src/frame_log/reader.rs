//! Reading a log record by record, up to a torn end.

use std::{fs, io::Read, path::Path};

use super::format::{
    Checksum, FRAME, HEADER, LENGTH, MAGIC, MAX_RECORD, VERSION, checksum, length_field,
};
use crate::Error;

/// Passes every whole record of a log to `visit`, and skips a torn last one. Writes nothing.
pub fn read(path: &Path, visit: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
    scan(path, visit).map(|_| ())
}

/// The first record of a log.
pub fn first(path: &Path) -> Result<Vec<u8>, Error> {
    let mut reader = Records::open(path)?;
    reader.next()?.ok_or_else(|| {
        Error::file(path, "this log was cut before the end of its first record: remove the file")
    })
}

/// Whether a log was cut before the end of its first record: its writer died while it created the
/// log.
pub fn lacks_first_record(path: &Path) -> Result<bool, Error> {
    let begin = zklora_files::read_start(path, HEADER as u64)?;
    let header = [&MAGIC[..], &[VERSION]].concat();
    if begin.len() < HEADER {
        Ok(header.starts_with(&begin))
    } else {
        Ok(Records::open(path)?.next()?.is_none())
    }
}

/// As [`read`], and returns where the whole records end, and the last checksum.
pub(super) fn scan(
    path: &Path,
    visit: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(u64, Checksum), Error> {
    let mut records = Records::open(path)?;
    while let Some(payload) = records.next()? {
        visit(&payload)?;
    }
    Ok((records.at, records.last))
}

/// The records of a log, one after the other.
pub(super) struct Records<'a> {
    path: &'a Path,
    reader: std::io::BufReader<fs::File>,
    /// Length of the file when it was opened.
    end: u64,
    /// End of the last whole record.
    at: u64,
    last: Checksum,
}

impl<'a> Records<'a> {
    pub fn open(path: &'a Path) -> Result<Records<'a>, Error> {
        let failed = |e: std::io::Error| Error::file(path, e);
        // Before it is opened, because opening a pipe waits for a writer.
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
            .map_err(|_| Error::file(path, "not a log of zklora: it ends within the header"))?;
        if header[..MAGIC.len()] != MAGIC[..] {
            return Err(Error::file(path, "not a log of zklora"));
        }
        if header[MAGIC.len()] != VERSION {
            let version = header[MAGIC.len()];
            return Err(Error::file(
                path,
                format!(
                    "log version {version}: this program reads version {VERSION}, use the version \
                     of zklora that wrote it"
                ),
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
                    "the record at byte {at} is damaged, and other records follow it: restore the \
                     file from a backup"
                ),
            )
        };
        if field != length_field(&self.last, length) {
            // Zeros up to the end: the file system had extended the file when the machine died, but
            // had not written the record.
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
