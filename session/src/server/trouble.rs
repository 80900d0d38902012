//! What a user is told, and an operator, when a log cannot be written.

use tonic::Status;
use zklora_files::Kind;

use super::log_rate::LogRate;
use crate::Error;

static CANNOT_WRITE: LogRate = LogRate::new();

/// Nothing was served, for the session's log could not be opened or written. Users try again.
pub(super) fn cannot_write(session: &str, error: &Error) -> Status {
    CANNOT_WRITE.error(|| match error.kind() {
        Some(Kind::TooManyOpen) => {
            format!("session {session}: {error}: raise the limit of open files (ulimit -n), or lower --max-sessions")
        }
        Some(Kind::DiskFull) => format!("session {session}: {error}: make room on the disk; users try again"),
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
    fn a_user_is_told_what_the_trouble_is() {
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
