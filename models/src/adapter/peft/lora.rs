//! LoRA of a linear layer, a convolution and an embedding.
//!
//! `peft` stores `lora_A.weight` as `[rank, d_in]` and `lora_B.weight` as `[d_out, rank]`, both for
//! Linear and for GPT-2's Conv1D (`fan_in_fan_out` concerns the base weight only). An embedding has
//! `lora_embedding_A` `[rank, vocabulary]` and `lora_embedding_B` `[d_out, rank]`: looking up a
//! token is the product with a one-hot row.
//!
//! A convolution has `lora_A.weight` `[rank, channels, …]` and `lora_B.weight` `[d_out, rank /
//! groups, 1, …]`: the first maps patches of the input, and in the second each group of outputs
//! reads its share of the rank (`peft`'s `_ConvNd.update_layer`).

use super::{
    config::Ranks,
    dora::MAGNITUDE,
    module::{AdapterModule, Kind, LoraWeights},
    module_tensors::{
        Dim::{Any, Is},
        Matrix, ModuleTensors,
    },
    tucker,
};
use crate::Error;

/// Suffixes of the tensors that a module may have.
pub(super) const SUFFIXES: &[&str] = &[A, B, BIAS, MAGNITUDE, EMBEDDING_A, EMBEDDING_B, MID];

pub(super) const A: &str = ".lora_A.weight";
pub(super) const B: &str = ".lora_B.weight";
pub(super) const BIAS: &str = ".lora_B.bias";
/// The core of a convolution of LyCORIS, see [`tucker`]; `peft` has none.
pub(super) const MID: &str = ".lora_mid.weight";
pub(super) const EMBEDDING_A: &str = ".lora_embedding_A";
pub(super) const EMBEDDING_B: &str = ".lora_embedding_B";

/// The module, without the part that DoRA adds.
pub(super) fn module(
    tensors: &mut ModuleTensors,
    ranks: &Ranks,
    lora_bias: bool,
) -> Result<AdapterModule, Error> {
    let kind = if tensors.has(EMBEDDING_A) || tensors.has(EMBEDDING_B) {
        Kind::Embedding
    } else {
        Kind::Linear
    };
    if kind == Kind::Embedding
        && let Some(foreign) = [A, B, BIAS].into_iter().find(|suffix| tensors.has(suffix))
    {
        return Err(tensors.error(
            foreign,
            "is in the file although the module is an embedding; save the adapter again",
        ));
    }
    if tensors.has(BIAS) && !lora_bias {
        return Err(tensors.error(
            BIAS,
            "is in the file although the config does not set lora_bias, so peft would ignore it; set lora_bias or remove it",
        ));
    }
    let rank = ranks.rank(&tensors.name)?;
    let (a, b, kind) = match kind {
        Kind::Embedding => (
            tensors.matrix(EMBEDDING_A, [Is(rank), Any("vocabulary")])?,
            tensors.matrix(EMBEDDING_B, [Any("d_out"), Is(rank)])?,
            kind,
        ),
        _ => {
            let (mut a, mut kernel) = tensors.kernel(A, [Is(rank), Any("d_in")])?;
            if tensors.has(MID) {
                (a, kernel) = tucker::over_patches(tensors, MID, &a)?;
            }
            let kind = if kernel.is_empty() { Kind::Linear } else { Kind::Convolution };
            (a, over_rank(tensors, kernel.len(), rank)?, kind)
        }
    };
    let bias = if lora_bias && kind != Kind::Embedding {
        tensors.dims(BIAS, [Is(b.rows)])?;
        Some(tensors.values(BIAS)?)
    } else {
        None
    };
    let weights = LoraWeights { d_in: a.cols, d_out: b.rows, rank, a: a.values, b: b.values, bias };
    let scaling = ranks.scaling(&tensors.name)?;
    Ok(AdapterModule { kind, ..AdapterModule::lora(tensors.name.clone(), weights, scaling) })
}

/// `lora_B.weight` as `[d_out, rank]`, of a layer with a kernel of so many dimensions. Of a
/// convolution with groups it is block-diagonal.
fn over_rank(tensors: &mut ModuleTensors, dimensions: usize, rank: usize) -> Result<Matrix, Error> {
    if dimensions == 0 {
        return tensors.matrix(B, [Any("d_out"), Is(rank)]);
    }
    let (b, kernel) = tensors.kernel(B, [Any("d_out"), Any("rank / groups")])?;
    let own = b.cols;
    let groups = rank.checked_div(own).filter(|groups| groups * own == rank);
    let outputs = groups.map(|groups| b.rows / groups);
    let (Some(groups), Some(outputs)) = (groups, outputs) else {
        return Err(
            tensors.error(B, format!("has {own} columns, which do not divide the rank {rank}"))
        );
    };
    let is_point = kernel.len() == dimensions && kernel.iter().all(|&size| size == 1);
    if !is_point || outputs * groups != b.rows {
        let reason = "is not the kernel [d_out, rank / groups, 1, …] of a convolution's lora_B";
        return Err(tensors.error(B, reason));
    }
    if groups == 1 {
        return Ok(b);
    }
    tensors.reserve(b.rows.checked_mul(rank))?;
    let mut values = vec![0.0; b.rows * rank];
    for (at, row) in values.chunks_exact_mut(rank).enumerate() {
        row[at / outputs * own..][..own].copy_from_slice(b.row(at));
    }
    Ok(Matrix { rows: b.rows, cols: rank, values })
}
