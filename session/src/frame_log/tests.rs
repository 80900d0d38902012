//! Torn ends, damage and locks.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::Path};

use super::{
    format::{FRAME, HEADER, LENGTH},
    *,
};
use crate::Error;

fn records(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let mut all = Vec::new();
    read(path, &mut |payload| {
        all.push(payload.to_vec());
        Ok(())
    })?;
    Ok(all)
}

#[test]
fn a_log_that_is_cut_anywhere_keeps_its_whole_records_and_can_be_appended_to() {
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
fn zeros_at_the_end_are_a_torn_end() {
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
    assert!(second.to_string().contains("another process uses"), "{second}");
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
