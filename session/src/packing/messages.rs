//! Packed batches and answers. Both are messages of the same type as those that are not packed.

use bytes::Bytes;
use rayon::prelude::*;
use zklora_artifacts::module_rows::words;
use zklora_proof::{
    checked_manifest::CheckedManifest,
    manifest::{Module, TermKind},
};

use super::{factors::Factors, integers};
use crate::{
    batch::deltas_to_wire,
    wire::{Batch, InferResponse, Rows},
};

/// First byte of the deltas of a call: packed integers, or factors.
const INTEGERS: u8 = 0;
const FACTORS: u8 = 1;

/// Packs a batch: the integers of its inputs.
pub fn pack_batch(batch: &Batch) -> Batch {
    let inputs = |rows: &Rows| {
        let inputs = rows.inputs.par_iter();
        inputs.map(|bytes| integers::pack(&words::<i32>(bytes)).into()).collect()
    };
    let rows = batch.rows.par_iter();
    Batch {
        rows: rows.map(|rows| Rows { inputs: inputs(rows), ..rows.clone() }).collect(),
        ..batch.clone()
    }
}

/// Bytes of the inputs of a packed batch after unpacking.
pub fn unpacked_bytes(batch: &Batch, manifest: &CheckedManifest) -> u64 {
    let sets = batch.rows.iter().zip(readers(batch, manifest)).map(|(rows, module)| {
        let dims = module.into_iter().flat_map(|module| &module.inputs).map(|input| input.dim);
        dims.map(|dim| u64::from(rows.count).saturating_mul(dim as u64).saturating_mul(4))
            .fold(0, u64::saturating_add)
    });
    sets.fold(0, u64::saturating_add)
}

/// A module that reads each set of rows, if there is one.
fn readers<'a>(batch: &Batch, manifest: &'a CheckedManifest) -> Vec<Option<&'a Module>> {
    let mut readers = vec![None; batch.rows.len()];
    for call in &batch.calls {
        if let Some(reader) = readers.get_mut(call.rows as usize) {
            *reader = manifest.modules().get(call.module as usize);
        }
    }
    readers
}

/// Unpacks a batch. The result may break any rule but that of the number and lengths of inputs:
/// [`crate::batch::parse`] checks it. It takes the memory of [`unpacked_bytes`].
///
/// # Errors
/// What is wrong, and where: text for the peer.
pub fn unpack_batch(batch: Batch, manifest: &CheckedManifest) -> Result<Batch, String> {
    let readers = readers(&batch, manifest);
    let sets = batch.rows.par_iter().zip(readers).enumerate().map(|(set, (rows, module))| {
        let failed = |why: String| format!("set {set} of rows: {why}");
        let module = module.ok_or_else(|| failed("no module of this adapter reads it".into()))?;
        if rows.inputs.len() != module.inputs.len() {
            let (sent, expected) = (rows.inputs.len(), module.inputs.len());
            return Err(failed(format!("{sent} inputs, module `{}` has {expected}", module.name)));
        }
        let inputs = rows.inputs.par_iter().zip(&module.inputs).map(|(bytes, input)| {
            let count = (rows.count as usize).saturating_mul(input.dim);
            let values = integers::unpack(bytes, count)
                .map_err(|why| failed(format!("input `{}`: {why}", input.name)))?;
            Ok(Bytes::from_owner(Integers(values)))
        });
        Ok(Rows { inputs: inputs.collect::<Result<_, String>>()?, ..rows.clone() })
    });
    Ok(Batch { rows: sets.collect::<Result<_, String>>()?, ..batch })
}

/// Integers as bytes.
struct Integers(Vec<i32>);

