//! The state of a user's session with one contributor, and its folder.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use zklora_artifacts::{session_rows::SessionRows, trace_reader::TraceReader};

use super::{
    in_flight::InFlight, log_index::LogIndex, log_writer::LogWriter, remote::Remote, stream::Stream,
};
use crate::Error;

/// Names of files in the folder of a session.
pub(super) const LOG: &str = "rows.log";
pub(super) const TRACE: &str = "trace.safetensors";
pub(super) const PROOF: &str = "session.pf";

/// Most calls whose figures are kept.
pub const MAX_CALLS: usize = 1 << 16;

/// Figures of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CallFigures {
    /// Seconds until the answer was there.
    pub seconds: f64,
    /// Bytes of the batch.
    pub sent: usize,
    /// Bytes of the answer.
    pub received: usize,
}

/// Figures of a session.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// Rows that were sent and answered.
    pub rows: usize,
    /// Rows that the session's log answered.
    pub reused: usize,
    /// Bytes of batches.
    pub sent: u64,
    /// Bytes of answers.
    pub received: u64,
    /// Calls.
    pub calls: usize,
    /// Seconds of all calls together.
    pub call_seconds: f64,
    /// The latest calls, of which at most [`MAX_CALLS`] are kept.
    pub latest: VecDeque<CallFigures>,
    /// Number of reconnections.
    pub reconnections: usize,
}

impl Statistics {
    pub(super) fn add(&mut self, call: CallFigures, rows: usize) {
        self.calls += 1;
        self.call_seconds += call.seconds;
        self.received += call.received as u64;
        self.sent += call.sent as u64;
        self.rows += rows;
        if self.latest.len() == MAX_CALLS {
            self.latest.pop_front();
        }
        self.latest.push_back(call);
    }
}

/// An open session with one contributor.
pub struct UserSession {
    pub(super) remote: Remote,
    pub(super) folder: PathBuf,
    pub(super) id: [u8; 32],
    pub(super) key: zeroize::Zeroizing<[u8; 32]>,
    pub(super) log: LogWriter,
    pub(super) index: LogIndex,
    /// The batches that have no answer. They may have been counted.
    pub(super) in_flight: InFlight,
    pub(super) stream: Option<Stream>,
    /// Whether nothing was received over the stream.
    pub(super) is_silent: bool,
    /// Whether there was a stream, so that the next one is a reconnection.
    pub(super) connected: bool,
    /// Whether the proof was requested. Then no row can be added.
    pub(super) ended: bool,
    /// Number of batches in the trace that this process wrote.
    pub(super) traced: Option<u64>,
    /// Figures so far.
    pub statistics: Statistics,
    /// Rows that were in the log when the session was opened.
    pub resumed: usize,
}

impl UserSession {
    /// The URL of the contributor.
    pub fn url(&self) -> &str {
        &self.remote.options.url
    }

    /// The contributor.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The session id.
    pub fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// Rows of all modules that were answered.
    pub fn rows(&self) -> usize {
        self.index.rows()
    }

    /// Rows of every module that were answered.
    pub fn rows_per_module(&self) -> Vec<usize> {
        self.index.rows_per_module()
    }

    pub(super) fn failed(&self, why: impl Into<String>) -> Error {
        Error::Contributor { url: self.remote.options.url.clone(), why: why.into() }
    }

    /// From now on, an unreachable contributor is an error at once.
    pub fn stop_retrying(&mut self) {
        self.remote.stop_retrying();
    }

    /// The rows and deltas of the log as a trace in memory.
    ///
    /// # Errors
    /// [`Error::Artifact`]: the log cannot be read.
    pub fn trace(&self) -> Result<SessionRows, Error> {
        if !self.folder.join(LOG).exists() {
            // The session is finished.
            return Ok(SessionRows::read(&self.folder.join(TRACE), &self.remote.manifest)?);
        }
        self.log.flush()?;
        self.index.trace(self.id, &self.remote.manifest)
    }

    /// The same in a file. During a session it is one without a name, for this reader alone.
    ///
    /// # Errors
    /// [`Error::Artifact`]: the log cannot be read, or the trace not written.
    pub fn trace_file(&self) -> Result<TraceReader, Error> {
        let (path, manifest) = (self.folder.join(TRACE), &self.remote.manifest);
        let open = |path: &Path| Ok(TraceReader::open(path, manifest.id(), manifest.modules())?);
        if !self.folder.join(LOG).exists() {
            return open(&path);
        }
        self.log.flush()?;
        // The open file outlives its name.
        let complete = self.index.write_trace(&path, self.id, manifest)?;
        open(complete.temporary())
    }
}
