//! A session as its user lives it: every batch is on disk before it is sent, every answer when it is here.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use zklora_circuit::{
    keys::KeyStore,
    masks::os_bytes,
    srs::Srs,
    trace::TraceDigest,
    verifier::{SrsPolicy, Verdict},
};

use super::{
    known::{Record, RowDigest, digests as digests_of, select},
    log_writer::LogWriter,
    remote::Remote,
};
use crate::{
    Error,
    batch::{parse, parse_answer, to_wire},
    files::{self, Access},
    frame_log, session as proofs,
    session_log::{self, Event, Header, SessionLog},
    trace_file::{ModuleRows, TraceFile},
    wire::{
        Batch, Call, FetchProofRequest, FinishRequest, InferRequest, InferResponse, OpenSessionRequest, ProofStage,
        SessionRef, SessionState, infer_request::Kind,
    },
};

/// Names within a session's folder.
const LOG: &str = "rows.log";
const TRACE: &str = "trace.safetensors";
const PROOF: &str = "session.pf";
const PUBLIC: &str = "public";

/// How long to wait before a contributor that has gone away is asked again: doubled every time, up to two seconds.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

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

/// How far the proof is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It waits for this many others.
    Queued(u32),
    /// It is being made.
    Proving,
    /// It is here and being verified.
    Verifying,
}

/// A session that was proven and verified.
#[derive(Debug, Clone)]
pub struct Finished {
    /// What the verifier said.
    pub verdict: Verdict,
    /// Bytes of the proof.
    pub proof_bytes: usize,
    /// From the request to the proof being here.
    pub proof_time: Duration,
    /// Of the verification.
    pub verify_time: Duration,
}

/// A batch with the rows that it was made of.
struct Outgoing {
    batch: Batch,
    /// The batch's sets of rows, and the digest of each row.
    sets: Vec<(Arc<ModuleRows>, Vec<RowDigest>)>,
}

struct Stream {
    batches: mpsc::Sender<InferRequest>,
    answers: Streaming<InferResponse>,
}

/// An open session with one contributor.
pub struct UserSession {
    remote: Remote,
    folder: PathBuf,
    id: [u8; 32],
    key: zeroize::Zeroizing<[u8; 32]>,
    log: LogWriter,
    records: Vec<Record>,
    next: u64,
    /// The batch that was sent and is not answered: it may have been counted, so nothing else goes before it.
    pending: Option<Arc<Outgoing>>,
    stream: Option<Stream>,
    /// Whether there was a stream before, so that the next one is a reconnection.
    connected: bool,
    /// Whether the proof was asked for: no row can be added then.
    ended: bool,
    /// What it cost so far.
    pub statistics: Statistics,
    /// Rows that were in the record when it was opened.
    pub resumed: usize,
}

