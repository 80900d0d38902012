//! What commands share: how they end, and whose SRS they trust.

use std::process::ExitCode;

use zklora_proof::verifier::SrsPolicy;

use crate::{args::TrustedSrs, exit_code::NO};

/// The exit code of a command, or why it failed.
pub type Outcome = anyhow::Result<ExitCode>;

/// The exit code for an answer of yes or no.
pub fn answer(yes: bool) -> ExitCode {
    if yes { ExitCode::SUCCESS } else { ExitCode::from(NO) }
}

/// The policy that the options ask for.
pub fn policy(srs: &TrustedSrs) -> SrsPolicy {
    if srs.insecure_srs { SrsPolicy::AllowUntrusted } else { SrsPolicy::TrustedOnly }
}
