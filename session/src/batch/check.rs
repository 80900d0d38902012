//! Batches and answers, checked against the manifest.

use std::sync::Arc;

use zklora_artifacts::module_rows::{ModuleRows, words};
use zklora_proof::{
    checked_manifest::CheckedManifest,
    manifest::Module,
    rows::{self, RowSlices},
};

use crate::wire::{self, Batch, InferResponse};

/// The rows of one module in a batch. Modules that read the same rows share them.
#[derive(Debug, Clone)]
pub struct Call {
    /// Index in the manifest.
    pub module: usize,
    /// The rows, without deltas.
    pub rows: Arc<ModuleRows>,
}

/// Checks a batch against the manifest and returns its rows.
///
/// # Errors
/// What is wrong, and where: text for the peer.
pub fn parse(batch: &Batch, manifest: &CheckedManifest) -> Result<Vec<Call>, String> {
    if batch.calls.is_empty() || batch.calls.len() > manifest.modules().len() {
        return Err(format!(
            "{} calls: expected 1 to {}, at most one a module",
            batch.calls.len(),
            manifest.modules().len()
        ));
    }
    if batch.rows.len() > batch.calls.len() {
        return Err(format!("{} sets of rows for {} calls", batch.rows.len(), batch.calls.len()));
    }
    let rows = batch.rows.iter().enumerate();
    let rows: Vec<Arc<ModuleRows>> = rows
        .map(|(at, rows)| {
            parse_rows(rows).map(Arc::new).map_err(|why| format!("set {at} of rows: {why}"))
        })
        .collect::<Result<_, _>>()?;
    let (mut called, mut read) = (vec![false; manifest.modules().len()], vec![false; rows.len()]);
    let mut calls = Vec::with_capacity(batch.calls.len());
    for call in &batch.calls {
        let (module, set) = (call.module as usize, call.rows as usize);
        let (Some(called_module), Some(row_set)) = (manifest.modules().get(module), rows.get(set))
        else {
            return Err(format!(
                "a call of module {module} with set {set} of rows: there is no such module or set"
            ));
        };
        if std::mem::replace(&mut called[module], true) {
            return Err(format!("module `{}` is called twice in one batch", called_module.name));
        }
        read[set] = true;
        check_rows(called_module, row_set)
            .map_err(|why| format!("module `{}`: {why}", called_module.name))?;
        calls.push(Call { module, rows: Arc::clone(row_set) });
    }
    match read.iter().position(|read| !read) {
        Some(set) => Err(format!("no call reads set {set} of rows")),
        None => Ok(calls),
    }
}

fn parse_rows(rows: &wire::Rows) -> Result<ModuleRows, String> {
    let count = rows.count as usize;
    if count == 0 {
        return Err("no rows".into());
    }
    if rows.scales.len() != count * 4 {
        return Err(format!("{} bytes of scales for {count} rows of 4", rows.scales.len()));
    }
    if let Some(bytes) =
        rows.inputs.iter().chain([&rows.ones]).map(|b| b.len()).find(|len| !len.is_multiple_of(4))
    {
        return Err(format!("{bytes} bytes are not whole 32-bit integers"));
    }
    Ok(ModuleRows {
        inputs: rows.inputs.iter().map(|bytes| words(bytes)).collect(),
        ones: words(&rows.ones),
        scales: words(&rows.scales),
        delta: Vec::new(),
    })
}

fn check_rows(module: &Module, rows: &ModuleRows) -> Result<(), String> {
    if module.inputs.is_empty() {
        return Err("it has no inputs, so it takes no rows".into());
    }
    let inputs: Vec<&[i32]> = rows.inputs.iter().map(Vec::as_slice).collect();
    rows::check_activations(
        module,
        &RowSlices { inputs: &inputs, ones: &rows.ones, scales: &rows.scales, delta: &[] },
    )
}

/// Checks an answer to a batch against the shapes and bounds of the manifest, and returns its
/// deltas.
///
/// # Errors
/// What is wrong with the answer.
pub fn parse_answer(
    batch: &Batch,
    answer: &InferResponse,
    manifest: &CheckedManifest,
) -> Result<Vec<Vec<i64>>, String> {
    if answer.sequence != batch.sequence {
        return Err(format!("it answers batch {}, not {}", answer.sequence, batch.sequence));
    }
    if answer.deltas.len() != batch.calls.len() {
        return Err(format!("{} answers to {} calls", answer.deltas.len(), batch.calls.len()));
    }
    let mut deltas = Vec::with_capacity(answer.deltas.len());
    for ((module, rows), bytes) in batch.counts().zip(&answer.deltas) {
        let Some(module) = manifest.modules().get(module) else {
            return Err("there is no such module".into());
        };
        if bytes.len() as u64 != rows * module.d_out as u64 * 8 {
            return Err(format!(
                "module `{}`: {} bytes of deltas, expected {rows} rows of {} 64-bit integers",
                module.name,
                bytes.len(),
                module.d_out
            ));
        }
        let delta: Vec<i64> = words(bytes);
        if let Some(at) = delta.iter().position(|d| d.unsigned_abs() >= 1u64 << module.delta_bits) {
            return Err(format!(
                "module `{}`: row {}: delta {} is outside the certified bound 2^{}: no adapter \
                 of this manifest computes it",
                module.name,
                at / module.d_out,
                delta[at],
                module.delta_bits
            ));
        }
        deltas.push(delta);
    }
    Ok(deltas)
}
