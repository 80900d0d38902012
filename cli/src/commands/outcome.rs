//! What commands share: how they end, and whose SRS they trust.

use std::process::ExitCode;

use zklora_proof::verifier::SrsPolicy;

use crate::args::TrustedSrs;

/// The exit code of a command, or why it failed.
pub type Outcome = anyhow::Result<ExitCode>;

/// Exit code: the answer is no.
pub const NO: u8 = 1;

/// The policy that the options ask for.
pub fn policy(srs: &TrustedSrs) -> SrsPolicy {
    if srs.insecure_srs { SrsPolicy::AllowUntrusted } else { SrsPolicy::TrustedOnly }
}
