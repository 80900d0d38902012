//! (IA)³: a vector `l` multiplies what comes out of a layer, or for feedforward modules what goes
//! in.
//!
//! `peft` stores `ia3_l` as `[d_out, 1]` for the one and `[1, d_in]` for the other: the shape is
//! its record of which it is. As deltas: `base ∘ (l − 1)` on the output (bias and all), `x ∘ (l −
//! 1)` on the input.

use super::{
    module::{AdapterModule, AppliesTo, Branch, Form, Kind, ModuleInput},
    parts::{Dim::Any, Parts},
    step::Step,
};
use crate::Error;

/// The tensors that a module has.
pub(super) const ENDS: &[&str] = &[L];

const L: &str = ".ia3_l";

pub(super) fn module(parts: &mut Parts) -> Result<AdapterModule, Error> {
    let (applies_to, dim) = match parts.dims(L, [Any("d_out or 1"), Any("1 or d_in")])? {
        [1, 1] => {
            return Err(parts.error(
                L,
                "has one element, which does not say whether it scales input or output",
            ));
        }
        [d_out, 1] => (AppliesTo::Output, d_out),
        [1, d_in] => (AppliesTo::Input, d_in),
        found => {
            return Err(
                parts.error(L, format!("has the shape {found:?} where one of the two should be 1"))
            );
        }
    };
    // In f64, so that the difference is rounded once.
    let factors = parts.values(L)?.into_iter().map(|l| (f64::from(l) - 1.0) as f32).collect();
    let input = match applies_to {
        AppliesTo::Output => ModuleInput::base(dim),
        AppliesTo::Input => ModuleInput::x(dim),
    };
    Ok(AdapterModule {
        name: parts.name.clone(),
        form: Form::Ia3,
        kind: Kind::Linear,
        applies_to,
        inputs: vec![input],
        d_out: dim,
        branches: vec![Branch { input: 0, steps: vec![Step::scale("ia3_l_minus_1", factors)] }],
        scaling: 1.0,
    })
}
