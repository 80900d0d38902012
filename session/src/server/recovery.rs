//! Crash recovery: what a server finds in its folder when it starts. It counts the rows of every
//! log, and queues the sessions that ended without a proof.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use rayon::prelude::*;
use zklora_artifacts::folder::Artifacts;
use zklora_files::Access;

use super::{
    limits::Limits,
    metrics::Metrics,
    row_counter::RowCounter,
    session::{Session, Stage},
    sessions::Sessions,
    unlisted_logs::{check_log, missing_entry},
};
use crate::{
    Error,
    ledger::Ledger,
    proof_attempts,
    row_totals::RowTotals,
    session_files::{log_path, misnamed},
    session_log,
};

/// What a server found of earlier runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Sessions that can be resumed.
    pub open: usize,
    /// Sessions that had ended and are proven now.
    pub to_prove: usize,
    /// Sessions that have a proof.
    pub proven: usize,
    /// Ids of sessions that had ended and are not proven: the server died several times while it
    /// proved them.
    pub set_aside: Vec<String>,
}

/// Locks the ledger and reads the sessions of the folder. Also returns those that wait for their
/// proof.
pub(super) fn recover(
    folder: &Path,
    artifacts: &Artifacts,
    limits: &Limits,
) -> Result<(Sessions, Vec<Arc<Session>>, Restored), Error> {
    zklora_files::create_folder(folder, Access::Private)?;
    // The ledger names logs by their full path, which does not depend on the working directory.
    let folder = folder.canonicalize().map_err(|e| Error::file(folder, e))?;
    let mut ledger = Ledger::lock(&artifacts.ledger())?;
    // Temporary files of a process that was killed.
    zklora_files::sweep(&folder);
    let found = SessionFiles::list(&folder)?;
    // Nothing is written before all logs were understood: a start that fails leaves the ledger
    // unchanged.
    let (mut index, mut entries) = (ledger.index().clone(), Vec::new());
    let mut unlisted_contents = HashMap::new();
    for id in &found.logs {
        if let Some((entry, contents)) = missing_entry(&folder, id, &index, artifacts)? {
            index.apply(entry.clone()).map_err(|why| Error::file(&artifacts.ledger(), why))?;
            entries.push(entry);
            unlisted_contents.insert(log_path(&folder, id), contents);
        }
    }
    let (mut loaded, mut queue, mut restored) = (HashMap::new(), Vec::new(), Restored::default());
    let mut queue_or_set_aside = |id: &[u8; 32], session: Session| {
        let session = Arc::new(session);
        if proof_attempts::read(&folder, id) >= proof_attempts::MAX_ATTEMPTS {
            restored.set_aside.push(hex::encode(id));
            session.set_stage(Stage::Failed(proof_attempts::SET_ASIDE.into()));
        } else {
            queue.push(Arc::clone(&session));
        }
        loaded.insert(*id, session);
    };
    // Rows of sessions that the ledger calls open are in their logs, in any folder.
    let modules = artifacts.manifest.modules().len();
    let open: Vec<_> = index.open_logs().collect();
    let read = open.par_iter().map(|(client, log)| {
        let contents = match unlisted_contents.get(*log) {
            Some(contents) => contents.clone(),
            None => session_log::contents(log, modules)?,
        };
        Ok((*client, *log, contents))
    });
    let mut served = RowTotals::of_ended(&index, &artifacts.manifest);
    let mut resumable = 0;
    for (client, log, contents) in read.collect::<Result<Vec<_>, Error>>()? {
        served.add_all(client, &contents.rows);
        if log.parent() != Some(&folder) {
            continue;
        }
        let id = check_log(log, &contents.header, artifacts)?;
        if index.by_id(&id).len() > 1 {
            tracing::warn!(
                "{}: another log has the same session id: the rows are counted, but the session \
                 cannot be resumed",
                log.display()
            );
        } else if contents.ended {
            queue_or_set_aside(&id, Session::restore(log, &folder, None)?.0);
        } else {
            resumable += 1;
        }
    }
    // Rows of ended sessions are in the ledger.
    let (mut proven, mut without_proof) = (0, Vec::new());
    for id in &found.logs {
        match index.by_log(id, &log_path(&folder, id)) {
            Some(known) if known.trace.is_some() && found.proofs.contains(id) => proven += 1,
            Some(known) if known.trace.is_some() => without_proof.push(*id),
            _ => {}
        }
    }
    for id in without_proof {
        queue_or_set_aside(&id, Session::restore(&log_path(&folder, &id), &folder, None)?.0);
    }
    (restored.open, restored.to_prove, restored.proven) = (resumable, queue.len(), proven);
    let metrics = Metrics::new()?;
    let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    metrics.open.set(gauge(restored.open));
    metrics.proven.set(gauge(restored.proven));
    metrics.failed.set(gauge(restored.set_aside.len()));
    ledger.append_recovered(entries)?;
    let row_counter = RowCounter::new(ledger, served, metrics);
    Ok((Sessions::new(folder, loaded, row_counter, limits.max_sessions), queue, restored))
}

/// The logs and proofs in a server's folder, by session id.
#[derive(Default)]
struct SessionFiles {
    logs: Vec<[u8; 32]>,
    proofs: HashSet<[u8; 32]>,
}

impl SessionFiles {
    /// Lists a folder. Removes the traces of proofs that were being made when the server died.
    fn list(folder: &Path) -> Result<SessionFiles, Error> {
        let (mut found, mut traces) = (SessionFiles::default(), Vec::new());
        for entry in std::fs::read_dir(folder).map_err(|e| Error::file(folder, e))? {
            let path = entry.map_err(|e| Error::file(folder, e))?.path();
            let Some(extension) = path.extension().and_then(|extension| extension.to_str()) else {
                continue;
            };
            let mut id = [0u8; 32];
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let is_id = hex::decode_to_slice(stem, &mut id).is_ok() && hex::encode(id) == stem;
            match (extension, is_id) {
                ("rows", true) => found.logs.push(id),
                ("rows", false) => {
                    // If it is no log of a session, this error says so.
                    session_log::header(&path)?;
                    return Err(misnamed(&path));
                }
                ("pf", true) => drop(found.proofs.insert(id)),
                ("trace", true) => traces.push((id, path)),
                _ => {}
            }
        }
        found.logs.sort_unstable();
        // A trace without a log beside it is not one of this server's.
        let mut logged = traces.iter().filter(|(id, _)| found.logs.binary_search(id).is_ok());
        logged.try_for_each(|(_, path)| zklora_files::remove(path))?;
        Ok(found)
    }
}
