//! Descriptors: enough of them for all connections and logs that the limits allow, or the server
//! does not start.

use super::limits::Limits;
use crate::Error;

/// For each session that exchanges batches: its log, and the same file again while it is read or
/// flushed.
const EACH_SESSION: usize = 2;

/// For what is opened for a moment: proofs, the ledger, folders.
const SPARE: usize = 64;

/// Raises the limit of this process to what the server may need.
///
/// # Errors
/// [`Error::Input`] says how many are needed, if there cannot be so many.
#[cfg(unix)]
pub(super) fn provide(limits: &Limits) -> Result<(), Error> {
    // What the process has open now it keeps: a server may be a part of a larger program.
    let open = std::fs::read_dir("/dev/fd").map_or(0, Iterator::count);
    let needed = needed(limits, open);
    let failed =
        |e: std::io::Error| Error::input(format!("the limit of open files cannot be read: {e}"));
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
pub(super) fn provide(_: &Limits) -> Result<(), Error> {
    Ok(())
}

fn needed(limits: &Limits, open: usize) -> u64 {
    let sessions = limits.max_sessions.saturating_mul(EACH_SESSION);
    let connections = limits.max_connections.saturating_add(limits.max_unknown_connections);
    sessions.saturating_add(connections).saturating_add(SPARE).saturating_add(open) as u64
}

fn too_few(limits: &Limits, open: usize, needed: u64, most: u64) -> Error {
    Error::input(format!(
        "this server may need {needed} open files ({} connections, {} more that have not shown an identity yet, {EACH_SESSION} for \
         each of {} sessions, {open} that are open now, {SPARE} to spare), and this process may have {most}: raise the limit \
         (`ulimit -n {needed}`, LimitNOFILE={needed} in a unit of systemd, --ulimit nofile={needed} for a container), or lower \
         --max-connections or --max-sessions",
        limits.max_connections, limits.max_unknown_connections, limits.max_sessions
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_more_than_there_can_be_is_told_what_to_do() {
        let limits = Limits {
            max_connections: 10,
            max_unknown_connections: 5,
            max_sessions: usize::MAX / 4,
            ..Limits::default()
        };
        #[cfg(unix)]
        {
            let why = provide(&limits).err().map(|why| why.to_string()).unwrap_or_default();
            assert!(
                why.contains("10 connections, 5 more") && why.contains("lower --max-connections"),
                "{why}"
            );
        }
        let limits = Limits { max_sessions: 3, ..limits };
        assert_eq!(needed(&limits, 7), 10 + 5 + 6 + 64 + 7);
        assert!(too_few(&limits, 7, 92, 80).to_string().contains("may need 92 open files"));
    }
}
