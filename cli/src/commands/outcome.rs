//! What commands share: how they end, and whose SRS they trust.

use std::process::ExitCode;

use zklora_models::peft::first_of;
use zklora_proof::verifier::SrsPolicy;

use crate::{args::TrustedSrs, exit_code::NO};

/// The exit code of a command, or why it failed.
pub type Outcome = anyhow::Result<ExitCode>;

/// The exit code for an answer of yes or no.
pub fn answer(yes: bool) -> ExitCode {
    if yes { ExitCode::SUCCESS } else { ExitCode::from(NO) }
}

/// The line for tensors of layers that were trained whole and that the adapter leaves out; none if
/// there are none.
pub fn left_out_row(tensors: &[String]) -> Option<(&'static str, String)> {
    let named = first_of(tensors);
    let line = format!("trained whole, and no part of this adapter's deltas: {named}");
    (!tensors.is_empty()).then_some(("Left out", line))
}

/// The policy that the options ask for.
pub fn policy(srs: &TrustedSrs) -> SrsPolicy {
    if srs.insecure_srs { SrsPolicy::AllowUntrusted } else { SrsPolicy::TrustedOnly }
}
