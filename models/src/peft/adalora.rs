//! AdaLoRA: `delta = x (A ∘ E)ᵀ Bᵀ · lora_alpha / (init_r + 10⁻⁵)`, with `lora_E` `[rank, 1]`
//! scaling the rows of `lora_A`.
//!
//! `peft`'s `SVDLinear.forward`. A module whose components were all pruned adds nothing and is left
//! out.

use super::{
    config::Allocation,
    module::{AdapterModule, Form, LoraWeights},
    parts::{
        Dim::{Any, Is},
        Parts,
    },
    step::Step,
};
use crate::Error;

/// The tensors that a module has.
pub(super) const ENDS: &[&str] = &[A, B, E];

const A: &str = ".lora_A";
const B: &str = ".lora_B";
const E: &str = ".lora_E";

pub(super) fn module(
    parts: &mut Parts,
    allocation: &Allocation,
) -> Result<Option<AdapterModule>, Error> {
    let rank = allocation.rank(&parts.name);
    if rank == 0 {
        return Ok(None);
    }
    let a = parts.matrix(A, [Is(rank), Any("d_in")])?;
    let b = parts.matrix(B, [Any("d_out"), Is(rank)])?;
    parts.dims(E, [Is(rank), Is(1)])?;
    let e = parts.values(E)?;
    let weights =
        LoraWeights { d_in: a.cols, d_out: b.rows, rank, a: a.values, b: b.values, bias: None };
    let mut module = AdapterModule::lora(parts.name.clone(), weights, allocation.scaling());
    module.form = Form::AdaLora;
    for branch in &mut module.branches {
        branch.steps.insert(1, Step::scale("lora_E", e.clone()));
    }
    Ok(Some(module))
}
