//! LoRA of a linear layer and of an embedding.
//!
//! `lora_A.weight` is `[rank, d_in]` and `lora_B.weight` is `[d_out, rank]` because `peft` stores
//! them so, for Linear and for GPT-2's Conv1D (`fan_in_fan_out`, which concerns the base weight
//! only) alike. An embedding has `lora_embedding_A` `[rank, vocabulary]` and `lora_embedding_B`
//! `[d_out, rank]`: the look-up of a token is the product with a one-hot row.

use super::{
    config::Ranks,
    module::{AdapterModule, Kind, LoraWeights},
    parts::{
        Dim::{Any, Is},
        Parts,
    },
};
use crate::Error;

/// The tensors that a module may have.
pub(super) const ENDS: &[&str] = &[A, B, BIAS, MAGNITUDE, EMBEDDING_A, EMBEDDING_B];

const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";
const BIAS: &str = ".lora_B.bias";
const EMBEDDING_A: &str = ".lora_embedding_A";
const EMBEDDING_B: &str = ".lora_embedding_B";

/// DoRA's tensor; `super::dora` reads it.
pub(super) const MAGNITUDE: &str = ".lora_magnitude_vector";

/// The module without what DoRA adds to it.
pub(super) fn module(
    parts: &mut Parts,
    ranks: &Ranks,
    lora_bias: bool,
) -> Result<AdapterModule, Error> {
    let kind = if parts.has(EMBEDDING_A) || parts.has(EMBEDDING_B) {
        Kind::Embedding
    } else {
        Kind::Linear
    };
    let (end_a, end_b) = match kind {
        Kind::Embedding => (EMBEDDING_A, EMBEDDING_B),
        Kind::Linear => (A, B),
    };
    if kind == Kind::Embedding
        && let Some(foreign) = [A, B, BIAS].into_iter().find(|end| parts.has(end))
    {
        return Err(parts.error(
            foreign,
            "is there although the module is an embedding; save the adapter again",
        ));
    }
    if parts.has(BIAS) && !lora_bias {
        return Err(parts.error(
            BIAS,
            "is there although the config does not say lora_bias, so peft would ignore it",
        ));
    }
    let rank = ranks.rank(&parts.name);
    let d_in_is = if kind == Kind::Embedding { "vocabulary" } else { "d_in" };
    let a = parts.matrix(end_a, [Is(rank), Any(d_in_is)])?;
    let b = parts.matrix(end_b, [Any("d_out"), Is(rank)])?;
    let bias = if lora_bias && kind == Kind::Linear {
        parts.dims(BIAS, [Is(b.rows)])?;
        Some(parts.values(BIAS)?)
    } else {
        None
    };
    let weights = LoraWeights { d_in: a.cols, d_out: b.rows, rank, a: a.values, b: b.values, bias };
    let scaling = ranks.scaling(&parts.name)?;
    Ok(AdapterModule { kind, ..AdapterModule::lora(parts.name.clone(), weights, scaling) })
}
