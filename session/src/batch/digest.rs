//! Digests of batches and answers.

use crate::wire::Batch;

/// The digest of a batch: of its sequence number, rows and calls. Every part is preceded by its
/// length.
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

/// The digest of the answer with these deltas. Every part is preceded by its length.
pub fn answer_digest(sequence: u64, deltas: &[Vec<i64>]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("zklora v1 answer");
    hasher.update(&sequence.to_le_bytes()).update(&(deltas.len() as u64).to_le_bytes());
    deltas.iter().for_each(|delta| absorb(&mut hasher, bytemuck::cast_slice(delta)));
    *hasher.finalize().as_bytes()
}

/// From this length on, in bytes, several threads hash faster than one.
const PARALLEL_FROM: usize = 1 << 18;

fn absorb(hasher: &mut blake3::Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_le_bytes());
    if part.len() < PARALLEL_FROM {
        hasher.update(part)
    } else {
        hasher.update_rayon(part)
    };
}
