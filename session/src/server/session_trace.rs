//! The trace of a session, written from its log.

use std::path::Path;

use zklora_artifacts::trace_writer::TraceWriter;

use super::session::Session;
use crate::{
    Error,
    adapter::ServedAdapter,
    batch::{self, answer_digest},
    ledger::Rows,
    session_log::{self, Event},
};

impl Session {
    /// Writes the rows of the log and their deltas into a trace, batch by batch, so that memory is
    /// needed for one. Deltas are computed again and checked against the digests of the answers
    /// that were sent. Returns the rows of each module that has any.
    pub fn write_trace(&self, adapter: &ServedAdapter, out: &Path) -> Result<Rows, Error> {
        let (path, manifest) = (self.log_path(), &adapter.manifest);
        let modules = manifest.modules();
        let contents = session_log::contents(&path, modules.len())?;
        if contents.header.adapter_id != manifest.id().to_string() {
            let why = format!(
                "a session of adapter {}, but this server serves another",
                contents.header.adapter_id
            );
            return Err(Error::file(&path, why));
        }
        let too_many = |_| Error::file(&path, "more rows than this machine can address");
        let counts = contents.rows.iter().map(|rows| usize::try_from(*rows).map_err(too_many));
        let counts = counts.collect::<Result<Vec<_>, _>>()?;
        let mut trace = TraceWriter::create(out, manifest.id(), self.id, modules, &counts)?;
        session_log::read(&path, &mut |event| {
            let Event::Served { answer: digest, batch } = event else { return Ok(()) };
            let calls = batch::parse(&batch, manifest).map_err(|why| Error::file(&path, why))?;
            let deltas = adapter.compute_calls(&calls);
            if answer_digest(batch.sequence, &deltas) != digest {
                return Err(Error::file(
                    &path,
                    format!(
                        "batch {}: the adapter computes other deltas than those that were sent",
                        batch.sequence
                    ),
                ));
            }
            calls
                .iter()
                .zip(deltas)
                .try_for_each(|(call, delta)| Ok(trace.push(call.module, &call.rows, &delta)?))
        })?;
        trace.finish()?;
        let named = modules.iter().map(|module| module.name.clone()).zip(contents.rows);
        Ok(named.filter(|(_, rows)| *rows > 0).collect())
    }
}
