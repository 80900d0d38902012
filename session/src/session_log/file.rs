//! Writing and reading the log of a session.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{event::Event, header::Header};
use crate::{
    Error,
    frame_log::{self, FrameLog},
};

/// A session's log, open for appending.
#[derive(Debug)]
pub struct SessionLog(FrameLog);

impl SessionLog {
    /// Creates a log.
    pub fn create(path: &Path, header: &Header) -> Result<SessionLog, Error> {
        let header = Zeroizing::new(
            serde_json::to_vec(header)
                .map_err(|e| Error::Internal(format!("the header of a log: {e}")))?,
        );
        Ok(SessionLog(FrameLog::create(path, &header)?))
    }

    /// Opens an existing log, passes its events to `visit` and cuts a torn last one.
    pub fn open(
        path: &Path,
        visit: &mut dyn FnMut(Event) -> Result<(), Error>,
    ) -> Result<(SessionLog, Header), Error> {
        let mut header = None;
        let log = FrameLog::open(path, &mut |payload| dispatch(path, payload, &mut header, visit))?;
        Ok((SessionLog(log), header.ok_or_else(|| no_header(path))?))
    }

    /// As [`SessionLog::open`], and also passes the offset of each payload in the file. Each
    /// payload must be exactly the encoding of its [`Event`], so that offsets within it can be
    /// computed.
    pub(crate) fn open_with_offsets(
        path: &Path,
        visit: &mut dyn FnMut(Event, u64) -> Result<(), Error>,
    ) -> Result<(SessionLog, Header), Error> {
        let (mut header, mut next) = (None, frame_log::HEADER as u64);
        let log = FrameLog::open(path, &mut |payload| {
            let offset = next + frame_log::FRAME as u64;
            next = offset + payload.len() as u64;
            dispatch(path, payload, &mut header, &mut |event| match event.to_bytes() == payload {
                true => visit(event, offset),
                false => Err(Error::file(
                    path,
                    "a record of the log is not encoded as this program does it: use the version \
                     of zklora that wrote it",
                )),
            })
        })?;
        Ok((SessionLog(log), header.ok_or_else(|| no_header(path))?))
    }

    /// Where the next record will begin.
    pub(crate) fn end(&self) -> u64 {
        self.0.end()
    }

    /// Appends an event. When this returns, it survives the death of the process.
    pub fn append(&mut self, event: &Event) -> Result<(), Error> {
        self.0.append(&event.to_bytes())
    }

    /// Appends an event. When this returns, it survives a power cut.
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

fn no_header(path: &Path) -> Error {
    Error::file(
        path,
        "this log was cut before its first record, and the session was never opened: remove \
         the file",
    )
}

/// Passes the events of a log to `visit`. Writes nothing.
pub fn read(
    path: &Path,
    visit: &mut dyn FnMut(Event) -> Result<(), Error>,
) -> Result<Header, Error> {
    let mut header = None;
    frame_log::read(path, &mut |payload| dispatch(path, payload, &mut header, visit))?;
    header.ok_or_else(|| no_header(path))
}

/// The header of a log.
pub fn header(path: &Path) -> Result<Header, Error> {
    Header::parse(path, &frame_log::first(path)?)
}
