//! One line of the ledger.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use zklora_proof::trace::TraceDigest;

/// The client of sessions without a network.
pub const LOCAL: &str = "(recorded locally)";

/// Rows of each module.
pub type Rows = BTreeMap<String, u64>;

/// One line: a session that was recorded, opened, ended or abandoned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The session ended without a trace, and is never proven. Its rows are counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub abandoned: bool,
    /// The client, for sessions over the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The line says that a log was moved: its path in the line before. If that is the same path,
    /// the rows of a log that an older version ended were counted again, and `rows` are those that
    /// its line had left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// The log of a session over the network; relative to the ledger's folder if it is inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// Rows per module; empty while the session is open.
    pub rows: BTreeMap<String, u64>,
    /// The session's context, hex.
    pub session: String,
    /// Digest of the trace's content, hex; none while the session is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Format version.
    pub v: u32,
}

const VERSION: u32 = 3;

/// Lines of version 1 have neither client nor log. In version 2 the line of an ended session has no
/// log.
const OLDEST: u32 = 1;

impl Entry {
    /// A session that was recorded in this folder, without a network.
    pub fn recorded(session: &[u8; 32], trace: TraceDigest, rows: Rows) -> Entry {
        let trace = Some(hex::encode(trace.0));
        Entry {
            abandoned: false,
            client: None,
            from: None,
            log: None,
            rows,
            session: hex::encode(session),
            trace,
            v: VERSION,
        }
    }

    /// A session that begins; its rows are counted in `log`.
    pub fn opened(session: &[u8; 32], client: &str, log: &Path) -> Entry {
        let rows = Rows::new();
        let (client, log) = (Some(client.to_string()), Some(log.to_path_buf()));
        Entry {
            abandoned: false,
            client,
            from: None,
            log,
            rows,
            session: hex::encode(session),
            trace: None,
            v: VERSION,
        }
    }

    /// A log that was moved to `to`, with those of its rows that no line has.
    pub fn moved(session: &[u8; 32], client: &str, from: &Path, to: &Path, rows: Rows) -> Entry {
        Entry { from: Some(from.to_path_buf()), rows, ..Entry::opened(session, client, to) }
    }

    /// A session whose log has ended, with all rows of the log.
    pub fn ended(
        session: &[u8; 32],
        client: &str,
        log: &Path,
        trace: TraceDigest,
        rows: Rows,
    ) -> Entry {
        Entry { rows, trace: Some(hex::encode(trace.0)), ..Entry::opened(session, client, log) }
    }

    /// A session whose log ended without a proof, with all rows of the log.
    pub fn abandoned(session: &[u8; 32], client: &str, log: &Path, rows: Rows) -> Entry {
        Entry { rows, abandoned: true, ..Entry::opened(session, client, log) }
    }

    /// Whether its rows are final.
    pub fn has_ended(&self) -> bool {
        self.trace.is_some() || self.abandoned
    }

    /// The client that its rows are counted for.
    pub fn counted_under(&self) -> &str {
        self.client.as_deref().unwrap_or(LOCAL)
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if !(OLDEST..=VERSION).contains(&self.v) {
            return Err(format!("version {}: use a newer zklora", self.v));
        }
        let refuse = |why: &str| Err(format!("not a ledger entry: {why}"));
        match (self.v, &self.trace, &self.log) {
            (_, None, None) => refuse("it has neither `trace` nor `log`"),
            (1 | 2, Some(_), Some(_)) => refuse("it has both `trace` and `log`"),
            _ if self.abandoned && (self.trace.is_some() || self.v < 3) => {
                refuse("it is abandoned and has a trace")
            }
            _ if self.from.is_some() && (self.has_ended() || self.v < 3) => {
                refuse("it is moved and has ended")
            }
            _ if !self.has_ended() && self.from.is_none() && !self.rows.is_empty() => {
                refuse("it is open and has rows")
            }
            (_, _, Some(_)) if self.client.is_none() => refuse("it has a log and no client"),
            _ => Ok(()),
        }
    }
}
