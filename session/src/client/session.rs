//! A session as its user lives it: every batch is on disk before it is sent, every answer when it
//! is here.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use zklora_artifacts::{module_rows::ModuleRows, session_rows::SessionRows};
use zklora_files::Access;
use zklora_proof::{masks::os_bytes, rows::MAX_ROWS};

use super::{
    exchange::Stream,
    known::{RowDigest, select},
    log_writer::LogWriter,
    record::{Outgoing, Pairs, Record, dims},
    remote::Remote,
};
use crate::{
    Error,
    batch::{parse_answer, to_wire},
    frame_log,
    session_log::{self, Event, Header, SessionLog},
    wire::{Batch, Call},
};

/// Names within a session's folder.
pub(super) const LOG: &str = "rows.log";
pub(super) const TRACE: &str = "trace.safetensors";
pub(super) const PROOF: &str = "session.pf";
const PUBLIC: &str = "public";

/// What a session cost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// Rows that were sent and answered.
    pub rows: usize,
    /// Rows that were answered from the own record.
    pub reused: usize,
    /// Bytes of batches.
    pub sent: u64,
    /// Bytes of answers.
    pub received: u64,
    /// Seconds of each call.
    pub seconds: Vec<f64>,
    /// Bytes of the batch and of the answer of each call.
    pub sizes: Vec<(usize, usize)>,
    /// How often the connection was made anew.
    pub reconnections: usize,
}

/// An open session with one contributor.
pub struct UserSession {
    pub(super) remote: Remote,
    pub(super) folder: PathBuf,
    pub(super) id: [u8; 32],
    pub(super) key: zeroize::Zeroizing<[u8; 32]>,
    pub(super) log: LogWriter,
    pub(super) record: Record,
    /// The batch that was sent and is not answered: it may have been counted, so nothing else goes
    /// before it.
    pub(super) pending: Option<Arc<Outgoing>>,
    pub(super) stream: Option<Stream>,
    /// Whether there was a stream before, so that the next one is a reconnection.
    pub(super) connected: bool,
    /// Whether the proof was asked for: no row can be added then.
    pub(super) ended: bool,
    /// How many batches the trace has that this process wrote.
    pub(super) traced: Option<u64>,
    /// What it cost so far.
    pub statistics: Statistics,
    /// Rows that were in the record when it was opened.
    pub resumed: usize,
}

impl UserSession {
    /// Opens a session whose record is kept in `folder`, or goes on with the one that is there.
    ///
    /// # Errors
    /// [`Error::Input`] if the folder holds a session that was finished, one of another adapter, or
    /// a trace without its log; [`Error::Contributor`] if the contributor does not go on with
    /// it.
    pub fn open(remote: Remote, folder: &Path) -> Result<UserSession, Error> {
        zklora_files::create_folder(folder, Access::Private)?;
        if folder.join(PROOF).exists() {
            return Err(Error::input(format!(
                "{} holds a finished session: name another folder",
                folder.display()
            )));
        }
        let path = folder.join(LOG);
        if path.exists() && frame_log::is_unborn(&path)? {
            // Its process died while it made the log: nothing was sent.
            zklora_files::remove(&path)?;
        }
        if !path.exists() && folder.join(TRACE).exists() {
            // Without its log it cannot go on, and another session would write over it.
            return Err(Error::input(format!(
                "{} holds the trace of another session and no log: name another folder",
                folder.display()
            )));
        }
        let manifest = &remote.manifest;
        let mut pairs = Pairs::default();
        let (log, id, key, record) = if path.exists() {
            let header = session_log::header(&path)?;
            check_header(&header, &remote, folder)?;
            let mut record = Record::of(&path, manifest.modules().len())?;
            // One event after the other: a session may be larger than the memory.
            let (log, header) = SessionLog::open_with_places(&path, &mut |event, place| {
                let Some((batch, answer)) = pairs.next(&path, event)? else { return Ok(()) };
                let replay = || {
                    let deltas = parse_answer(&batch, &answer, manifest)?;
                    record.remember(&record.outgoing(batch, manifest)?, &answer, deltas, place)
                };
                replay().map_err(|why| Error::file(&path, why))
            })?;
            let unreadable = || Error::file(&path, "its header is not one");
            let (id, key) = (
                header.session_id().ok_or_else(unreadable)?,
                header.key_bytes().ok_or_else(unreadable)?,
            );
            (log, id, zeroize::Zeroizing::new(key), record)
        } else {
            let (id, key) = (*os_bytes()?, zeroize::Zeroizing::new(*os_bytes()?));
            let header =
                Header::new(manifest.id().to_string(), remote.options.url.clone(), &id, &key);
            let log = SessionLog::create(&path, &header)?;
            (log, id, key, Record::of(&path, manifest.modules().len())?)
        };
        let public = folder.join(PUBLIC);
        zklora_files::create_folder(&public, Access::Public)?;
        zklora_files::sweep(folder);
        zklora_files::sweep(&public);
        remote.write_public(&public)?;
        let pending = pairs.sent.map(|batch| record.outgoing(batch, manifest).map(Arc::new));
        let pending = pending.transpose().map_err(|why| Error::file(&path, why))?;
        let resumed = record.rows();
        let mut session = UserSession {
            remote,
            folder: folder.to_path_buf(),
            id,
            key,
            log: LogWriter::start(log)?,
            record,
            pending,
            stream: None,
            connected: false,
            ended: pairs.ended,
            traced: None,
            statistics: Statistics::default(),
            resumed,
        };
        session.settle()?;
        Ok(session)
    }

