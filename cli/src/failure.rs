//! Errors of the libraries, as the command reports them: the exit code, and the flag that helps.

use std::error::Error;

/// Whether an error of any library is a "no" about a claim.
pub fn is_refusal(error: &anyhow::Error) -> bool {
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
