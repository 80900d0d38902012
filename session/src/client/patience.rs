//! What passes and what does not, and how long a contributor that has gone away is waited for.
//!
//! The clock starts when something fails, not when it begins: a connection that died in silence is
//! noticed after as long as an answer may take. Whoever gives up has tried a connection that was
//! made after the failure.

use std::{
    error::Error as StdError,
    io::ErrorKind,
    time::{Duration, Instant},
};

use tonic::{Code, Status};

use crate::{Error, error::causes};

/// How long to wait before a contributor that has gone away is asked again: doubled every time, up
/// to two seconds.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Why something did not work.
pub(super) enum Trouble {
    /// What the contributor, or the network, said.
    Status(Status),
    /// There was no connection; there may be one a little later.
    Away(String),
    /// What no repetition helps against.
    Final(Error),
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Trouble {
        Trouble::Status(status)
    }
}

impl Trouble {
    /// What failed in passing, as text; or the error for good.
    pub fn in_passing(self, url: &str) -> Result<String, Error> {
        match self {
            Trouble::Final(error) => Err(error),
            Trouble::Away(why) => Ok(why),
            Trouble::Status(status) if is_temporary(&status) => {
                Ok(Error::status(url, &status).why_of(url))
            }
            Trouble::Status(status) => Err(Error::status(url, &status)),
        }
    }
}

/// Whether the contributor may be back, and answer, a little later.
fn is_temporary(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => true,
        // A connection that broke in the middle of a message; a server says `internal` itself only
        // in answers without a cause.
        Code::Internal => status.source().is_some() || status.message().contains("h2 "),
        _ => false,
    }
}

/// Whether the contributor says of a batch that it is not served, and so not counted: its limits do
/// not allow it. What the connection itself reports has a cause.
pub(super) fn is_refusal(status: &Status) -> bool {
    let refused = matches!(status.code(), Code::ResourceExhausted | Code::InvalidArgument);
    refused && status.source().is_none()
}

/// Whether a connection that could not be made, or ended before anything came over it, may be made
/// a little later. A wrong certificate, a name that nobody has and a peer that speaks something
/// else stay what they are.
pub(super) fn may_pass(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                // TLS: certificates, alerts, what is not TLS.
                ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::Unsupported => false,
                ErrorKind::PermissionDenied => false,
                _ => !is_unknown_name(&io.to_string()),
            };
        }
        next = error.source();
    }
    // Without an error of the system it is HTTP/2 that complains: a frame of no size that it allows
    // is no HTTP/2.
    let text = causes(error);
    !["invalid size", "protocol error", "not negotiated"].iter().any(|sign| text.contains(sign))
}

/// Whether the resolver says that there is no such host, and not that it should be asked again.
fn is_unknown_name(text: &str) -> bool {
    text.contains("failed to lookup address")
        && !text.contains("Temporary failure")
        && !text.contains("Try again")
}

/// How long a contributor is waited for.
pub(super) struct Patience {
    limit: Duration,
    /// When it failed first.
    since: Option<Instant>,
    wait: Duration,
    /// Whether nothing came over the present connection yet.
    fresh: bool,
}

impl Patience {
    /// Of this length, before the first connection is made.
    pub fn new(limit: Duration) -> Patience {
        Patience { limit, since: None, wait: FIRST_WAIT, fresh: true }
    }

    /// From now on nothing is waited for.
    pub fn end(&mut self) {
        self.limit = Duration::ZERO;
    }

    /// Something else is tried: what failed before does not count.
    pub fn begin(&mut self) {
        (self.since, self.wait) = (None, FIRST_WAIT);
    }

    /// It did what it should: if it fails next, that is the first time.
    pub fn heard(&mut self) {
        self.begin();
        self.fresh = false;
    }

    /// It failed in passing: how long to wait before a new connection is tried, or nothing if this
    /// one was new and it was waited for long enough.
    pub fn failed(&mut self) -> Option<Duration> {
        let left = self.limit.saturating_sub(self.waited());
        if std::mem::replace(&mut self.fresh, true) && left.is_zero() {
            return None;
        }
        let wait = self.wait.min(left);
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Some(wait)
    }

    /// How long it has been away.
    pub fn waited(&mut self) -> Duration {
        self.since.get_or_insert_with(Instant::now).elapsed()
    }
}

/// A length of time for people.
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
    fn the_clock_starts_at_the_first_failure_and_a_new_connection_is_tried() {
        let mut patience = Patience::new(Duration::ZERO);
        // The first connection is new; with no patience it is the only one.
        assert_eq!(patience.failed(), None);
        let mut patience = Patience::new(Duration::ZERO);
        patience.heard();
        std::thread::sleep(Duration::from_millis(20));
        // The one that was used may have died long ago.
        assert_eq!(patience.failed(), Some(Duration::ZERO));
        assert_eq!(patience.failed(), None);
        let mut patience = Patience::new(Duration::from_millis(200));
        patience.heard();
        std::thread::sleep(Duration::from_millis(300));
        // However long the call took that failed.
        assert_eq!(patience.failed(), Some(FIRST_WAIT));
        assert!(patience.failed().unwrap() > FIRST_WAIT);
        std::thread::sleep(Duration::from_millis(220));
        assert_eq!(patience.failed(), None);
        patience.heard();
        assert_eq!(patience.failed(), Some(FIRST_WAIT));
        patience.begin();
        assert_eq!(patience.failed(), Some(FIRST_WAIT));
    }

    #[test]
    fn what_passes_is_told_from_what_stays() {
        let of = |kind, text: &str| may_pass(&std::io::Error::new(kind, text.to_string()));
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