    /// Where the contributor is.
    pub fn url(&self) -> &str {
        &self.remote.options.url
    }

    /// The contributor.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The session id.
    pub fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// Rows of all modules that were answered.
    pub fn rows(&self) -> usize {
        self.record.rows()
    }

    /// Rows of every module that were answered.
    pub fn rows_per_module(&self) -> Vec<usize> {
        self.record.rows_per_module()
    }

    /// The deltas of rows for some modules, `[N, d_out]` each. Calls that share their rows (the
    /// same `Arc`) send them once; rows that were answered before are not sent.
    ///
    /// # Errors
    /// [`Error::Contributor`] says what the contributor did not do. What was answered until then is
    /// on disk.
    pub fn deltas(&mut self, calls: &[(usize, Arc<ModuleRows>)]) -> Result<Vec<Vec<i64>>, Error> {
        self.settle()?;
        let mut known: Vec<(*const ModuleRows, Arc<Vec<RowDigest>>)> = Vec::new();
        let digests: Vec<Arc<Vec<RowDigest>>> = calls
            .iter()
            .map(|(module, rows)| {
                let same = known.iter().find(|(other, _)| std::ptr::eq(*other, Arc::as_ptr(rows)));
                let digests = same.map(|(_, digests)| Arc::clone(digests));
                digests.unwrap_or_else(|| {
                    let digests =
                        Arc::new(self.record.digests(rows, &dims(&self.remote.manifest, *module)));
                    known.push((Arc::as_ptr(rows), Arc::clone(&digests)));
                    digests
                })
            })
            .collect();
        for mut outgoing in self.batches(calls, &digests) {
            if self.ended {
                return Err(Error::input(format!(
                    "{}: the proof of this session was asked for already, and it has not these rows: run what you ran before, or name \
                     another folder",
                    self.folder.display()
                )));
            }
            if !self.record.has_room_for(&outgoing) {
                return Err(Error::input(format!(
                    "{}: a session cannot have more than {MAX_ROWS} rows of a module: end it, and begin another one",
                    self.folder.display()
                )));
            }
            outgoing.batch.sequence = self.record.next;
            self.log.append(Event::Sent(outgoing.batch.clone()))?;
            let outgoing = Arc::new(outgoing);
            self.pending = Some(Arc::clone(&outgoing));
            self.exchange(&outgoing)?;
        }
        let mut out = Vec::with_capacity(calls.len());
        for ((module, _), digests) in calls.iter().zip(&digests) {
            let width = self.remote.manifest.modules()[*module].d_out;
            // Every row was known or has just been answered.
            let delta = self.record.deltas(&self.log, *module, width, digests)?;
            out.push(delta.ok_or_else(|| self.failed("a row was not answered"))?);
        }
        Ok(out)
    }