impl AsRef<[u8]> for Integers {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// The rank that deltas of a module have at most; none if its map is not of low rank.
fn rank(module: &Module) -> Option<usize> {
    let ranks = module.terms.iter().map(|term| match term.kind {
        TermKind::LowRank => Some(term.rank),
        TermKind::Bias => Some(1),
        TermKind::Scale => None,
    });
    ranks.sum()
}

/// The rank of a module, if factors of this rank are shorter than the deltas of so many rows.
fn factored(module: &Module, rows: usize) -> Option<usize> {
    rank(module).filter(|rank| {
        rank.saturating_mul(rows.saturating_add(module.d_out)) < rows.saturating_mul(module.d_out)
    })
}

/// The answer to a packed batch: `counts` are the module and number of rows of each call, and
/// `deltas` what the modules compute.
pub fn pack_answer(
    sequence: u64,
    counts: &[(usize, u64)],
    deltas: &[Vec<i64>],
    manifest: &CheckedManifest,
) -> InferResponse {
    let calls = counts.par_iter().zip(deltas);
    let packed = calls.map(|((module, rows), delta)| {
        pack_deltas(&manifest.modules()[*module], *rows as usize, delta).into()
    });
    InferResponse { sequence, deltas: packed.collect() }
}

fn pack_deltas(module: &Module, rows: usize, deltas: &[i64]) -> Vec<u8> {
    match factored(module, rows) {
        Some(rank) => {
            let factors = Factors::of(deltas, module.d_out, rank);
            let parts: [&[u8]; 2] =
                [bytemuck::cast_slice(&factors.coordinates), bytemuck::cast_slice(&factors.basis)];
            [&[FACTORS], parts[0], parts[1]].concat()
        }
        None => [&[INTEGERS], &integers::pack_wide(deltas)[..]].concat(),
    }
}

/// The most bytes that this many rows of packed deltas take.
pub fn max_packed_deltas(module: &Module, rows: usize) -> usize {
    integers::max_len(rows.saturating_mul(module.d_out)).saturating_mul(2).saturating_add(1)
}

/// Unpacks the answer to a packed batch. [`crate::batch::parse_answer`] checks the result.
///
/// # Errors
/// What is wrong with the answer.
pub fn unpack_answer(
    batch: &Batch,
    answer: &InferResponse,
    manifest: &CheckedManifest,
) -> Result<InferResponse, String> {
    if answer.deltas.len() != batch.calls.len() {
        return Err(format!("{} answers to {} calls", answer.deltas.len(), batch.calls.len()));
    }
    let calls: Vec<((usize, u64), &Bytes)> = batch.counts().zip(&answer.deltas).collect();
    let deltas = calls.into_par_iter().map(|((module, rows), bytes)| {
        let module = manifest.modules().get(module).ok_or("there is no such module")?;
        unpack_deltas(module, rows as usize, bytes)
            .map_err(|why| format!("module `{}`: {why}", module.name))
    });
    Ok(deltas_to_wire(answer.sequence, deltas.collect::<Result<_, String>>()?))
}

fn unpack_deltas(module: &Module, rows: usize, bytes: &[u8]) -> Result<Vec<i64>, String> {
    let (kind, bytes) = bytes.split_first().ok_or("no deltas")?;
    match (*kind, factored(module, rows)) {
        (INTEGERS, None) => integers::unpack_wide(bytes, rows.saturating_mul(module.d_out)),
        (FACTORS, Some(most)) => {
            let of_rank = (rows + module.d_out) * 8;
            let rank = bytes.len() / of_rank;
            if bytes.len() % of_rank != 0 || rank > most {
                return Err(format!(
                    "{} bytes of factors: expected a multiple of {of_rank}, {most} times at most",
                    bytes.len()
                ));
            }
            let (coordinates, basis) = bytes.split_at(rank * rows * 8);
            let factors = Factors { rank, coordinates: words(coordinates), basis: words(basis) };
            Ok(factors.product(rows, module.d_out))
        }
        (INTEGERS | FACTORS, _) => {
            Err(format!("deltas of kind {kind}: expected the other kind for {rows} rows"))
        }
        _ => Err(format!("deltas of unknown kind {kind}")),
    }
}
