//! Opening a session: a new one, or one whose log is in the folder.

use std::path::Path;

use zklora_files::Access;
use zklora_proof::masks::os_bytes;

use super::{
    in_flight::InFlight,
    log_index::{AnsweredBatches, LogIndex},
    log_writer::LogWriter,
    remote::Remote,
    user_session::{LOG, PROOF, Statistics, TRACE, UserSession},
};
use crate::{
    Error,
    batch::parse_answer,
    frame_log,
    session_log::{self, Header, SessionLog},
};

const PUBLIC: &str = "public";

impl UserSession {
    /// Opens a session in `folder`, or resumes the one whose log is there.
    ///
    /// # Errors
    /// [`Error::Artifact`]: the folder holds a finished session, one of another adapter, or a trace
    /// without its log. [`Error::Contributor`]: the contributor does not resume it.
    pub fn open(remote: Remote, folder: &Path) -> Result<UserSession, Error> {
        zklora_files::create_folder(folder, Access::Private)?;
        if folder.join(PROOF).exists() {
            return Err(Error::input(format!(
                "{} holds a finished session: name another folder",
                folder.display()
            )));
        }
        let path = folder.join(LOG);
        if path.exists() && frame_log::lacks_first_record(&path)? {
            // A process died while it created the log: nothing was sent.
            zklora_files::remove(&path)?;
        }
        if !path.exists() && folder.join(TRACE).exists() {
            // Without its log it cannot be resumed, and another session would overwrite the trace.
            return Err(Error::input(format!(
                "{} holds the trace of another session and no log: name another folder",
                folder.display()
            )));
        }
        let manifest = &remote.manifest;
        let mut answered = AnsweredBatches::default();
        let (log, id, key, index) = if path.exists() {
            let header = session_log::header(&path)?;
            check_header(&header, &remote, folder)?;
            let mut index = LogIndex::of(&path, manifest.modules().len())?;
            // One event after the other, because a session may be larger than memory.
            let (log, header) = SessionLog::open_with_offsets(&path, &mut |event, offset| {
                let Some((batch, answer)) = answered.next(&path, event)? else { return Ok(()) };
                let replay = || {
                    let deltas = parse_answer(&batch, &answer, manifest)?;
                    let outgoing = index.outgoing(batch, manifest)?;
                    index.add(&outgoing.batch, &outgoing.sets, &answer, deltas, offset)
                };
                replay().map(|_| ()).map_err(|why| Error::file(&path, why))
            })?;
            (log, header.session, zeroize::Zeroizing::new(header.key), index)
        } else {
            let (id, key) = (*os_bytes()?, zeroize::Zeroizing::new(*os_bytes()?));
            let header =
                Header::new(manifest.id().to_string(), remote.options.url.clone(), &id, &key);
            let log = SessionLog::create(&path, &header)?;
            (log, id, key, LogIndex::of(&path, manifest.modules().len())?)
        };
        let public = folder.join(PUBLIC);
        zklora_files::create_folder(&public, Access::Public)?;
        zklora_files::sweep(folder);
        zklora_files::sweep(&public);
        remote.write_public(&public)?;
        let mut in_flight = InFlight::new();
        for batch in answered.sent {
            let outgoing = index.outgoing(batch, manifest);
            in_flight.restore(outgoing.map_err(|why| Error::file(&path, why))?);
        }
        let resumed = index.rows();
        let mut session = UserSession {
            remote,
            folder: folder.to_path_buf(),
            id,
            key,
            log: LogWriter::start(log)?,
            index,
            in_flight,
            stream: None,
            is_silent: true,
            connected: false,
            ended: answered.ended,
            traced: None,
            statistics: Statistics::default(),
            resumed,
        };
        session.resolve_pending()?;
        Ok(session)
    }
}

/// Whether a log belongs to a session with this contributor.
fn check_header(header: &Header, remote: &Remote, folder: &Path) -> Result<(), Error> {
    let (adapter, url) = (remote.manifest.id(), &remote.options.url);
    if header.adapter_id != adapter.to_string() {
        return Err(Error::input(format!(
            "{} holds a session with adapter {}, this contributor serves {adapter}: name another \
             folder",
            folder.display(),
            header.adapter_id
        )));
    }
    if header.peer != *url && !remote.options.moved {
        return Err(Error::input(format!(
            "{} holds a session with {}, and this is {url}: name another folder, or pass --moved \
             if it is the same contributor",
            folder.display(),
            header.peer
        )));
    }
    Ok(())
}
