//! Why a request, a stream or a batch was refused: a label of the metrics.

use std::sync::Arc;

use tonic::{Code, Status};

/// Why a request, a stream or a batch was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum RefusalCause {
    /// The adapter would serve more rows than its contributor allows.
    Budget,
    /// Too many rows or bytes, of a batch, a message or a session.
    Limits,
    /// No identity, or an unknown one.
    Identity,
    /// The session belongs to another client, or does not exist.
    NotYours,
    /// A message breaks the protocol.
    Malformed,
    /// A session of this id was served before.
    ReusedId,
    /// Out of order, ended, of another version or adapter, or another stream took over.
    State,
    /// A message was not sent, or an answer not read, in time.
    Slow,
    /// A limit on connections, sessions or memory, a full disk, or a shutdown: a retry may work.
    Unavailable,
    /// The server failed.
    Internal,
}

impl RefusalCause {
    pub(super) const ALL: [RefusalCause; 10] = [
        RefusalCause::Budget,
        RefusalCause::Limits,
        RefusalCause::Identity,
        RefusalCause::NotYours,
        RefusalCause::Malformed,
        RefusalCause::ReusedId,
        RefusalCause::State,
        RefusalCause::Slow,
        RefusalCause::Unavailable,
        RefusalCause::Internal,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            RefusalCause::Budget => "budget",
            RefusalCause::Limits => "limits",
            RefusalCause::Identity => "identity",
            RefusalCause::NotYours => "not_yours",
            RefusalCause::Malformed => "malformed",
            RefusalCause::ReusedId => "reused_id",
            RefusalCause::State => "state",
            RefusalCause::Slow => "slow",
            RefusalCause::Unavailable => "unavailable",
            RefusalCause::Internal => "internal",
        }
    }

    /// Marks a status with this cause for the metrics. The mark is not sent.
    pub fn mark(self, mut status: Status) -> Status {
        status.set_source(Arc::new(self));
        status
    }

    /// The cause of a status: its mark, else what its code means.
    pub(super) fn of_status(status: &Status) -> RefusalCause {
        if let Some(cause) = std::error::Error::source(status)
            .and_then(|source| source.downcast_ref::<RefusalCause>())
        {
            return *cause;
        }
        match status.code() {
            // tonic sends OUT_OF_RANGE for messages that are too long.
            Code::ResourceExhausted | Code::OutOfRange => RefusalCause::Limits,
            Code::Unauthenticated => RefusalCause::Identity,
            Code::PermissionDenied | Code::NotFound => RefusalCause::NotYours,
            Code::InvalidArgument | Code::Unimplemented => RefusalCause::Malformed,
            Code::FailedPrecondition | Code::Aborted | Code::AlreadyExists => RefusalCause::State,
            Code::DeadlineExceeded => RefusalCause::Slow,
            Code::Unavailable | Code::Cancelled => RefusalCause::Unavailable,
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => RefusalCause::Internal,
        }
    }
}

impl std::fmt::Display for RefusalCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for RefusalCause {}
