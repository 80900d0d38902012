//! What a user is told, and an operator, when a log cannot be written.

use tonic::Status;

use super::log_rate::LogRate;
use crate::{Error, error::Trouble};

static CANNOT_WRITE: LogRate = LogRate::new();

/// Nothing was served, for the session's log could not be opened or written. Users try again.
pub(super) fn cannot_write(session: &str, error: &Error) -> Status {
    CANNOT_WRITE.error(|| match error.trouble() {
        Trouble::TooManyOpen => {
            format!("session {session}: {error}: raise the limit of open files (ulimit -n), or lower --max-sessions")
        }
        Trouble::DiskFull => format!("session {session}: {error}: make room on the disk; users try again"),
        Trouble::System | Trouble::Other => format!("session {session}: {error}"),
    });
    let why = match error.trouble() {
        Trouble::TooManyOpen => "too many files are open",
        Trouble::DiskFull => "its disk is full",
        Trouble::System | Trouble::Other => "its operator finds the reason in the server's log",
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
