//! The sessions that a ledger names, in the order in which they began.

use std::{collections::HashMap, path::Path};

use super::{
    files::{Files, is_id},
    stored::{State, Stored},
};
use crate::ledger::{Entry, LedgerSession, Rows};

/// What the ledger says of one session.
pub(super) struct LedgerLine {
    pub id: String,
    pub known: LedgerSession,
    pub rows: Rows,
    pub local: bool,
}

/// The sessions of a ledger, in the order in which they began.
pub(super) fn sessions_of(entries: Vec<Entry>) -> Vec<LedgerLine> {
    let mut lines: Vec<LedgerLine> = Vec::with_capacity(entries.len());
    let mut with_id: HashMap<String, Vec<usize>> = HashMap::new();
    for entry in entries {
        let indices = with_id.entry(entry.session.clone()).or_default();
        let mut trace = [0u8; 32];
        // The server refuses a ledger with malformed digests. Here they only mean that the session
        // has ended.
        let _ = entry.trace.as_ref().map(|text| hex::decode_to_slice(text, &mut trace));
        let trace = entry.trace.as_ref().map(|_| zklora_proof::trace::TraceDigest(trace));
        if entry.from.is_some() {
            // The log was moved.
            if let Some(at) = indices.iter().find(|at| lines[**at].known.log == entry.from) {
                let line = &mut lines[*at];
                line.known.log = entry.log;
                for (module, rows) in entry.rows {
                    let all = line.rows.entry(module).or_default();
                    *all = all.saturating_add(rows);
                }
            }
            continue;
        }
        match indices.iter().find(|at| lines[**at].known.is_ended_by(&entry)) {
            Some(at) => {
                let line = &mut lines[*at];
                (line.known.trace, line.known.abandoned, line.rows) =
                    (trace, entry.abandoned, entry.rows);
            }
            None => {
                indices.push(lines.len());
                let client = entry.counted_under().to_string();
                let abandoned = entry.abandoned;
                let known = LedgerSession {
                    client,
                    log: entry.log,
                    trace,
                    abandoned,
                    rows: None,
                    needs_recount: false,
                };
                lines.push(LedgerLine {
                    id: entry.session,
                    known,
                    rows: entry.rows,
                    local: entry.client.is_none(),
                });
            }
        }
    }
    lines
}

impl LedgerLine {
    pub(super) fn stored(self, files: &Files) -> Stored {
        let LedgerLine { id, known, rows, local } = self;
        let counted = !known.is_open();
        let mut session = Stored::new(id, known.client, known.log, counted);
        session.rows = rows;
        let Some(log) = session.log.clone() else {
            session.state = if local { State::Recorded } else { State::Removed };
            return session;
        };
        if !is_log_of(&log, &session.id) {
            session.state = State::Damaged;
            session.problem =
                Some("the ledger names a log whose file name is not the session id".into());
            // A file of such a name is neither read nor removed.
            session.log = None;
            return session;
        }
        session.read_files(&log, files);
        let exists = files.has(&log);
        session.state = match (known.abandoned, counted, exists) {
            (true, ..) => State::Abandoned,
            (_, true, false) => State::Removed,
            (_, true, true) if session.proof_bytes > 0 && session.fetched.is_some() => {
                State::Fetched
            }
            (_, true, true) if session.proof_bytes > 0 => State::Proven,
            (_, true, true) => session.state_without_proof(),
            (_, false, true) => State::Open,
            (_, false, false) => State::LogMissing,
        };
        session
    }
}

/// Whether a log is named after its session. Only then the files beside it belong to the session.
fn is_log_of(log: &Path, id: &str) -> bool {
    is_id(id) && log.file_name().is_some_and(|name| name == format!("{id}.rows").as_str())
}
