//! LoRA of a linear layer and of an embedding.
//!
//! `peft` stores `lora_A.weight` as `[rank, d_in]` and `lora_B.weight` as `[d_out, rank]`, both for
//! Linear and for GPT-2's Conv1D (`fan_in_fan_out` concerns the base weight only). An embedding has
//! `lora_embedding_A` `[rank, vocabulary]` and `lora_embedding_B` `[d_out, rank]`: looking up a
//! token is the product with a one-hot row.

use super::{
    config::Ranks,
    module::{AdapterModule, Kind, LoraWeights},
    module_tensors::{
        Dim::{Any, Is},
        ModuleTensors,
    },
};
use crate::Error;

/// Suffixes of the tensors that a module may have.
pub(super) const SUFFIXES: &[&str] = &[A, B, BIAS, MAGNITUDE, EMBEDDING_A, EMBEDDING_B];

pub(super) const A: &str = ".lora_A.weight";
pub(super) const B: &str = ".lora_B.weight";
pub(super) const BIAS: &str = ".lora_B.bias";
pub(super) const EMBEDDING_A: &str = ".lora_embedding_A";
pub(super) const EMBEDDING_B: &str = ".lora_embedding_B";

/// DoRA's tensor; `super::dora` reads it.
pub(super) const MAGNITUDE: &str = ".lora_magnitude_vector";

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
    let (suffix_a, suffix_b) = match kind {
        Kind::Embedding => (EMBEDDING_A, EMBEDDING_B),
        Kind::Linear => (A, B),
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
    let d_in_is = if kind == Kind::Embedding { "vocabulary" } else { "d_in" };
    let a = tensors.matrix(suffix_a, [Is(rank), Any(d_in_is)])?;
    let b = tensors.matrix(suffix_b, [Any("d_out"), Is(rank)])?;
    let bias = if lora_bias && kind == Kind::Linear {
        tensors.dims(BIAS, [Is(b.rows)])?;
        Some(tensors.values(BIAS)?)
    } else {
        None
    };
    let weights = LoraWeights { d_in: a.cols, d_out: b.rows, rank, a: a.values, b: b.values, bias };
    let scaling = ranks.scaling(&tensors.name)?;
    Ok(AdapterModule { kind, ..AdapterModule::lora(tensors.name.clone(), weights, scaling) })
}
