//! The statement of a session: the values that both parties know before the first message
//! (docs/protocol.md, "Statement").

use std::sync::Arc;

use crate::{
    Error, PROTOCOL_VERSION,
    checked_manifest::CheckedManifest,
    field::F,
    keys::{KeyStore, Keys},
    manifest::AdapterId,
    srs::Srs,
    trace::{Trace, TraceDigest},
};

/// The values that the transcript absorbs first.
#[derive(Debug, Clone)]
pub struct Statement {
    /// [`crate::PROTOCOL_VERSION`].
    pub version: u32,
    /// [`crate::srs::Srs::digest`].
    pub srs_digest: [u8; 32],
    /// The verifying key's digest, as the library's transcripts absorb it.
    pub vk: F,
    /// Canonical settings.
    pub settings: Vec<u8>,
    /// The adapter id.
    pub adapter: AdapterId,
    /// The digest of the rows.
    pub trace: TraceDigest,
    /// The session context: the user's 32 bytes.
    pub context: [u8; 32],
}

impl Statement {
    /// The statement of a session, and the keys of its circuit. Everything comes from the caller's
    /// own side. This is where both parties check that SRS, manifest and trace belong together.
    ///
    /// # Errors
    /// [`Error::SrsMismatch`] if the manifest was made for another SRS; [`Error::Trace`] if the
    /// trace was checked against another adapter.
    pub(crate) fn of(
        srs: &Srs,
        keys: &KeyStore,
        manifest: &CheckedManifest,
        trace: &Trace<'_>,
    ) -> Result<(Statement, Arc<Keys>), Error> {
        let srs = manifest.parameters(srs)?;
        // The shapes of another manifest would cut the same integers into other rows.
        if trace.adapter() != manifest.id() {
            return Err(Error::Trace(format!(
                "it was checked against adapter {}, not {}",
                trace.adapter(),
                manifest.id()
            )));
        }
        let keys = keys.get(srs, manifest.layout())?;
        let statement = Statement {
            version: PROTOCOL_VERSION,
            srs_digest: srs.digest(),
            vk: keys.fingerprint(),
            settings: manifest.settings().to_bytes()?,
            adapter: manifest.id(),
            trace: trace.digest(),
            context: *trace.context(),
        };
        Ok((statement, keys))
    }
}
