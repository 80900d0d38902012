//! Limits on the size of a batch, of its answer, and of a session.

use std::collections::BTreeMap;

use tonic::Status;
use zklora_artifacts::folder::Artifacts;

use super::limits::Limits;
use crate::wire::Batch;

/// Whether a batch and its answer are within the limits.
pub(super) fn check_batch_size(
    batch: &Batch,
    artifacts: &Artifacts,
    limits: &Limits,
) -> Result<(), Status> {
    if let Some((_, rows)) =
        batch.counts().find(|(_, rows)| *rows > u64::from(limits.max_batch_rows))
    {
        return Err(Status::resource_exhausted(format!(
            "batch {} has {rows} rows of a module, this server takes {}: split it",
            batch.sequence, limits.max_batch_rows
        )));
    }
    let modules = artifacts.manifest.modules();
    let answer: u64 =
        batch.counts().map(|(module, rows)| rows * modules[module].d_out as u64 * 8).sum();
    if answer > limits.max_message_bytes as u64 {
        return Err(Status::resource_exhausted(format!(
            "batch {} would be answered with {answer} bytes, this server sends {}: split it",
            batch.sequence, limits.max_message_bytes
        )));
    }
    Ok(())
}

/// Whether a session of these rows may get `more`.
pub(super) fn check_session_size(
    rows: &BTreeMap<usize, u64>,
    more: &[(usize, u64)],
    artifacts: &Artifacts,
    limits: &Limits,
) -> Result<(), Status> {
    let refuse = |what: String, most: String| {
        Err(Status::resource_exhausted(format!(
            "the session would have {what}, this server proves at most {most} in one: end it and \
             open another"
        )))
    };
    let all = || rows.iter().map(|(module, rows)| (*module, *rows)).chain(more.iter().copied());
    let count: u64 = all().map(|(_, rows)| rows).sum();
    if count > limits.max_session_rows {
        return refuse(format!("{count} rows"), limits.max_session_rows.to_string());
    }
    let bytes: u64 =
        all().map(|(module, rows)| rows.saturating_mul(row_bytes(artifacts, module))).sum();
    if bytes > limits.max_session_bytes {
        return refuse(format!("a trace of {bytes} bytes"), limits.max_session_bytes.to_string());
    }
    Ok(())
}

/// Bytes of a row in a trace: activations, scale, the constant 1, deltas.
fn row_bytes(artifacts: &Artifacts, module: usize) -> u64 {
    let module = &artifacts.manifest.modules()[module];
    let words = module.inputs.iter().map(|input| input.dim).sum::<usize>()
        + 1
        + usize::from(module.has_bias());
    (words * 4 + module.d_out * 8) as u64
}
