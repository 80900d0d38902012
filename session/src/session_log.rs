//! What either party keeps of a session while it runs: a [`FrameLog`] of batches, so that neither
//! loses a row when it dies.
//!
//! The contributor writes a batch, with a digest of its deltas, before the deltas leave. The user
//! writes a batch before it is sent, and its deltas when they are here.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use prost::Message;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    Error,
    frame_log::{self, FrameLog},
    wire::{Batch, InferResponse},
};

const FORMAT: &str = "zklora-session-log";
const VERSION: u32 = 1;

/// The first record of a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Adapter id, hex.
    pub adapter_id: String,
    /// The contributor's: who opened the session. The user's: the contributor's URL.
    pub peer: String,
    format: String,
    /// The contributor's: BLAKE3 of the session key, hex. The user's: the key itself.
    pub key: String,
    /// Session id, hex.
    pub session: String,
    version: u32,
}

impl Drop for Header {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Header(session {}, key not shown)", self.session)
    }
}

impl Header {
    /// A header of this version.
    pub fn new(adapter_id: String, peer: String, session: &[u8; 32], key: &[u8; 32]) -> Header {
        let (session, key) = (hex::encode(session), hex::encode(key));
        Header { adapter_id, peer, format: FORMAT.into(), key, session, version: VERSION }
    }

    /// The session id, as bytes.
    pub fn session_id(&self) -> Option<[u8; 32]> {
        bytes32(&self.session)
    }

    /// The key or its hash, as bytes.
    pub fn key_bytes(&self) -> Option<[u8; 32]> {
        bytes32(&self.key)
    }

    fn parse(path: &Path, payload: &[u8]) -> Result<Header, Error> {
        let header: Header = serde_json::from_slice(payload)
            .map_err(|e| Error::file(path, format!("not the log of a session: {e}")))?;
        let known = header.format == FORMAT && header.version == VERSION;
        if !known || header.session_id().is_none() || header.key_bytes().is_none() {
            return Err(Error::file(path, "the log of a session in another format or version"));
        }
        Ok(header)
    }
}

fn bytes32(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0u8; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// What happened in a session, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The user is about to send this.
    Sent(Batch),
    /// The contributor is about to answer this, with deltas of this digest.
    Served {
        /// Digest of the answer.
        answer: [u8; 32],
        /// The activations.
        batch: Batch,
    },
    /// The user got this.
    Answered(InferResponse),
    /// The contributor refused what was sent last, and did not count it.
    Withdrawn,
    /// No more batches.
    Ended,
}

const SENT: u8 = 1;
const SERVED: u8 = 2;
const ANSWERED: u8 = 3;
const ENDED: u8 = 4;
const WITHDRAWN: u8 = 5;

impl Event {
    fn to_bytes(&self) -> Vec<u8> {
        let with = |tag: u8, before: &[u8], message: &dyn Fn(&mut Vec<u8>), length: usize| {
            let mut bytes = Vec::with_capacity(1 + before.len() + length);
            bytes.push(tag);
            bytes.extend(before);
            message(&mut bytes);
            bytes
        };
        // A `Vec` has room for every message.
        match self {
            Event::Sent(batch) => {
                with(SENT, &[], &|out| batch.encode_raw(out), batch.encoded_len())
            }
            Event::Served { answer, batch } => {
                with(SERVED, answer, &|out| batch.encode_raw(out), batch.encoded_len())
            }
            Event::Answered(answer) => {
                with(ANSWERED, &[], &|out| answer.encode_raw(out), answer.encoded_len())
            }
            Event::Withdrawn => vec![WITHDRAWN],
            Event::Ended => vec![ENDED],
        }
    }

    /// Bytes of the record's payload.
    pub(crate) fn encoded_len(&self) -> usize {
        1 + match self {
            Event::Sent(batch) => batch.encoded_len(),
            Event::Served { answer, batch } => answer.len() + batch.encoded_len(),
            Event::Answered(answer) => answer.encoded_len(),
            Event::Withdrawn | Event::Ended => 0,
        }
    }