impl UserSession {
    /// Opens a session whose record is kept in `folder`, or goes on with the one that is there.
    ///
    /// # Errors
    /// [`Error::Input`] if the folder holds a session that was finished or one of another adapter; [`Error::Contributor`] if the contributor
    /// does not go on with it.
    pub fn open(remote: Remote, folder: &Path) -> Result<UserSession, Error> {
        files::create_folder(folder, Access::Private)?;
        if folder.join(PROOF).exists() {
            return Err(Error::Input(format!("{} holds a finished session: name another folder", folder.display())));
        }
        remote.write_public(&folder.join(PUBLIC))?;
        let path = folder.join(LOG);
        if path.exists() && frame_log::is_unborn(&path)? {
            // Its process died while it made the log: nothing was sent.
            files::remove(&path)?;
        }
        let adapter = remote.pinned.id();
        let records = remote.pinned.modules().iter().map(|_| Record::default()).collect();
        let (log, id, key, events) = if path.exists() {
            let mut events = Vec::new();
            let (log, header) = SessionLog::open(&path, &mut |event| {
                events.push(event);
                Ok(())
            })?;
            if header.adapter_id != adapter.to_string() {
                return Err(Error::Input(format!(
                    "{} holds a session with adapter {}, this contributor serves {adapter}: name another folder",
                    folder.display(),
                    header.adapter_id
                )));
            }
            if header.peer != remote.options.url && !remote.options.moved {
                return Err(Error::Input(format!(
                    "{} holds a session with {}, and this is {}: name another folder, or pass --moved if it is the same contributor",
                    folder.display(),
                    header.peer,
                    remote.options.url
                )));
            }
            let unreadable = || Error::file(&path, "its header is not one");
            let (id, key) = (header.session_id().ok_or_else(unreadable)?, header.key_bytes().ok_or_else(unreadable)?);
            (log, id, zeroize::Zeroizing::new(key), events)
        } else {
            let (id, key) = (*os_bytes()?, zeroize::Zeroizing::new(*os_bytes()?));
            let header = Header::new(adapter.to_string(), remote.options.url.clone(), &id, &key);
            (SessionLog::create(&path, &header)?, id, key, Vec::new())
        };
        let mut session = UserSession {
            remote,
            folder: folder.to_path_buf(),
            id,
            key,
            log: LogWriter::start(log)?,
            records,
            next: 0,
            pending: None,
            stream: None,
            connected: false,
            ended: false,
            statistics: Statistics::default(),
            resumed: 0,
        };
        for event in events {
            match (event, session.pending.take()) {
                (Event::Sent(batch), None) => {
                    let again = session.outgoing(batch).map_err(|why| Error::file(&path, why))?;
                    session.pending = Some(Arc::new(again));
                }
                (Event::Answered(answer), Some(sent)) => {
                    let deltas = parse_answer(&sent.batch, &answer, &session.remote.pinned);
                    session.remember(&sent, deltas.map_err(|why| Error::file(&path, why))?)?;
                }
                (Event::Withdrawn, Some(_)) => {}
                (Event::Ended, None) => session.ended = true,
                _ => return Err(Error::file(&path, "its events are not those of a user's session")),
            }
        }
        session.resumed = session.rows();
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
        self.records.iter().map(Record::rows).sum()
    }

    /// Rows of every module that were answered.
    pub fn rows_per_module(&self) -> Vec<usize> {
        self.records.iter().map(Record::rows).collect()
    }

    /// The deltas of rows for some modules, `[N, d_out]` each. Calls that share their rows (the same `Arc`) send them once; rows that were
    /// answered before are not sent.
    ///
    /// # Errors
    /// [`Error::Contributor`] says what the contributor did not do. What was answered until then is on disk.
    pub fn deltas(&mut self, calls: &[(usize, Arc<ModuleRows>)]) -> Result<Vec<Vec<i64>>, Error> {
        self.settle()?;
        let mut known: Vec<(*const ModuleRows, Arc<Vec<RowDigest>>)> = Vec::new();
        let digests: Vec<Arc<Vec<RowDigest>>> = calls
            .iter()
            .map(|(module, rows)| {
                let same = known.iter().find(|(other, _)| std::ptr::eq(*other, Arc::as_ptr(rows)));
                let digests = same.map(|(_, digests)| Arc::clone(digests));
                digests.unwrap_or_else(|| {
                    let digests = Arc::new(digests_of(rows, &self.dims(*module)));
                    known.push((Arc::as_ptr(rows), Arc::clone(&digests)));
                    digests
                })
            })
            .collect();
        for mut outgoing in self.batches(calls, &digests) {
            if self.ended {
                return Err(Error::Input(format!(
                    "{}: the proof of this session was asked for already, and it has not these rows: run what you ran before, or name \
                     another folder",
                    self.folder.display()
                )));
            }
            outgoing.batch.sequence = self.next;
            self.log.append(Event::Sent(outgoing.batch.clone()))?;
            let outgoing = Arc::new(outgoing);
            self.pending = Some(Arc::clone(&outgoing));
            self.exchange(&outgoing)?;
        }
        let mut out = Vec::with_capacity(calls.len());
        for ((module, rows), digests) in calls.iter().zip(&digests) {
            let width = self.remote.pinned.modules()[*module].d_out;
            let record = &self.records[*module];
            let mut delta = Vec::with_capacity(rows.scales.len() * width);
            for digest in digests.iter() {
                // Every row was known or has just been answered.
                let at = record.place(digest).ok_or_else(|| self.failed("a row was not answered"))?;
                delta.extend_from_slice(record.delta(at, width));
            }
            out.push(delta);
        }
        Ok(out)
    }