    pub(super) fn failed(&self, why: impl Into<String>) -> Error {
        Error::Contributor { url: self.remote.options.url.clone(), why: why.into() }
    }

    /// What has to be sent, in batches that fit the contributor's limits.
    fn batches(
        &mut self,
        calls: &[(usize, Arc<ModuleRows>)],
        digests: &[Arc<Vec<RowDigest>>],
    ) -> Vec<Outgoing> {
        // Calls by the rows that they share.
        let mut sets: Vec<(Vec<usize>, usize)> = Vec::new();
        for (at, (module, rows)) in calls.iter().enumerate() {
            match sets.iter_mut().find(|(_, first)| Arc::ptr_eq(&calls[*first].1, rows)) {
                Some((modules, _)) => modules.push(*module),
                None => sets.push((vec![*module], at)),
            }
        }
        let mut batches: Vec<Outgoing> = Vec::new();
        let mut room = 0usize;
        for (modules, first) in sets {
            let (rows, digests) = (&calls[first].1, &digests[first]);
            let mut seen = std::collections::HashSet::new();
            let unknown = |digest: &RowDigest| {
                modules.iter().any(|m| self.record.of_module(*m).row(digest).is_none())
            };
            let missing: Vec<usize> = (0..digests.len())
                .filter(|row| unknown(&digests[*row]) && seen.insert(digests[*row]))
                .collect();
            self.statistics.reused += (digests.len() - missing.len()) * modules.len();
            let dims = dims(&self.remote.manifest, modules[0]);
            let outputs: usize =
                modules.iter().map(|m| self.remote.manifest.modules()[*m].d_out * 8).sum();
            let row_bytes = outputs.max(dims.iter().sum::<usize>() * 4 + 16).max(1);
            // A tenth is left for what surrounds the numbers.
            let most = self.remote.message_bytes() / 10 * 9;
            let per_batch = (most / row_bytes).clamp(1, self.remote.batch_rows());
            for chunk in missing.chunks(per_batch) {
                let bytes = chunk.len() * row_bytes;
                if batches.is_empty() || bytes > room {
                    batches.push(Outgoing { batch: Batch::default(), sets: Vec::new() });
                    room = most;
                }
                room = room.saturating_sub(bytes);
                let Some(Outgoing { batch, sets }) = batches.last_mut() else { continue };
                let set = batch.rows.len() as u32;
                let chosen = select(rows, &dims, chunk);
                batch.rows.push(to_wire(&chosen));
                sets.push((chosen, chunk.iter().map(|row| digests[*row]).collect()));
                batch.calls.extend(
                    modules.iter().map(|module| Call { module: *module as u32, rows: set }),
                );
                if chunk.len() == per_batch {
                    // The next chunk of these modules needs a batch of its own: a module is called
                    // once in each.
                    room = 0;
                }
            }
        }
        batches
    }

    /// From now on a contributor that has gone away is not waited for.
    pub fn lose_patience(&mut self) {
        self.remote.lose_patience();
    }

    /// The own record as a trace, in memory.
    ///
    /// # Errors
    /// [`Error::File`]: the record cannot be read.
    pub fn trace(&self) -> Result<SessionRows, Error> {
        if !self.folder.join(LOG).exists() {
            // It is finished.
            return Ok(SessionRows::read(&self.folder.join(TRACE), &self.remote.manifest)?);
        }
        self.log.flush()?;
        self.record.trace(self.id, &self.remote.manifest)
    }
}

/// Whether a log is of a session with this contributor.
fn check_header(header: &Header, remote: &Remote, folder: &Path) -> Result<(), Error> {
    let (adapter, url) = (remote.manifest.id(), &remote.options.url);
    if header.adapter_id != adapter.to_string() {
        return Err(Error::input(format!(
            "{} holds a session with adapter {}, this contributor serves {adapter}: name another folder",
            folder.display(),
            header.adapter_id
        )));
    }
    if header.peer != *url && !remote.options.moved {
        return Err(Error::input(format!(
            "{} holds a session with {}, and this is {url}: name another folder, or pass --moved if it is the same contributor",
            folder.display(),
            header.peer
        )));
    }
    Ok(())
}