    /// Where the deltas of each call begin, if the payload of the answer's record is at `payload`.
    pub(crate) fn delta_places(answer: &InferResponse, payload: u64) -> Vec<u64> {
        answer.delta_offsets().map(|offset| payload + 1 + offset as u64).collect()
    }

    fn parse(path: &Path, payload: &[u8]) -> Result<Event, Error> {
        let refuse =
            |why: String| Error::file(path, format!("a record of the session is not one: {why}"));
        let (tag, rest) = payload.split_first().ok_or_else(|| refuse("it is empty".into()))?;
        let decoded = |e: prost::DecodeError| refuse(e.to_string());
        match *tag {
            SENT => Ok(Event::Sent(Batch::decode(rest).map_err(decoded)?)),
            SERVED => {
                let (answer, batch) =
                    rest.split_first_chunk().ok_or_else(|| refuse("it ends early".into()))?;
                Ok(Event::Served { answer: *answer, batch: Batch::decode(batch).map_err(decoded)? })
            }
            ANSWERED => Ok(Event::Answered(InferResponse::decode(rest).map_err(decoded)?)),
            WITHDRAWN if rest.is_empty() => Ok(Event::Withdrawn),
            ENDED if rest.is_empty() => Ok(Event::Ended),
            other => Err(refuse(format!("its kind is {other}"))),
        }
    }
}

/// A session's log, open for appending.
#[derive(Debug)]
pub struct SessionLog(FrameLog);

impl SessionLog {
    /// A new log.
    pub fn create(path: &Path, header: &Header) -> Result<SessionLog, Error> {
        let header = Zeroizing::new(serde_json::to_vec(header).map_err(|e| Error::file(path, e))?);
        Ok(SessionLog(FrameLog::create(path, &header)?))
    }

    /// Opens a log again, gives its events to `visit` and cuts a torn last one.
    pub fn open(
        path: &Path,
        visit: &mut dyn FnMut(Event) -> Result<(), Error>,
    ) -> Result<(SessionLog, Header), Error> {
        let mut header = None;
        let log = FrameLog::open(path, &mut |payload| dispatch(path, payload, &mut header, visit))?;
        Ok((SessionLog(log), header.ok_or_else(|| beheaded(path))?))
    }

    /// Opens a log again as [`SessionLog::open`] does, and tells of each event where its payload
    /// begins in the file. Each is held to the encoding that [`Event`] has, so that what is
    /// within it is where it should be.
    pub(crate) fn open_with_places(
        path: &Path,
        visit: &mut dyn FnMut(Event, u64) -> Result<(), Error>,
    ) -> Result<(SessionLog, Header), Error> {
        let (mut header, mut next) = (None, frame_log::HEADER as u64);
        let log = FrameLog::open(path, &mut |payload| {
            let place = next + frame_log::FRAME as u64;
            next = place + payload.len() as u64;
            dispatch(path, payload, &mut header, &mut |event| match event.to_bytes() == payload {
                true => visit(event, place),
                false => Err(Error::file(
                    path,
                    "a record of the session is not in the form that this program writes",
                )),
            })
        })?;
        Ok((SessionLog(log), header.ok_or_else(|| beheaded(path))?))
    }

    /// Where the next record will begin.
    pub(crate) fn end(&self) -> u64 {
        self.0.end()
    }

    /// Appends an event; it survives the death of the process when this returns.
    pub fn append(&mut self, event: &Event) -> Result<(), Error> {
        self.0.append(&event.to_bytes())
    }

    /// Appends an event; it survives the death of the machine when this returns.
    pub fn append_to_disk(&mut self, event: &Event) -> Result<(), Error> {
        self.0.append_to_disk(&event.to_bytes())
    }

    /// Waits until everything is on the disk.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.0.sync()
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.0.path().to_path_buf()
    }
}

fn dispatch(
    path: &Path,
    payload: &[u8],
    header: &mut Option<Header>,
    visit: &mut dyn FnMut(Event) -> Result<(), Error>,
) -> Result<(), Error> {
    if header.is_none() {
        *header = Some(Header::parse(path, payload)?);
        return Ok(());
    }
    visit(Event::parse(path, payload)?)
}

