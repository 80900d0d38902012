//! (IA)³: a vector `l` multiplies the output of a layer, or the input of a feedforward module.
//!
//! `peft` stores `ia3_l` as `[d_out, 1]` for an output and `[1, d_in]` for an input, and nothing
//! else states which it is. As deltas: `base ∘ (l − 1)` for the output (bias included), `x ∘ (l −
//! 1)` for the input.

use super::{
    module::{AdapterModule, Branch, Form, Kind, ModuleInput},
    module_tensors::{Dim::Any, ModuleTensors},
    step::Step,
};
use crate::{AppliesTo, Error};

/// Suffixes of the tensors of a module.
pub(super) const SUFFIXES: &[&str] = &[L];

const L: &str = ".ia3_l";

pub(super) fn module(tensors: &mut ModuleTensors) -> Result<AdapterModule, Error> {
    let (applies_to, dim) = match tensors.dims(L, [Any("d_out or 1"), Any("1 or d_in")])? {
        [1, 1] => {
            return Err(tensors.error(
                L,
                "has one element, which does not state whether it scales the input or the output",
            ));
        }
        [d_out, 1] => (AppliesTo::Output, d_out),
        [1, d_in] => (AppliesTo::Input, d_in),
        found => {
            return Err(tensors
                .error(L, format!("has the shape {found:?} where one of the two should be 1")));
        }
    };
    // In f64, so the difference is rounded once.
    let factors = tensors.values(L)?.into_iter().map(|l| (f64::from(l) - 1.0) as f32).collect();
    let input = match applies_to {
        AppliesTo::Output => ModuleInput::base(dim),
        AppliesTo::Input => ModuleInput::x(dim),
    };
    Ok(AdapterModule {
        name: tensors.name.clone(),
        form: Form::Ia3,
        kind: Kind::Linear,
        applies_to,
        inputs: vec![input],
        d_out: dim,
        branches: vec![Branch { input: 0, steps: vec![Step::scale("ia3_l_minus_1", factors)] }],
        scaling: 1.0,
    })
}
