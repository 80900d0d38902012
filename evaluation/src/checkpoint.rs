//! Scores of a request that is being answered: a file of mode 0600 that is removed once there is an
//! answer. A crash loses the scores of the last units at most.
//!
//! ```text
//! magic, digest of the request (32 bytes)
//! per record: length u32 LE, checksum (32 bytes), scores of some units
//! ```

use std::{
    fs::{File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{
    Error,
    digest::Digest,
    unit_scores::{SequenceScore, Side, UnitScores},
};

const MAGIC: &[u8; 8] = b"zkscore\x01";
const START: usize = MAGIC.len() + 32;
const MAX_BYTES: u64 = 1 << 34;
const FRAME: usize = 4 + 32;
/// Written for a side without a score.
const NO_SCORE: u32 = u32::MAX;

/// An open checkpoint. No other process has it open.
pub struct Checkpoint {
    path: PathBuf,
    file: File,
}

impl Checkpoint {
    /// Opens a checkpoint, or begins one, and returns the scores that it has.
    ///
    /// # Errors
    /// The file cannot be read or written, or another process answers this request.
    pub fn open(path: &Path, request: &Digest) -> Result<(Checkpoint, Vec<UnitScores>), Error> {
        let failed = |error: std::io::Error| zklora_files::Error::new(path, error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let mut file = options.open(path).map_err(failed)?;
        file.try_lock().map_err(|_| {
            zklora_files::Error::new(path, "another process answers this request: wait for it")
        })?;
        let bytes = Zeroizing::new(zklora_files::read(path, MAX_BYTES)?);
        let head = [&MAGIC[..], &request.0].concat();
        let (scores, end) = match bytes.starts_with(&head) {
            true => parse(&bytes),
            false => (Vec::new(), START),
        };
        if !bytes.starts_with(&head) {
            file.write_all(&head).map_err(failed)?;
        }
        file.set_len(end as u64).map_err(failed)?;
        file.seek(SeekFrom::Start(end as u64)).map_err(failed)?;
        Ok((Checkpoint { path: path.to_path_buf(), file }, scores))
    }

    /// Appends scores.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&mut self, scores: &[UnitScores]) -> Result<(), Error> {
        let mut record = Zeroizing::new(Vec::new());
        for unit in scores {
            put(&mut record, &unit.base);
            put(&mut record, &unit.adapted);
        }
        let mut bytes = Zeroizing::new((record.len() as u32).to_le_bytes().to_vec());
        bytes.extend(blake3::hash(&record).as_bytes());
        bytes.extend(record.iter());
        let failed = |error| zklora_files::Error::new(&self.path, error);
        Ok(self.file.write_all(&bytes).map_err(failed)?)
    }

    /// Removes the file.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(self) -> Result<(), Error> {
        Ok(zklora_files::remove(&self.path)?)
    }
}

fn put(bytes: &mut Vec<u8>, side: &Side) {
    let Some(scores) = side else { return bytes.extend(NO_SCORE.to_le_bytes()) };
    bytes.extend((scores.len() as u32).to_le_bytes());
    for score in scores {
        bytes.extend(score.sum.to_le_bytes());
        bytes.push(u8::from(score.greedy));
    }
}

/// The scores of all whole records, and where they end.
fn parse(bytes: &[u8]) -> (Vec<UnitScores>, usize) {
    let (mut scores, mut end) = (Vec::new(), START);
    loop {
        let rest = &bytes[end..];
        let Some((length, after)) = rest.split_first_chunk::<4>() else { return (scores, end) };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((sum, after)) = after.split_first_chunk::<32>() else { return (scores, end) };
        let Some(record) = after.get(..length) else { return (scores, end) };
        if blake3::hash(record) != *sum {
            return (scores, end);
        }
        let Some(units) = units(record) else { return (scores, end) };
        scores.extend(units);
        end += FRAME + length;
    }
}

fn units(mut record: &[u8]) -> Option<Vec<UnitScores>> {
    let mut units = Vec::new();
    while !record.is_empty() {
        units.push(UnitScores { base: side(&mut record)?, adapted: side(&mut record)? });
    }
    Some(units)
}

/// One side of a unit; the outer `None` is a record that ends early.
fn side(record: &mut &[u8]) -> Option<Side> {
    let (count, rest) = record.split_first_chunk::<4>()?;
    *record = rest;
    let count = u32::from_le_bytes(*count);
    if count == NO_SCORE {
        return Some(None);
    }
    let (scores, rest) = record.split_at_checked(count as usize * 9)?;
    *record = rest;
    let score = |bytes: &[u8; 9]| {
        let [sum @ .., greedy] = *bytes;
        SequenceScore { sum: i64::from_le_bytes(sum), greedy: greedy != 0 }
    };
    Some(Some(scores.as_chunks::<9>().0.iter().map(score).collect()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn some(at: i64) -> UnitScores {
        let score = |sum| SequenceScore { sum, greedy: sum % 2 == 0 };
        match at % 3 {
            0 => UnitScores { base: None, adapted: None },
            1 => UnitScores { base: Some(vec![score(-at), score(-2)]), adapted: None },
            _ => UnitScores { base: Some(vec![score(-at)]), adapted: Some(vec![score(-at - 1)]) },
        }
    }

    #[test]
    fn a_cut_anywhere_leaves_whole_records() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores");
        let request = Digest([7; 32]);
        let all: Vec<UnitScores> = (0..9).map(some).collect();
        let (mut checkpoint, none) = Checkpoint::open(&path, &request).unwrap();
        assert!(none.is_empty());
        let mut ends = vec![START];
        for part in all.chunks(2) {
            checkpoint.append(part).unwrap();
            ends.push(std::fs::metadata(&path).unwrap().len() as usize);
        }
        assert!(Checkpoint::open(&path, &request).is_err(), "locked");
        drop(checkpoint);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            let mut torn = whole[..cut].to_vec();
            // A file system may leave zeros or old bytes at the end.
            torn.extend([0xa5; 50]);
            std::fs::write(&path, torn).unwrap();
            let records = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
            let expected = &all[..(records * 2).min(all.len())];
            let (mut checkpoint, found) = Checkpoint::open(&path, &request).unwrap();
            assert!(found == expected, "{cut}");
            checkpoint.append(&all[expected.len()..]).unwrap();
            drop(checkpoint);
            assert!(Checkpoint::open(&path, &request).unwrap().1 == all, "{cut}");
        }
        // Scores of another request do not count.
        let (checkpoint, found) = Checkpoint::open(&path, &Digest([8; 32])).unwrap();
        assert!(found.is_empty());
        checkpoint.remove().unwrap();
        assert!(!path.exists());
    }
}