fn beheaded(path: &Path) -> Error {
    Error::file(
        path,
        "this log was cut at its beginning: the session was never opened; remove the file",
    )
}

/// Gives the events of a log to `visit`; nothing is written.
pub fn read(
    path: &Path,
    visit: &mut dyn FnMut(Event) -> Result<(), Error>,
) -> Result<Header, Error> {
    let mut header = None;
    frame_log::read(path, &mut |payload| dispatch(path, payload, &mut header, visit))?;
    header.ok_or_else(|| beheaded(path))
}

/// The header of a log.
pub fn header(path: &Path) -> Result<Header, Error> {
    Header::parse(path, &frame_log::first(path)?)
}

/// What a contributor's log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Whose session.
    pub header: Header,
    /// Rows per module that were served.
    pub rows: Vec<u64>,
    /// Number of batches.
    pub batches: u64,
    /// Whether the session has ended.
    pub ended: bool,
}

/// Reads a contributor's log of an adapter with so many modules, record by record.
///
/// # Errors
/// [`Error::File`]: it is damaged, or the log of something else.
pub fn contents(path: &Path, modules: usize) -> Result<Contents, Error> {
    let (mut rows, mut batches, mut ended) = (vec![0u64; modules], 0, false);
    let header = read(path, &mut |event| {
        match event {
            Event::Served { batch, .. } if !ended => {
                for (module, count) in batch.counts() {
                    let all = rows
                        .get_mut(module)
                        .ok_or_else(|| Error::file(path, "it is of another adapter"))?;
                    *all = all.saturating_add(count);
                }
                batches += 1;
            }
            Event::Ended if !ended => ended = true,
            _ => {
                return Err(Error::file(
                    path,
                    "its events are not those of a contributor's session",
                ));
            }
        }
        Ok(())
    })?;
    Ok(Contents { header, rows, batches, ended })
}

/// What the log of a user's session says was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Adapter id, hex.
    pub adapter_id: String,
    /// Session id, hex.
    pub session_id: String,
    /// Rows of all modules that were sent, or were about to be, and that the contributor did not
    /// refuse.
    pub rows: u64,
    /// The same per module, by its place in the manifest; modules without rows are left out.
    pub per_module: BTreeMap<usize, u64>,
}

/// What a user's log says was sent; none if its writer died before the session began. Nothing is
/// written.
///
/// # Errors
/// [`Error::File`]: it is not the log of a user.
pub fn sent(path: &Path) -> Result<Option<Sent>, Error> {
    if frame_log::is_unborn(path)? {
        return Ok(None);
    }
    // The last batch may still be refused.
    let mut per_module = BTreeMap::new();
    let mut last = Vec::new();
    let mut count = |batch: Vec<(usize, u64)>| {
        for (module, rows) in batch.into_iter().filter(|(_, rows)| *rows > 0) {
            let all = per_module.entry(module).or_insert(0u64);
            *all = all.saturating_add(rows);
        }
    };
    let header = read(path, &mut |event| {
        match event {
            Event::Sent(batch) => count(std::mem::replace(&mut last, batch.counts().collect())),
            Event::Withdrawn => last.clear(),
            Event::Answered(_) | Event::Ended => {}
            Event::Served { .. } => {
                return Err(Error::file(path, "the log of a contributor, not of a user"));
            }
        }
        Ok(())
    })?;
    count(last);
    let rows = per_module.values().fold(0, |all: u64, rows| all.saturating_add(*rows));
    Ok(Some(Sent {
        adapter_id: header.adapter_id.clone(),
        session_id: header.session.clone(),
        rows,
        per_module,
    }))
}

impl Batch {
    /// Module and number of rows of every call.
    pub fn counts(&self) -> impl Iterator<Item = (usize, u64)> {
        self.calls.iter().map(|call| {
            let rows = self.rows.get(call.rows as usize).map_or(0, |rows| u64::from(rows.count));
            (call.module as usize, rows)
        })
    }
}
