//! Rows and deltas as messages, without copying them.

use std::sync::Arc;

use bytes::Bytes;
use zklora_artifacts::module_rows::ModuleRows;

use crate::wire::{self, InferResponse};

/// Rows as a message that shares their memory.
pub fn to_wire(rows: &Arc<ModuleRows>) -> wire::Rows {
    let bytes = |part| Bytes::from_owner(Shared(Arc::clone(rows), part));
    wire::Rows {
        count: rows.scales.len() as u32,
        inputs: (0..rows.inputs.len()).map(|input| bytes(Part::Input(input))).collect(),
        ones: bytes(Part::Ones),
        scales: bytes(Part::Scales),
    }
}

/// Deltas as a message that takes over their memory.
pub fn deltas_to_wire(sequence: u64, deltas: Vec<Vec<i64>>) -> InferResponse {
    InferResponse {
        sequence,
        deltas: deltas.into_iter().map(|delta| Bytes::from_owner(Owned(delta))).collect(),
    }
}

/// A part of shared rows, as bytes.
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
