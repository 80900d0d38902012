//! What a server takes, of everybody and of each: the bounds that keep one user from harming the others.

use std::time::Duration;

use crate::wire;

/// Bounds of a server. Whatever breaks one gets a status with a sentence; the server lives on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest message in either direction, in bytes.
    pub max_message_bytes: usize,
    /// Most rows of a module in one batch.
    pub max_batch_rows: u32,
    /// Most rows of a session, all modules together.
    pub max_session_rows: u64,
    /// Most bytes of a session's trace: activations and deltas are in memory while they are proven.
    pub max_session_bytes: u64,
    /// Most sessions that exchange batches at the same time.
    pub max_sessions: usize,
    /// Most of them under one identity: of one token or certificate, or of all users where nobody is asked who they are.
    pub max_sessions_per_client: usize,
    /// Most connections.
    pub max_connections: usize,
    /// Rows that a module serves over all sessions and users; none: no limit.
    pub max_rows: Option<u64>,
    /// How long a stream may be silent, and how long a message or a request may take to arrive.
    pub idle: Duration,
    /// How long a connection may take until its first request with a valid identity.
    pub handshake: Duration,
    /// Threads that prove; inference has the rest.
    pub proving_threads: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Limits {
            max_message_bytes: 16 << 20,
            max_batch_rows: 4096,
            max_session_rows: 1 << 20,
            max_session_bytes: 4 << 30,
            max_sessions: 256,
            max_sessions_per_client: 256,
            max_connections: 1024,
            max_rows: None,
            idle: Duration::from_secs(120),
            handshake: Duration::from_secs(15),
            proving_threads: (cores / 2).max(1),
        }
    }
}

impl Limits {
    /// What users are told.
    pub(super) fn to_wire(&self) -> wire::Limits {
        let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        wire::Limits {
            max_message_bytes: small(self.max_message_bytes),
            max_batch_rows: self.max_batch_rows,
            max_session_rows: self.max_session_rows,
            max_sessions: small(self.max_sessions),
            max_rows: self.max_rows.unwrap_or(0),
            idle_seconds: u32::try_from(self.idle.as_secs()).unwrap_or(u32::MAX),
            max_session_bytes: self.max_session_bytes,
            max_sessions_per_client: small(self.max_sessions_per_client),
        }
    }
}
