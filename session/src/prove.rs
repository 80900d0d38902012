//! Proving a session. Only rows that the ledger has are proven.

use zklora_artifacts::folder::Artifacts;
use zklora_proof::{keys::KeyStore, prover::Prover, srs::Srs, trace::Trace};

use crate::{
    Error,
    ledger::{self, LedgerIndex},
};

/// Proves a session that this adapter folder served.
///
/// # Errors
/// [`Error::NotServed`]: the ledger does not have exactly these rows. A contributor proves what it
/// computed, not what it is given. [`zklora_proof::Error::FalseTrace`]: the adapter computes other
/// deltas.
pub fn prove(
    artifacts: &Artifacts,
    trace: &Trace<'_>,
    srs: &Srs,
    keys: &KeyStore,
) -> Result<Vec<u8>, Error> {
    check_served(artifacts, &ledger::index(&artifacts.ledger())?, trace)?;
    prove_served(artifacts, trace, srs, keys)
}

/// Whether the folder's ledger has exactly these rows.
pub(crate) fn check_served(
    artifacts: &Artifacts,
    index: &LedgerIndex,
    trace: &Trace<'_>,
) -> Result<(), Error> {
    if ledger::was_served(index, trace.context(), trace.digest()) {
        return Ok(());
    }
    Err(Error::NotServed(format!(
        "these rows are not a session that {} served (see {}): prove a trace of `trace record` or \
         of a server of this folder",
        artifacts.folder.display(),
        artifacts.ledger().display()
    )))
}

/// Proves a trace that [`check_served`] accepted.
pub(crate) fn prove_served(
    artifacts: &Artifacts,
    trace: &Trace<'_>,
    srs: &Srs,
    keys: &KeyStore,
) -> Result<Vec<u8>, Error> {
    let prover = Prover {
        srs,
        keys,
        manifest: &artifacts.manifest,
        weights: &artifacts.weights,
        mask_key: &artifacts.mask_key,
    };
    Ok(prover.prove(trace)?)
}
