//! The proof of a session, read from the disk for its user.

use tonic::Status;
use zklora_artifacts::verify::MAX_PROOF;
use zklora_files::Access;

use super::{refusals::used_before, session::Session};
use crate::session_files;

impl Session {
    /// Reads the proof, which is about to be sent. The first call leaves a marker beside it, which
    /// `zklora sessions prune` looks for.
    pub fn fetch_proof(&self) -> Result<Vec<u8>, Status> {
        let proof = zklora_files::read(&self.proof_path(), MAX_PROOF).map_err(|error| {
            if !self.log_path().exists() {
                // The operator has just removed its files.
                return used_before();
            }
            tracing::error!(session = self.name(), "{error}");
            Status::internal(
                "this server cannot read its proof: its operator finds the reason in the server's \
                 log",
            )
        })?;
        let marker = session_files::fetched_path(self.folder(), &self.id);
        if !marker.exists()
            && let Err(error) = zklora_files::write(&marker, &[], Access::Private)
        {
            tracing::warn!(
                session = self.name(),
                "the proof was fetched, but the marker of that cannot be written: {error}"
            );
        }
        Ok(proof)
    }
}
