//! A batch of the network as rows that fit the adapter, and rows as a batch.
//!
//! Bytes on the wire are little-endian. What is checked here is everything that a contributor must
//! know before it computes: shapes, ranges, and that no length is larger than what was sent.

use std::sync::Arc;

use bytes::Bytes;
use zklora_artifacts::module_rows::{ModuleRows, words};
use zklora_proof::{
    checked_manifest::CheckedManifest,
    manifest::Module,
    rows::{self, RowSlices},
};

use crate::wire::{self, Batch, InferResponse};

/// One module's rows of a batch. Modules that read the same rows share them.
#[derive(Debug, Clone)]
pub struct Call {
    /// Index in the manifest.
    pub module: usize,
    /// The rows, without deltas.
    pub rows: Arc<ModuleRows>,
}

/// The rows of a batch, checked against the manifest.
///
/// # Errors
/// What is wrong with it, and where: text for the peer.
pub fn parse(batch: &Batch, manifest: &CheckedManifest) -> Result<Vec<Call>, String> {
    if batch.calls.is_empty() || batch.calls.len() > manifest.modules().len() {
        return Err(format!(
            "{} calls: expected 1 to {}, one a module",
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
        let (Some(declared), Some(own)) = (manifest.modules().get(module), rows.get(set)) else {
            return Err(format!(
                "a call of module {module} with set {set} of rows: there is no such module or set"
            ));
        };
        if std::mem::replace(&mut called[module], true) {
            return Err(format!("module `{}` is called twice in one batch", declared.name));
        }
        read[set] = true;
        check(declared, own).map_err(|why| format!("module `{}`: {why}", declared.name))?;
        calls.push(Call { module, rows: Arc::clone(own) });
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

fn check(module: &Module, rows: &ModuleRows) -> Result<(), String> {
    if module.inputs.is_empty() {
        return Err("it takes no inputs, so it has no rows".into());
    }
    let inputs: Vec<&[i32]> = rows.inputs.iter().map(Vec::as_slice).collect();
    rows::check_activations(
        module,
        &RowSlices { inputs: &inputs, ones: &rows.ones, scales: &rows.scales, delta: &[] },
    )
}

/// Rows as they are sent: the same memory.
pub fn to_wire(rows: &Arc<ModuleRows>) -> wire::Rows {
    let bytes = |part| Bytes::from_owner(Shared(Arc::clone(rows), part));
    wire::Rows {
        count: rows.scales.len() as u32,
        inputs: (0..rows.inputs.len()).map(|input| bytes(Part::Input(input))).collect(),
        ones: bytes(Part::Ones),
        scales: bytes(Part::Scales),
    }
}

/// Deltas as they are sent: the same memory.
pub fn deltas_to_wire(sequence: u64, deltas: Vec<Vec<i64>>) -> InferResponse {
    InferResponse {
        sequence,
        deltas: deltas.into_iter().map(|delta| Bytes::from_owner(Owned(delta))).collect(),
    }
}

/// A part of rows that others read, too, as bytes.
struct Shared(Arc<ModuleRows>, Part);

enum Part {
    Input(usize),
    Ones,
    Scales,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        match self.1 {
            Part::Input(input) => bytemuck::cast_slice(&self.0.inputs[input]),
            Part::Ones => bytemuck::cast_slice(&self.0.ones),
            Part::Scales => bytemuck::cast_slice(&self.0.scales),
        }
    }
}

/// Deltas as bytes.
struct Owned(Vec<i64>);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// The deltas of an answer to a batch, checked against the manifest's shapes and bounds.
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
                "module `{}`: row {}: delta {} is outside the certified bound 2^{}: no adapter of this manifest computes it",
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

/// Digest of a batch: the same for the same rows and calls at the same place of the session. Every
/// part is preceded by its length.
pub fn digest(batch: &Batch) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("zklora v1 batch");
    let number = |hasher: &mut blake3::Hasher, number: u64| {
        hasher.update(&number.to_le_bytes());
    };
    number(&mut hasher, batch.sequence);
    number(&mut hasher, batch.rows.len() as u64);
    for rows in &batch.rows {
        number(&mut hasher, u64::from(rows.count));
        number(&mut hasher, rows.inputs.len() as u64);
        rows.inputs
            .iter()
            .chain([&rows.ones, &rows.scales])
            .for_each(|part| absorb(&mut hasher, part));
    }
    number(&mut hasher, batch.calls.len() as u64);
    for call in &batch.calls {
        number(&mut hasher, u64::from(call.module));
        number(&mut hasher, u64::from(call.rows));
    }
    *hasher.finalize().as_bytes()
}

/// Digest of the answer with these deltas. Every part is preceded by its length.
pub fn answer_digest(sequence: u64, deltas: &[Vec<i64>]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("zklora v1 answer");
    hasher.update(&sequence.to_le_bytes()).update(&(deltas.len() as u64).to_le_bytes());
    deltas.iter().for_each(|delta| absorb(&mut hasher, bytemuck::cast_slice(delta)));
    *hasher.finalize().as_bytes()
}

/// From this length on, several threads hash faster than one.
const WORTH_THREADS: usize = 1 << 18;

fn absorb(hasher: &mut blake3::Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_le_bytes());
    if part.len() < WORTH_THREADS {
        hasher.update(part)
    } else {
        hasher.update_rayon(part)
    };
}
