//! Statuses that several parts of the server send.

use tonic::Status;
use zklora_files::Kind;

use super::{log_rate::LogRate, metrics::RefusalCause};
use crate::Error;

static CANNOT_WRITE: LogRate = LogRate::new();

/// A newer stream has taken the session over.
pub(super) fn superseded() -> Status {
    Status::aborted("another stream resumed this session")
}

/// The session id was used before, and the session cannot be resumed.
pub(super) fn used_before() -> Status {
    RefusalCause::ReusedId.mark(Status::failed_precondition(
        "a session of this id was served before and cannot be resumed: begin a new session",
    ))
}

/// There is no such session, or it belongs to another client. Both get the same answer, so that ids
/// cannot be searched for.
pub(super) fn no_such_session() -> Status {
    Status::permission_denied(
        "no session of yours has this id and key: open it first, with the identity that it was \
         opened with",
    )
}

/// A new session, on a server without the row service.
pub(super) fn no_rows() -> Status {
    RefusalCause::Budget.mark(Status::failed_precondition(
        "this contributor serves no rows (it did not choose --max-rows): ask for an evaluation \
         instead",
    ))
}

/// Another batch of a session of an earlier run, on a server without the row service. The code is
/// that of a limit: clients learn from it that the batch was not counted, and can end the session.
pub(super) fn no_further_rows() -> Status {
    RefusalCause::Budget.mark(Status::resource_exhausted(
        "this contributor serves no further rows (it did not choose --max-rows): end the session \
         to get the proof of the rows that you have",
    ))
}

/// The log of a session could not be opened or written, so nothing was served. Users retry.
pub(super) fn cannot_write(session: &str, error: &Error) -> Status {
    CANNOT_WRITE.error(|| match error.kind() {
        Some(Kind::TooManyOpen) => format!(
            "session {session}: {error}: raise the limit of open files (ulimit -n), or lower \
             --max-sessions"
        ),
        Some(Kind::DiskFull) => {
            format!("session {session}: {error}: make room on the disk; users try again")
        }
        _ => format!("session {session}: {error}"),
    });
    let why = match error.kind() {
        Some(Kind::TooManyOpen) => "too many files are open",
        Some(Kind::DiskFull) => "its disk is full",
        _ => "its operator finds the reason in the server's log",
    };
    Status::unavailable(format!(
        "this server cannot write its log ({why}): nothing was served; try again later"
    ))
}

#[cfg(test)]
mod tests {
    use std::{io, path::Path};

    use super::*;

    #[test]
    fn a_user_is_told_why_a_log_cannot_be_written() {
        let told = |why: io::Error| {
            cannot_write("0a", &Error::file(Path::new("log"), why)).message().to_string()
        };
        assert!(told(io::ErrorKind::StorageFull.into()).contains("its disk is full"));
        assert!(told(io::ErrorKind::PermissionDenied.into()).contains("finds the reason"));
        if cfg!(unix) {
            let text = told(io::Error::from_raw_os_error(24));
            assert!(text.contains("too many files are open") && !text.contains("disk"), "{text}");
        }
    }
}
