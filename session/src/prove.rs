//! Proving sessions: only rows that the ledger knows are proven.

use zklora_artifacts::folder::Artifacts;
use zklora_proof::{keys::KeyStore, prover::Prover, srs::Srs, trace::Trace};

use crate::{
    Error,
    ledger::{self, Book},
};

/// Proves a session that this adapter folder served.
///
/// # Errors
/// [`Error::NotServed`] if the ledger does not know exactly these rows: a contributor proves what
/// it computed, not what it is handed. [`zklora_proof::Error::FalseTrace`] if the rows are not what
/// the adapter computes.
pub fn prove(
    artifacts: &Artifacts,
    trace: &Trace<'_>,
    srs: &Srs,
    keys: &KeyStore,
) -> Result<Vec<u8>, Error> {
    check_served(artifacts, &ledger::book(&artifacts.ledger())?, trace)?;
    prove_served(artifacts, trace, srs, keys)
}

/// Whether the folder's ledger knows exactly these rows.
pub(crate) fn check_served(
    artifacts: &Artifacts,
    book: &Book,
    trace: &Trace<'_>,
) -> Result<(), Error> {
    if ledger::was_served(book, trace.context(), trace.digest()) {
        return Ok(());
    }
    Err(Error::NotServed(format!(
        "these rows are not a session that {} served (see {}): only what `trace record` or a \
         server computed is proven",
        artifacts.folder.display(),
        artifacts.ledger().display()
    )))
}

/// Proves a trace for which [`check_served`] said yes.
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
