//! Verifies a session: the proof, and that the session is the user's own.

use zklora_proof::{
    checked_manifest::CheckedManifest,
    keys::KeyStore,
    srs::Srs,
    trace::Trace,
    verifier::{self, SrsPolicy, Verdict},
};

use crate::{Error, own_session::OwnSession};

/// Longest proof file that is read, in bytes.
pub const MAX_PROOF: u64 = 1 << 24;

/// Verifies a proof of a session. `expected` is what the user knows about the session without the
/// trace. Every front end verifies through this function, so that none skips that comparison.
///
/// # Errors
/// [`Error::NotYours`] if the trace has another session id or other activations. [`Error::Proof`]
/// if the proof does not verify.
pub fn verify(
    manifest: &CheckedManifest,
    trace: &Trace<'_>,
    expected: &OwnSession<'_>,
    proof: &[u8],
    srs: &Srs,
    keys: &KeyStore,
    policy: SrsPolicy,
) -> Result<Verdict, Error> {
    expected.check(manifest, trace)?;
    Ok(verifier::verify(srs, keys, manifest, trace, proof, policy)?)
}
