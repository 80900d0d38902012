//! Maps errors of the libraries to exit codes, and adds the flag that helps.

use std::error::Error;

/// The answer to the question of the command is no.
pub const NO: u8 = 1;
/// Bad usage, unusable input, or a failure of the machine.
pub const UNUSABLE: u8 = 2;

/// The exit code of a command that failed with this error.
pub fn of(error: &anyhow::Error) -> u8 {
    if is_refusal(error) { NO } else { UNUSABLE }
}

/// Whether an error of any library rejects a claim.
fn is_refusal(error: &anyhow::Error) -> bool {
    fn of<E: Error + Send + Sync + 'static>(error: &anyhow::Error, test: fn(&E) -> bool) -> bool {
        error.downcast_ref().is_some_and(test)
    }
    let of_features = [
        #[cfg(feature = "ezkl")]
        of(error, zklora_ezkl::Error::is_refusal),
        #[cfg(feature = "bench")]
        of(error, zklora_bench::Error::is_refusal),
    ];
    of(error, zklora_proof::Error::is_refusal)
        || of(error, zklora_artifacts::Error::is_refusal)
        || of(error, zklora_session::Error::is_refusal)
        || of(error, zklora_evaluation::Error::is_refusal)
        || of(error, zklora_runtime::Error::is_refusal)
        || of_features.contains(&true)
}

/// Adds the flag that accepts what a library refused. The libraries know no flags.
pub fn with_advice(error: anyhow::Error) -> anyhow::Error {
    match proof(&error) {
        Some(zklora_proof::Error::UntrustedSrs(_)) => {
            let advice = format!("{error}; pass --insecure-srs to accept it");
            error.context(advice)
        }
        _ => error,
    }
}

/// The error of the proof system within an error of a library above it.
fn proof(error: &anyhow::Error) -> Option<&zklora_proof::Error> {
    error
        .downcast_ref()
        .or_else(|| error.downcast_ref::<zklora_artifacts::Error>()?.proof())
        .or_else(|| error.downcast_ref::<zklora_session::Error>()?.proof())
        .or_else(|| error.downcast_ref::<zklora_runtime::Error>()?.proof())
}
