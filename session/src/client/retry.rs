//! Retries: which failures are transient, and how long calls to an unreachable contributor are
//! retried.
//!
//! The time for retries starts at the first failure, not at the call that failed: a connection that
//! stopped responding is noticed only when the call times out. Before a client gives up, it has
//! tried a connection that was made after the failure.

use std::{
    error::Error as StdError,
    io::ErrorKind,
    time::{Duration, Instant},
};

use tonic::{Code, Status};

use crate::{Error, error::causes};

/// The first delay between attempts, and the longest. It doubles each time.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(2);

/// Why a call failed.
pub(super) enum CallError {
    /// The contributor or the network answered with this status.
    Status(Status),
    /// There is no connection. A retry may get one.
    Unreachable(String),
    /// A retry does not help.
    Permanent(Error),
}

impl From<Status> for CallError {
    fn from(status: Status) -> CallError {
        CallError::Status(status)
    }
}

impl CallError {
    /// The reason of a transient failure, or the error of a permanent one.
    pub fn transient_reason(self, url: &str) -> Result<String, Error> {
        match self {
            CallError::Permanent(error) => Err(error),
            CallError::Unreachable(why) => Ok(why),
            CallError::Status(status) if is_transient_status(&status) => {
                Ok(Error::status(url, &status).why_of(url))
            }
            CallError::Status(status) => Err(Error::status(url, &status)),
        }
    }
}

/// Whether a retry may succeed.
fn is_transient_status(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => true,
        // A connection that broke in the middle of a message. An INTERNAL status that the server
        // sent has no cause.
        Code::Internal => status.source().is_some() || status.message().contains("h2 "),
        _ => false,
    }
}

/// Whether the contributor refused a batch because of its limits, and so did not count it. A status
/// that the connection itself reports has a cause.
pub(super) fn is_refusal(status: &Status) -> bool {
    let refused = matches!(status.code(), Code::ResourceExhausted | Code::InvalidArgument);
    refused && status.source().is_none()
}

/// Whether a connection that failed before anything was received may succeed later. A wrong
/// certificate, an unknown host name and a peer with another protocol are permanent.
pub(super) fn is_transient(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                // TLS: certificates, alerts, a peer without TLS.
                ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::Unsupported => false,
                ErrorKind::PermissionDenied => false,
                _ => !is_unknown_name(&io.to_string()),
            };
        }
        next = error.source();
    }
    // Without an error of the system, it is one of HTTP/2. An invalid frame size means that the
    // peer speaks another protocol.
    let text = causes(error);
    !["invalid size", "protocol error", "not negotiated"].iter().any(|sign| text.contains(sign))
}

/// Whether the resolver says that the host does not exist, rather than that it failed for now.
fn is_unknown_name(text: &str) -> bool {
    text.contains("failed to lookup address")
        && !text.contains("Temporary failure")
        && !text.contains("Try again")
}

/// The delays between attempts, until the time for retries is over.
pub(super) struct Backoff {
    limit: Duration,
    /// The time of the first failure.
    first_failure: Option<Instant>,
    delay: Duration,
    /// Whether nothing was received over the current connection.
    is_new_connection: bool,
}

impl Backoff {
    /// Retries for this long. The first connection was not made yet.
    pub fn new(limit: Duration) -> Backoff {
        Backoff { limit, first_failure: None, delay: FIRST_DELAY, is_new_connection: true }
    }

    /// Ends all retries.
    pub fn stop(&mut self) {
        self.limit = Duration::ZERO;
    }

    /// Begins another call. Earlier failures do not count.
    pub fn reset(&mut self) {
        (self.first_failure, self.delay) = (None, FIRST_DELAY);
    }

    /// A call succeeded. The next failure is a first one.
    pub fn succeeded(&mut self) {
        self.reset();
        self.is_new_connection = false;
    }

    /// After a transient failure, the delay before the next attempt with a new connection. None:
    /// the connection was a new one, and the time for retries is over.
    pub fn next_delay(&mut self) -> Option<Duration> {
        let left = self.limit.saturating_sub(self.elapsed());
        if std::mem::replace(&mut self.is_new_connection, true) && left.is_zero() {
            return None;
        }
        let delay = self.delay.min(left);
        self.delay = (self.delay * 2).min(MAX_DELAY);
        Some(delay)
    }

    /// Time since the first failure.
    pub fn elapsed(&mut self) -> Duration {
        self.first_failure.get_or_insert_with(Instant::now).elapsed()
    }
}

/// A duration as text.
pub(super) fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} s", time.as_secs())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn retries_start_at_the_first_failure_and_include_a_new_connection() {
        let mut backoff = Backoff::new(Duration::ZERO);
        // The first connection is new; without retries it is the only one.
        assert_eq!(backoff.next_delay(), None);
        let mut backoff = Backoff::new(Duration::ZERO);
        backoff.succeeded();
        std::thread::sleep(Duration::from_millis(20));
        // A connection that was used may have broken long ago.
        assert_eq!(backoff.next_delay(), Some(Duration::ZERO));
        assert_eq!(backoff.next_delay(), None);
        let mut backoff = Backoff::new(Duration::from_millis(200));
        backoff.succeeded();
        std::thread::sleep(Duration::from_millis(300));
        // However long the failed call took.
        assert_eq!(backoff.next_delay(), Some(FIRST_DELAY));
        assert!(backoff.next_delay().unwrap() > FIRST_DELAY);
        std::thread::sleep(Duration::from_millis(220));
        assert_eq!(backoff.next_delay(), None);
        backoff.succeeded();
        assert_eq!(backoff.next_delay(), Some(FIRST_DELAY));
        backoff.reset();
        assert_eq!(backoff.next_delay(), Some(FIRST_DELAY));
    }

    #[test]
    fn transient_failures_are_told_from_permanent_ones() {
        let of = |kind, text: &str| is_transient(&std::io::Error::new(kind, text.to_string()));
        for kind in [
            ErrorKind::ConnectionRefused,
            ErrorKind::ConnectionReset,
            ErrorKind::ConnectionAborted,
            ErrorKind::HostUnreachable,
            ErrorKind::NetworkUnreachable,
            ErrorKind::TimedOut,
            ErrorKind::UnexpectedEof,
            ErrorKind::BrokenPipe,
        ] {
            assert!(of(kind, "gone"), "{kind:?}");
        }
        let name = "failed to lookup address information:";
        assert!(of(ErrorKind::Other, &format!("{name} Temporary failure in name resolution")));
        assert!(of(ErrorKind::Other, &format!("{name} Try again")));
        assert!(!of(ErrorKind::Other, &format!("{name} Name or service not known")));
        assert!(!of(ErrorKind::InvalidData, "invalid peer certificate: UnknownIssuer"));
    }
}