    fn dims(&self, module: usize) -> Vec<usize> {
        self.remote.pinned.modules()[module].inputs.iter().map(|input| input.dim).collect()
    }

    fn failed(&self, why: impl Into<String>) -> Error {
        Error::Contributor { url: self.remote.options.url.clone(), why: why.into() }
    }

    /// What has to be sent, in batches that fit the contributor's limits.
    fn batches(&mut self, calls: &[(usize, Arc<ModuleRows>)], digests: &[Arc<Vec<RowDigest>>]) -> Vec<Outgoing> {
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
            let unknown = |digest: &RowDigest| modules.iter().any(|m| self.records[*m].place(digest).is_none());
            let missing: Vec<usize> =
                (0..digests.len()).filter(|row| unknown(&digests[*row]) && seen.insert(digests[*row])).collect();
            self.statistics.reused += (digests.len() - missing.len()) * modules.len();
            let dims = self.dims(modules[0]);
            let outputs: usize = modules.iter().map(|m| self.remote.pinned.modules()[*m].d_out * 8).sum();
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
                batch.calls.extend(modules.iter().map(|module| Call { module: *module as u32, rows: set }));
                if chunk.len() == per_batch {
                    // The next chunk of these modules needs a batch of its own: a module is called once in each.
                    room = 0;
                }
            }
        }
        batches
    }

    /// Gets the answer to a batch of before, or the word that it was not counted.
    fn settle(&mut self) -> Result<(), Error> {
        let Some(outgoing) = self.pending.clone() else { return Ok(()) };
        match self.exchange(&outgoing) {
            // Refused: the session goes on without it.
            Err(_) if self.pending.is_none() => Ok(()),
            done => done,
        }
    }

    /// Sends a batch that is in the log, whatever happens to the connection, and remembers its answer.
    fn exchange(&mut self, outgoing: &Outgoing) -> Result<(), Error> {
        let batch = &outgoing.batch;
        let start = Instant::now();
        let answer = self.insist(|session| session.send(batch))?;
        let deltas_bytes: usize = answer.deltas.iter().map(bytes::Bytes::len).sum();
        // Held to the manifest before it is kept.
        let deltas = parse_answer(batch, &answer, &self.remote.pinned).map_err(|why| self.failed(why))?;
        // Should it be lost, the same batch is sent again, and answered with the same deltas.
        self.log.append_later(Event::Answered(answer));
        self.pending = None;
        self.remember(outgoing, deltas)?;
        self.statistics.seconds.push(start.elapsed().as_secs_f64());
        let inputs = batch.rows.iter().flat_map(|rows| rows.inputs.iter().chain([&rows.ones, &rows.scales]));
        let sent = inputs.map(|bytes| bytes.len()).sum::<usize>();
        self.statistics.sizes.push((sent, deltas_bytes));
        self.statistics.received += deltas_bytes as u64;
        self.statistics.sent += sent as u64;
        self.statistics.rows += batch.counts().map(|(_, rows)| rows as usize).sum::<usize>();
        Ok(())
    }

    /// A batch of the log, with its rows.
    fn outgoing(&self, batch: Batch) -> Result<Outgoing, String> {
        let calls = parse(&batch, &self.remote.pinned)?;
        let mut sets: Vec<Option<(Arc<ModuleRows>, Vec<RowDigest>)>> = vec![None; batch.rows.len()];
        for (call, on_wire) in calls.iter().zip(&batch.calls) {
            // Every set is read by a call: `parse` sees to it.
            sets[on_wire.rows as usize]
                .get_or_insert_with(|| (Arc::clone(&call.rows), digests_of(&call.rows, &self.dims(call.module))));
        }
        Ok(Outgoing { batch, sets: sets.into_iter().flatten().collect() })
    }

    fn remember(&mut self, Outgoing { batch, sets }: &Outgoing, deltas: Vec<Vec<i64>>) -> Result<(), Error> {
        if batch.sequence != self.next {
            return Err(self.failed(format!("batch {} is recorded where {} is next", batch.sequence, self.next)));
        }
        for (call, delta) in batch.calls.iter().zip(deltas) {
            let (rows, digests) = &sets[call.rows as usize];
            self.records[call.module as usize].push(Arc::clone(rows), digests, delta);
        }
        self.next += 1;
        Ok(())
    }

    /// Tries again while the contributor is away, up to the patience of the options.
    fn insist<T>(&mut self, mut attempt: impl FnMut(&mut UserSession) -> Result<T, Trouble>) -> Result<T, Error> {
        let start = Instant::now();
        let mut wait = FIRST_WAIT;
        loop {
            let status = match attempt(self) {
                Ok(done) => return Ok(done),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Status(status)) => status,
            };
            self.stream = None;
            if !is_temporary(&status) {
                return Err(Error::status(&self.remote.options.url, &status));
            }
            if start.elapsed() >= self.remote.options.patience {
                let why = Error::status(&self.remote.options.url, &status);
                let waited = self.remote.options.patience.as_secs();
                return Err(self.failed(format!(
                    "gone for more than {waited} s; the session is kept: run the same command again to go on ({why})"
                )));
            }
            std::thread::sleep(wait);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    fn send(&mut self, batch: &Batch) -> Result<InferResponse, Trouble> {
        let opened_now = self.stream.is_none();
        if opened_now {
            self.connect(batch.sequence)?;
        }
        let Some(stream) = &mut self.stream else { return Err(Status::unavailable("no stream").into()) };
        let timeout = self.remote.options.call_timeout;
        self.remote.network.wait(call(stream, batch, timeout)).map_err(|status| {
            if is_refusal(&status) {
                if let Err(error) = self.log.append(Event::Withdrawn) {
                    return Trouble::Final(error);
                }
                self.pending = None;
            }
            // It knew the session a moment ago: one without rows may be forgotten before its first one comes.
            if opened_now && status.code() == Code::PermissionDenied {
                return Status::unavailable(status.message()).into();
            }
            Trouble::Status(status)
        })
    }

    /// Opens the session again and starts a stream; what the contributor has lost is sent again.
    fn connect(&mut self, sequence: u64) -> Result<(), Trouble> {
        let timeout = self.remote.options.call_timeout;
        let (state, theirs) = self.open_again()?;
        let session = self.reference();
        let mut client = self.remote.client.clone();
        let mut stream = self.remote.network.wait(async {
            let (batches, outgoing) = mpsc::channel(1);
            let start = InferRequest { kind: Some(Kind::Start(session)) };
            // There is room for one.
            let _ = batches.try_send(start);
            let answers = in_time(timeout, client.infer(ReceiverStream::new(outgoing))).await?.into_inner();
            Ok::<_, Status>(Stream { batches, answers })
        })?;
        if state != SessionState::Open {
            return Err(Trouble::Final(self.failed("it says that this session has ended, which you did not ask for")));
        }
        if theirs > sequence + 1 {
            return Err(Trouble::Final(self.failed(format!(
                "it has {theirs} batches of this session, you have {sequence}: somebody else goes on with it; begin a new session"
            ))));
        }
        if theirs < sequence {
            self.send_again(&mut stream, theirs, sequence)?;
        }
        self.statistics.reconnections += usize::from(self.connected);
        self.connected = true;
        self.stream = Some(stream);
        Ok(())
    }

    /// How far the session is at the contributor's; it is opened there if it is not known.
    fn open_again(&mut self) -> Result<(SessionState, u64), Trouble> {
        let adapter_id = bytes::Bytes::copy_from_slice(&self.remote.pinned.id().0);
        let request = OpenSessionRequest { session: Some(self.reference()), adapter_id };
        let mut client = self.remote.client.clone();
        let opened = in_time(self.remote.options.call_timeout, client.open_session(request));
        let opened = self.remote.network.wait(opened)?.into_inner();
        Ok((opened.state(), opened.next_sequence))
    }

    /// The contributor lost the end of its log (its machine died): it computes those batches again, to the same deltas.
    fn send_again(&mut self, stream: &mut Stream, from: u64, to: u64) -> Result<(), Trouble> {
        let mut lost = Vec::new();
        let read = session_log::read(&self.folder.join(LOG), &mut |event| {
            match event {
                Event::Sent(batch) if (from..to).contains(&batch.sequence) => lost.push((batch, None)),
                Event::Answered(answer) if (from..to).contains(&answer.sequence) => {
                    if let Some((_, known)) = lost.last_mut() {
                        *known = Some(answer);
                    }
                }
                _ => {}
            }
            Ok(())
        });
        read.map_err(Trouble::Final)?;
        for (batch, known) in lost {
            let answer = self.remote.network.wait(call(stream, &batch, self.remote.options.call_timeout))?;
            if known.is_some_and(|known| known != answer) {
                return Err(Trouble::Final(self.failed(format!(
                    "batch {}: it answers the same rows with other deltas than before: it will not prove what it said",
                    batch.sequence
                ))));
            }
        }
        Ok(())
    }

    fn reference(&self) -> SessionRef {
        let copy = bytes::Bytes::copy_from_slice;
        SessionRef { id: copy(&self.id), key: copy(&self.key[..]) }
    }

    /// From now on a contributor that has gone away is not waited for.
    pub fn lose_patience(&mut self) {
        self.remote.options.patience = Duration::ZERO;
    }

    /// The own record as a trace.
    pub fn trace(&self) -> TraceFile {
        let known = self.records.iter().zip(self.remote.pinned.modules());
        let modules = known.map(|(record, module)| record.collect(module)).collect();
        TraceFile { adapter: self.remote.pinned.id(), session: self.id, modules }
    }

    /// Ends the session: writes the own trace, asks for the proof, and verifies it. The folder then holds all that `zklora verify` needs.
    ///
    /// # Errors
    /// [`Error::Proof`] or [`Error::NotYours`]: the answer is no. [`Error::Contributor`]: there is no proof; the same call can be tried again.
    pub fn finish(
        &mut self,
        srs: &Srs,
        keys: &KeyStore,
        policy: SrsPolicy,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Finished, Error> {
        self.settle()?;
        self.stream = None;
        if !self.ended {
            self.log.append(Event::Ended)?;
            self.ended = true;
        }
        self.log.sync()?;
        let trace = self.trace();
        trace.write(&self.folder.join(TRACE), &self.remote.pinned)?;
        let own = trace.with_trace(&self.remote.pinned, |rows| Ok(rows.digest()))?;
        let start = Instant::now();
        let deadline = tokio::time::Instant::now() + self.remote.options.proof_timeout;
        let proof = self.insist(|session| session.proof(own, deadline, progress))?;
        let proof_time = start.elapsed();
        progress(Progress::Verifying);
        let start = Instant::now();
        let verdict = trace.with_trace(&self.remote.pinned, |rows| {
            proofs::verify(&self.remote.pinned, rows, &proof, srs, keys, policy)
        })?;
        let verify_time = start.elapsed();
        files::write(&self.folder.join(PROOF), &proof, Access::Public)?;
        files::remove(&self.folder.join(LOG))?;
        Ok(Finished { verdict, proof_bytes: proof.len(), proof_time, verify_time })
    }

    fn proof(
        &mut self,
        own: TraceDigest,
        deadline: tokio::time::Instant,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<bytes::Bytes, Trouble> {
        let (session, sequence, timeout) = (self.reference(), self.next, self.remote.options.call_timeout);
        // A contributor whose machine died may have lost what it answered.
        if let (SessionState::Open, theirs) = self.open_again()?
            && theirs < sequence
        {
            self.connect(sequence)?;
            self.stream = None;
        }
        let mut client = self.remote.client.clone();
        let made = async {
            let request = FinishRequest { session: Some(session.clone()), sequence };
            let mut stages = in_time(timeout, client.finish(request)).await?.into_inner();
            let digest = loop {
                let stage = in_time(timeout, stages.message()).await?;
                let stage = stage.ok_or_else(|| Status::unavailable("it stopped telling how far the proof is"))?;
                match stage.stage() {
                    ProofStage::Queued => progress(Progress::Queued(stage.ahead)),
                    ProofStage::Done => break stage.trace_digest,
                    _ => progress(Progress::Proving),
                }
            };
            let fetched = in_time(timeout, client.fetch_proof(FetchProofRequest { session: Some(session) })).await?;
            Ok::<_, Status>((digest, fetched.into_inner().proof))
        };
        let Ok(made) = self.remote.network.wait(async { tokio::time::timeout_at(deadline, made).await }) else {
            return Err(Trouble::Final(self.failed(format!(
                "no proof within {} s; the session is kept: run the same command again to wait longer",
                self.remote.options.proof_timeout.as_secs()
            ))));
        };
        let (digest, proof) = made?;
        if digest[..] != own.0 {
            return Err(Trouble::Final(Error::NotYours(format!(
                "{}: it proves other rows than you have: its digest of the session is {}, yours {}",
                self.remote.options.url,
                hex::encode(&digest[..digest.len().min(32)]),
                hex::encode(own.0)
            ))));
        }
        Ok(proof)
    }
}

/// Why something did not work: what the contributor (or the network) said, or what no repetition helps against.
enum Trouble {
    Status(Status),
    Final(Error),
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Trouble {
        Trouble::Status(status)
    }
}

/// Whether the contributor may be back, and answer, a little later.
fn is_temporary(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => true,
        // A connection that broke in the middle of a message; a server says `internal` itself only in answers without a cause.
        Code::Internal => std::error::Error::source(status).is_some() || status.message().contains("h2 "),
        _ => false,
    }
}

/// Whether the contributor says of a batch that it is not served, and so not counted: its limits do not allow it. What the
/// connection itself reports has a cause.
fn is_refusal(status: &Status) -> bool {
    let refused = matches!(status.code(), Code::ResourceExhausted | Code::InvalidArgument);
    refused && std::error::Error::source(status).is_none()
}

async fn in_time<T>(timeout: Duration, request: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(timeout, request)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {} s", timeout.as_secs_f64()))))
}

async fn call(stream: &mut Stream, batch: &Batch, timeout: Duration) -> Result<InferResponse, Status> {
    in_time(timeout, async {
        let request = InferRequest { kind: Some(Kind::Batch(batch.clone())) };
        if stream.batches.send(request).await.is_err() {
            // The answer side says why the stream ended.
            return match stream.answers.message().await {
                Err(status) => Err(status),
                Ok(_) => Err(Status::unavailable("it ended the stream")),
            };
        }
        let answer = stream.answers.message().await?;
        answer.ok_or_else(|| Status::unavailable("it ended the stream"))
    })
    .await
}
