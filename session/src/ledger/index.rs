//! What the lines of a ledger add up to: sessions by id, rows by client.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use zklora_proof::trace::TraceDigest;

use super::entry::{Entry, Rows};

/// What the ledger knows of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerSession {
    /// The client.
    pub client: String,
    /// The log, by its full path; none for sessions without a network, and for ended ones of older
    /// versions.
    pub log: Option<PathBuf>,
    /// Digest of the trace, if it has ended.
    pub trace: Option<TraceDigest>,
    /// Whether it ended without a trace.
    pub abandoned: bool,
    /// Digest of its rows in the ledger, once it has ended. A log with the same rows is this
    /// session's, at any path.
    pub rows: Option<[u8; 32]>,
    /// Whether the version that ended it could leave rows out (see [`Entry::from`]), and the log
    /// was not read again yet.
    pub needs_recount: bool,
}

impl LedgerSession {
    /// Whether its rows are in its log, and not in the ledger.
    pub fn is_open(&self) -> bool {
        self.trace.is_none() && !self.abandoned
    }

    /// Whether the entry is the line that ends this session. Older versions of the ledger did not
    /// name the log there, but named a client, which a session that was recorded locally never has.
    pub(crate) fn is_ended_by(&self, entry: &Entry) -> bool {
        let same_log = entry.log.is_some() && entry.log == self.log;
        entry.has_ended()
            && self.is_open()
            && (same_log || entry.v < 3 && entry.log.is_none() && entry.client.is_some())
    }
}

/// Digest of rows.
pub fn digest_of(rows: &Rows) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("zklora v1 rows of a session");
    for (module, rows) in rows.iter().filter(|(_, rows)| **rows > 0) {
        hasher
            .update(&(module.len() as u64).to_le_bytes())
            .update(module.as_bytes())
            .update(&rows.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// What the lines of a ledger add up to.
#[derive(Debug, Clone, Default)]
pub struct LedgerIndex {
    /// By session id. Ledgers of this version have one session of an id; older ones can have
    /// several.
    sessions: HashMap<String, Vec<LedgerSession>>,
    /// Rows of the sessions that have ended, by client.
    rows: BTreeMap<String, Rows>,
}

impl LedgerIndex {
    /// Adds a line.
    ///
    /// # Errors
    /// The line does not follow from those before it.
    pub(crate) fn apply(&mut self, entry: Entry) -> Result<(), String> {
        let mut trace = None;
        if let Some(text) = &entry.trace {
            let mut digest = [0u8; 32];
            hex::decode_to_slice(text, &mut digest)
                .map_err(|_| "`trace` is not 64 hex digits".to_string())?;
            trace = Some(TraceDigest(digest));
        }
        let client = entry.counted_under().to_string();
        let counted = self.rows.entry(client.clone()).or_default();
        for (module, rows) in &entry.rows {
            let sum = counted.entry(module.clone()).or_default();
            *sum = sum.saturating_add(*rows);
        }
        let with_id = self.sessions.entry(entry.session.clone()).or_default();
        if entry.from.is_some() {
            let moved = with_id.iter_mut().find(|known| known.log == entry.from);
            let known = moved.ok_or("it moves a log that no earlier line names")?;
            (known.log, known.needs_recount) = (entry.log, false);
            return Ok(());
        }
        let rows = entry.has_ended().then(|| digest_of(&entry.rows));
        let needs_recount = rows.is_some() && entry.v < 3 && entry.client.is_some();
        match with_id.iter_mut().find(|known| known.is_ended_by(&entry)) {
            Some(known) => {
                (known.trace, known.abandoned, known.rows, known.needs_recount) =
                    (trace, entry.abandoned, rows, needs_recount);
            }
            None => with_id.push(LedgerSession {
                client,
                log: entry.log,
                trace,
                abandoned: entry.abandoned,
                rows,
                needs_recount,
            }),
        }
        Ok(())
    }

    /// Rows of the sessions that have ended, by client. Rows of open sessions are in their logs.
    pub fn rows(&self) -> &BTreeMap<String, Rows> {
        &self.rows
    }

    /// Client and log of every session whose rows are in its log.
    pub fn open_logs(&self) -> impl Iterator<Item = (&str, &Path)> {
        let open = self.sessions.values().flatten().filter(|known| known.is_open());
        open.filter_map(|known| Some((known.client.as_str(), known.log.as_deref()?)))
    }

    /// The sessions with this id.
    pub fn by_id(&self, session: &[u8; 32]) -> &[LedgerSession] {
        self.sessions.get(&hex::encode(session)).map(Vec::as_slice).unwrap_or_default()
    }

    /// The session with this id and this log. Sessions that an older version ended have no log.
    pub fn by_log(&self, session: &[u8; 32], log: &Path) -> Option<&LedgerSession> {
        self.by_id(session).iter().find(|known| known.log.as_deref() == Some(log))
    }

    /// Whether an entry may be added: a session id is used once, by one log.
    pub(super) fn check(&self, entry: &Entry) -> Result<(), String> {
        let known = self.sessions.get(&entry.session).map(Vec::as_slice).unwrap_or_default();
        let begins = entry.log.is_none() || !entry.has_ended();
        match (begins, known) {
            (true, []) => Ok(()),
            (true, _) => {
                Err("this folder has served a session of this id before: draw a new one".into())
            }
            (false, known) if known.iter().any(|known| known.is_ended_by(entry)) => Ok(()),
            (false, _) => Err("it is not open in the ledger, so it cannot end".into()),
        }
    }
}

/// Whether the ledger has this session with exactly this trace.
pub fn was_served(index: &LedgerIndex, session: &[u8; 32], trace: TraceDigest) -> bool {
    index.by_id(session).iter().any(|known| known.trace == Some(trace))
}
