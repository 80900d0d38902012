//! The limits of a server: on memory, connections, messages, sessions and rows, in all and for each
//! client.

use std::time::Duration;

use super::{available_memory::AvailableMemory, row_service::RowService};
use crate::wire;

/// Most bytes of requests and answers on a machine with much memory.
const MAX_HELD_BYTES: u64 = 1 << 30;

/// Bytes of a connection without its messages: buffers of TLS and HTTP/2, headers of its requests.
const CONNECTION_BYTES: u64 = 128 << 10;

/// Smallest and largest window of a stream: bytes that a client may send before the server reads.
const WINDOWS: std::ops::RangeInclusive<u64> = 64 << 10..=4 << 20;

/// The limits of a server. A request that exceeds one is refused with a status that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest message in either direction, in bytes.
    pub max_message_bytes: usize,
    /// Most rows of a module in one batch.
    pub max_batch_rows: u32,
    /// Most rows of a session, all modules together.
    pub max_session_rows: u64,
    /// Most bytes of a session's trace: its activations and deltas, which are on the disk beside
    /// the log while they are proven.
    pub max_session_bytes: u64,
    /// Most sessions that exchange batches at the same time.
    pub max_sessions: usize,
    /// Most of them for one client: one token or certificate, or all users if the server asks for
    /// no identity.
    pub max_sessions_per_client: usize,
    /// Most sessions of one client that have ended and wait for their proof. Finish of one more is
    /// refused until a proof is done.
    pub max_waiting_per_client: usize,
    /// Most identified connections.
    pub max_connections: usize,
    /// Most unidentified connections. The oldest is closed for one more.
    pub max_unknown_connections: usize,
    /// Most bytes of requests that are not answered and of answers that are not read. One client
    /// gets half of them.
    pub max_held_bytes: usize,
    /// Whether rows are served, and how many of a module over all sessions and users.
    pub rows: RowService,
    /// How long a stream may be silent, and how long a message or request may take to arrive.
    pub idle: Duration,
    /// How long a connection may take until its first request with a valid identity.
    pub handshake: Duration,
    /// Threads that prove. Inference has the others.
    pub proving_threads: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::for_memory(AvailableMemory::of_this_process())
    }
}

/// Bytes that a client may send on a stream, and on a connection, before the server reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Windows {
    pub stream: u32,
    pub connection: u32,
}

impl Limits {
    /// The default limits for this memory. Messages take at most a quarter of it, flow-control
    /// windows an eighth, and connections a sixteenth. The rest is for proofs and other programs.
    pub(crate) fn for_memory(memory: AvailableMemory) -> Limits {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let max_connections = (memory.bytes / 16 / CONNECTION_BYTES).clamp(16, 1024) as usize;
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
            max_held_bytes: (memory.bytes / 4).min(MAX_HELD_BYTES) as usize,
            rows: RowService::Off,
            idle: Duration::from_secs(120),
            handshake: Duration::from_secs(15),
            proving_threads: (cores / 2).max(1),
        }
    }

    /// These limits, lowered where they exceed the memory. Lowered limits are logged.
    pub(super) fn fit_to(&self, memory: AvailableMemory) -> (Limits, Windows) {
        let mut limits = self.clone();
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let all = format!("{} MiB {}", mib(memory.bytes), memory.from);
        // A request and its answer, of a client that may have half of the budget.
        let longest = limits.max_held_bytes / 4;
        if limits.max_message_bytes > longest {
            tracing::warn!(
                "messages are limited to {} KiB instead of {}: of {all}, requests and answers \
                 may take {} MiB",
                longest >> 10,
                limits.max_message_bytes >> 10,
                mib(limits.max_held_bytes as u64)
            );
            limits.max_message_bytes = longest;
        }
        let windows = memory.bytes / 8;
        let most = (windows / WINDOWS.start()).max(1);
        if limits.max_sessions as u64 > most {
            tracing::warn!(
                "{most} sessions may exchange rows at the same time instead of {}: there are {all}",
                limits.max_sessions
            );
            limits.max_sessions = most as usize;
        }
        let stream = (windows / limits.max_sessions.max(1) as u64)
            .clamp(*WINDOWS.start(), *WINDOWS.end()) as u32;
        tracing::info!(
            "{all}: requests and answers may take {} MiB of it, {} KiB a message; {} sessions at \
             the same time, {} connections",
            mib(limits.max_held_bytes as u64),
            limits.max_message_bytes >> 10,
            limits.max_sessions,
            limits.max_connections
        );
        (limits, Windows { stream, connection: 4 * stream })
    }

    /// The limits as Describe states them.
    pub(super) fn to_wire(&self) -> wire::Limits {
        let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        wire::Limits {
            max_message_bytes: small(self.max_message_bytes),
            max_batch_rows: self.max_batch_rows,
            max_session_rows: self.max_session_rows,
            max_sessions: small(self.max_sessions),
            max_rows: self.rows.limit().unwrap_or(0),
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
    fn the_memory_budget_follows_from_the_memory() {
        let of = |mib: u64| AvailableMemory { bytes: mib << 20, from: "of a test" };
        for (mib, held, message, stream, connections) in [
            (128, 32 << 20, 8 << 20, 64 << 10, 64),
            (512, 128 << 20, 16 << 20, 256 << 10, 256),
            (2048, 512 << 20, 16 << 20, 1 << 20, 1024),
            (65_536, 1 << 30, 16 << 20, 4 << 20, 1024),
        ] {
            let (limits, windows) = Limits::for_memory(of(mib)).fit_to(of(mib));
            assert_eq!((limits.max_held_bytes, limits.max_message_bytes), (held, message), "{mib}");
            assert_eq!(
                (windows.stream, limits.max_sessions, limits.max_connections),
                (stream, 256, connections)
            );
            // All of it at once leaves half of the memory.
            let windows = limits.max_sessions as u64 * u64::from(windows.stream);
            let all = limits.max_held_bytes as u64
                + windows
                + limits.max_connections as u64 * CONNECTION_BYTES;
            assert!(all <= (mib << 20) / 2, "{mib}: {all}");
        }
        // Limits that do not fit are lowered.
        let asked = Limits {
            max_sessions: 65_536,
            max_message_bytes: 256 << 20,
            ..Limits::for_memory(of(512))
        };
        let (limits, windows) = asked.fit_to(of(512));
        assert_eq!(
            (limits.max_sessions, limits.max_message_bytes, windows.stream),
            (1024, 32 << 20, 64 << 10)
        );
    }
}
