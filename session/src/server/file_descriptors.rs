//! The limit of open files: it must allow all connections and logs that the limits of the server
//! allow, or the server does not start.

use super::limits::Limits;
use crate::Error;

/// For each session that exchanges batches: its log, and the same file again while it is read or
/// synced.
const PER_SESSION: usize = 2;

/// For files that are open for a short time: proofs, the ledger, folders.
const SPARE: usize = 64;

/// Raises the limit of open files of this process to what the server may need.
///
/// # Errors
/// [`Error::Artifact`] says how many are needed, if the limit cannot be raised that far.
#[cfg(unix)]
pub(super) fn raise_limit(limits: &Limits) -> Result<(), Error> {
    // Files that are open now stay open: a server may be part of a larger program.
    let open = std::fs::read_dir("/dev/fd").map_or(0, Iterator::count);
    let needed = needed(limits, open);
    let failed =
        |e: std::io::Error| Error::System(format!("the limit of open files cannot be read: {e}"));
    let (soft, hard) = rlimit::Resource::NOFILE.get().map_err(failed)?;
    if soft >= needed {
        return Ok(());
    }
    let raised = rlimit::increase_nofile_limit(needed).unwrap_or(soft);
    if raised >= needed {
        Ok(())
    } else {
        Err(too_few(limits, open, needed, raised.max(hard.min(needed))))
    }
}

/// Other systems have no such limit.
#[cfg(not(unix))]
pub(super) fn raise_limit(_: &Limits) -> Result<(), Error> {
    Ok(())
}

fn needed(limits: &Limits, open: usize) -> u64 {
    let sessions = limits.max_sessions.saturating_mul(PER_SESSION);
    let connections = limits.max_connections.saturating_add(limits.max_unknown_connections);
    sessions.saturating_add(connections).saturating_add(SPARE).saturating_add(open) as u64
}

fn too_few(limits: &Limits, open: usize, needed: u64, most: u64) -> Error {
    Error::input(format!(
        "this server may need {needed} open files ({} connections, {} unidentified connections, \
         {PER_SESSION} for each of {} sessions, {open} that are open now, {SPARE} to spare), and \
         this process may have {most}: raise the limit (`ulimit -n {needed}`, \
         LimitNOFILE={needed} in a systemd unit, --ulimit nofile={needed} for a container), or \
         lower --max-connections or --max-sessions",
        limits.max_connections, limits.max_unknown_connections, limits.max_sessions
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_need_too_many_files_are_refused_with_advice() {
        let limits = Limits {
            max_connections: 10,
            max_unknown_connections: 5,
            max_sessions: usize::MAX / 4,
            ..Limits::default()
        };
        #[cfg(unix)]
        {
            let why = raise_limit(&limits).err().map(|why| why.to_string()).unwrap_or_default();
            assert!(
                why.contains("10 connections, 5 unidentified")
                    && why.contains("lower --max-connections"),
                "{why}"
            );
        }
        let limits = Limits { max_sessions: 3, ..limits };
        assert_eq!(needed(&limits, 7), 10 + 5 + 6 + 64 + 7);
        assert!(too_few(&limits, 7, 92, 80).to_string().contains("may need 92 open files"));
    }
}
