//! Proving and verifying recorded sessions.

use zklora_proof::{
    checked_manifest::CheckedManifest,
    keys::KeyStore,
    prover::Prover,
    srs::Srs,
    trace::Trace,
    verifier::{self, SrsPolicy, Verdict},
};

use crate::{
    Error,
    artifacts::Artifacts,
    ledger::{self, Book},
};

/// Longest proof file that is read, in bytes.
pub const MAX_PROOF: u64 = 1 << 24;

/// Proves a session that this adapter folder served.
///
/// # Errors
/// [`Error::NotServed`] if the ledger does not know exactly these rows: a contributor proves what
/// it computed, not what it is handed. [`zklora_proof::Error::FalseTrace`] if the rows are not
/// what the adapter computes.
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
        "these rows are not a session that {} served (see {}): only what `trace record` or a server computed is proven",
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
        manifest: &artifacts.pinned,
        weights: &artifacts.weights,
        mask_key: &artifacts.mask_key,
    };
    Ok(prover.prove(trace)?)
}

/// Verifies a proof against the user's own record of the session.
pub fn verify(
    pinned: &CheckedManifest,
    trace: &Trace<'_>,
    proof: &[u8],
    srs: &Srs,
    keys: &KeyStore,
    policy: SrsPolicy,
) -> Result<Verdict, Error> {
    Ok(verifier::verify(srs, keys, pinned, trace, proof, policy)?)
}
