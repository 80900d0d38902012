//! AdaLoRA: `delta = x (A ∘ E)ᵀ Bᵀ · lora_alpha / (init_r + 10⁻⁵)`, with `lora_E` `[rank, 1]`
//! scaling the rows of `lora_A`.
//!
//! As in `peft`'s `SVDLinear.forward`. A module whose components were all pruned adds nothing and
//! is left out.

use super::{
    config::Allocation,
    module::{AdapterModule, Form, LoraWeights},
    module_tensors::{
        Dim::{Any, Is},
        ModuleTensors,
    },
    step::Step,
};
use crate::Error;

/// Suffixes of the tensors of a module.
pub(super) const SUFFIXES: &[&str] = &[A, B, E];

const A: &str = ".lora_A";
const B: &str = ".lora_B";
const E: &str = ".lora_E";

pub(super) fn module(
    tensors: &mut ModuleTensors,
    allocation: &Allocation,
) -> Result<Option<AdapterModule>, Error> {
    let rank = allocation.rank(&tensors.name);
    if rank == 0 {
        return Ok(None);
    }
    let a = tensors.matrix(A, [Is(rank), Any("d_in")])?;
    let b = tensors.matrix(B, [Any("d_out"), Is(rank)])?;
    tensors.dims(E, [Is(rank), Is(1)])?;
    let e = tensors.values(E)?;
    let weights =
        LoraWeights { d_in: a.cols, d_out: b.rows, rank, a: a.values, b: b.values, bias: None };
    let mut module = AdapterModule::lora(tensors.name.clone(), weights, allocation.scaling());
    module.form = Form::AdaLora;
    for branch in &mut module.branches {
        branch.steps.insert(1, Step::scale("lora_E", e.clone()));
    }
    Ok(Some(module))
}
