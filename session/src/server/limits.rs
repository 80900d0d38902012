//! What a server takes, of everybody and of each: the bounds that keep one user from harming the
//! others.

use std::time::Duration;

use super::memory::Memory;
use crate::wire;

/// What requests and answers may take where there is much memory, in bytes.
const MOST_HELD: u64 = 1 << 30;

/// What a connection takes without its messages: buffers of TLS and HTTP/2, headers of its
/// requests.
const CONNECTION: u64 = 128 << 10;

/// Largest and smallest window of a stream: what may come before it is asked for.
const WINDOWS: std::ops::RangeInclusive<u64> = 64 << 10..=4 << 20;

/// Bounds of a server. Whatever breaks one gets a status with a sentence; the server lives on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest message in either direction, in bytes.
    pub max_message_bytes: usize,
    /// Most rows of a module in one batch.
    pub max_batch_rows: u32,
    /// Most rows of a session, all modules together.
    pub max_session_rows: u64,
    /// Most bytes of a session's trace: activations and deltas are on the disk while they are
    /// proven, beside the log.
    pub max_session_bytes: u64,
    /// Most sessions that exchange batches at the same time.
    pub max_sessions: usize,
    /// Most of them under one identity: of one token or certificate, or of all users where nobody
    /// is asked who they are.
    pub max_sessions_per_client: usize,
    /// Most sessions of one identity that have ended and wait for their proof: with one more,
    /// Finish is refused for now.
    pub max_waiting_per_client: usize,
    /// Most connections that have shown an identity.
    pub max_connections: usize,
    /// Most connections that have not: for one more, the oldest of them is closed.
    pub max_unknown_connections: usize,
    /// Most bytes of requests that are not answered and of answers that are not read. One identity
    /// gets half of them.
    pub max_held_bytes: usize,
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
        Limits::of(Memory::of_this_process())
    }
}

/// How much may come on a stream, and on a connection, before it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Windows {
    pub stream: u32,
    pub connection: u32,
}

impl Limits {
    /// The default limits with so much memory: messages take a quarter of it at most, what comes
    /// unasked an eighth, and connections a sixteenth. The rest is for proofs, and for others.
    pub(crate) fn of(memory: Memory) -> Limits {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let max_connections = (memory.bytes / 16 / CONNECTION).clamp(16, 1024) as usize;
        Limits {
            max_message_bytes: 16 << 20,
            max_batch_rows: 4096,
            max_session_rows: 1 << 20,
            max_session_bytes: 4 << 30,
            max_sessions: 256,
            max_sessions_per_client: 256,
            max_waiting_per_client: 256,
            max_connections,
            max_unknown_connections: max_connections / 4,
            max_held_bytes: (memory.bytes / 4).min(MOST_HELD) as usize,
            max_rows: None,
            idle: Duration::from_secs(120),
            handshake: Duration::from_secs(15),
            proving_threads: (cores / 2).max(1),
        }
    }

    /// These limits, as far as they fit into the memory that there is; what was lowered is logged.
    pub(super) fn within(&self, memory: Memory) -> (Limits, Windows) {
        let mut limits = self.clone();
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let all = format!("{} MiB {}", mib(memory.bytes), memory.from);
        // A request and its answer, of an identity that may have half of what there is.
        let longest = limits.max_held_bytes / 4;
        if limits.max_message_bytes > longest {
            tracing::warn!(
                "messages may have {} KiB, not {}: of {all}, requests and answers may take {} MiB",
                longest >> 10,
                limits.max_message_bytes >> 10,
                mib(limits.max_held_bytes as u64)
            );
            limits.max_message_bytes = longest;
        }
        let unasked = memory.bytes / 8;
        let most = (unasked / WINDOWS.start()).max(1);
        if limits.max_sessions as u64 > most {
            tracing::warn!(
                "{most} sessions may exchange rows at the same time, not {}: there are {all}",
                limits.max_sessions
            );
            limits.max_sessions = most as usize;
        }
        let stream = (unasked / limits.max_sessions.max(1) as u64)
            .clamp(*WINDOWS.start(), *WINDOWS.end()) as u32;
        tracing::info!(
            "{all}: requests and answers may take {} MiB of it, {} KiB a message; {} sessions at the same time, {} connections",
            mib(limits.max_held_bytes as u64),
            limits.max_message_bytes >> 10,
            limits.max_sessions,
            limits.max_connections
        );
        (limits, Windows { stream, connection: 4 * stream })
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_held_follows_from_the_memory() {
        let of = |mib: u64| Memory { bytes: mib << 20, from: "of a test" };
        for (mib, held, message, stream, connections) in [
            (128, 32 << 20, 8 << 20, 64 << 10, 64),
            (512, 128 << 20, 16 << 20, 256 << 10, 256),
            (2048, 512 << 20, 16 << 20, 1 << 20, 1024),
            (65_536, 1 << 30, 16 << 20, 4 << 20, 1024),
        ] {
            let (limits, windows) = Limits::of(of(mib)).within(of(mib));
            assert_eq!((limits.max_held_bytes, limits.max_message_bytes), (held, message), "{mib}");
            assert_eq!(
                (windows.stream, limits.max_sessions, limits.max_connections),
                (stream, 256, connections)
            );
            // All of it at once leaves half for the rest.
            let unasked = limits.max_sessions as u64 * u64::from(windows.stream);
            let all =
                limits.max_held_bytes as u64 + unasked + limits.max_connections as u64 * CONNECTION;
            assert!(all <= (mib << 20) / 2, "{mib}: {all}");
        }
        // What was asked for and does not fit is lowered.
        let asked =
            Limits { max_sessions: 65_536, max_message_bytes: 256 << 20, ..Limits::of(of(512)) };
        let (limits, windows) = asked.within(of(512));
        assert_eq!(
            (limits.max_sessions, limits.max_message_bytes, windows.stream),
            (1024, 32 << 20, 64 << 10)
        );
    }
}
