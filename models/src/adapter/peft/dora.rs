//! DoRA: LoRA whose outputs are scaled to a trained magnitude (S.-Y. Liu et al., 2024).
//!
//! As in `peft`'s `DoraLinearLayer.forward`: with `m = magnitude / ‖W + s·BA‖`, where the norm is
//! that of each output's weights, `delta = (m − 1) ∘ (base − bias) + m ∘ (x Aᵀ) Bᵀ · s`. The norms
//! need the base layer's weight W. They are computed in f64, and `m·s` and `m − 1` are rounded to
//! f32 once. An embedding has no bias, and its W is `[vocabulary, d_out]`.

use super::{
    base_layer::{BaseLayer, BaseLayers},
    module::{AdapterModule, Branch, Form, Kind, ModuleInput},
    module_tensors::ModuleTensors,
    step::Step,
};
use crate::Error;

/// The trained magnitudes of a module.
pub(super) const MAGNITUDE: &str = ".lora_magnitude_vector";

/// A module of DoRA, from its part that is plain LoRA (or LoHa or LoKr: LyCORIS has it on all).
pub(super) fn module(
    tensors: &mut ModuleTensors,
    lora: AdapterModule,
    layers: &mut BaseLayers,
) -> Result<AdapterModule, Error> {
    let d_out = lora.d_out;
    let magnitude = tensors.vector(MAGNITUDE, d_out)?;
    let layer = layers.find(&lora.name, lora.kind, lora.inputs.first().map(|x| x.dim), d_out)?;
    let norms = norms(&lora, &layers.read(&layer)?, &layer);

    let (mut scales, mut excess) = (Vec::with_capacity(d_out), Vec::with_capacity(d_out));
    for (at, (magnitude, norm)) in magnitude.into_iter().zip(norms).enumerate() {
        let m = f64::from(magnitude) / norm;
        if !((m * lora.scaling) as f32).is_finite() || !(m as f32).is_finite() {
            let reason = format!(
                "divided by the norm {norm:e} of output {at} of the base layer, is not finite in f32"
            );
            return Err(tensors.error(MAGNITUDE, reason));
        }
        scales.push((m * lora.scaling) as f32);
        excess.push((m - 1.0) as f32);
    }

    let mut of_base = Vec::new();
    let bias = if lora.kind != Kind::Embedding { layers.base.bias(&lora.name) } else { None };
    if let Some(bias) = bias {
        let shape = layers.base.shape(&bias)?;
        if shape != [d_out] {
            return Err(layers
                .base
                .error(&bias, format!("has the shape {shape:?} where [{d_out}] is expected")));
        }
        let negated = layers.base.read(&bias)?.into_iter().map(|value| -value).collect();
        of_base.push(Step::shift("minus_base_bias", negated));
    }
    of_base.push(Step::scale("mag_norm_scale_minus_1", excess));

    let AdapterModule { mut inputs, mut branches, .. } = lora;
    inputs.push(ModuleInput::base(d_out));
    for branch in &mut branches {
        branch.steps.push(Step::scale("mag_norm_scale_times_scaling", scales.clone()));
    }
    branches.push(Branch { input: 1, steps: of_base });
    Ok(AdapterModule { form: Form::Dora, inputs, branches, scaling: 1.0, ..lora })
}

/// `‖W + s·ΔW‖` of every row; `w` is `[d_out, d_in]`.
fn norms(lora: &AdapterModule, w: &[f32], layer: &BaseLayer) -> Vec<f64> {
    let steps: &[Step] = lora.branches.first().map_or(&[], |branch| &branch.steps);
    // The rows of ΔW, of one matrix or of two.
    let add = |row: &mut [f64], at: usize| match steps {
        [w] => {
            let delta = w.values.iter().skip(at * layer.d_in);
            row.iter_mut().zip(delta).for_each(|(sum, &w)| *sum += lora.scaling * f64::from(w));
        }
        [a, b] => {
            let rank = (b.values.len() / layer.d_out).max(1);
            let factors = b.values.iter().skip(at * rank).take(rank);
            for (&b, a) in factors.zip(a.values.chunks_exact(layer.d_in)) {
                let factor = f64::from(b) * lora.scaling;
                row.iter_mut().zip(a).for_each(|(sum, &a)| *sum += factor * f64::from(a));
            }
        }
        _ => {}
    };
    w.chunks_exact(layer.d_in)
        .enumerate()
        .map(|(at, w)| {
            let mut row: Vec<f64> = w.iter().map(|&w| f64::from(w)).collect();
            add(&mut row, at);
            row.iter().map(|value| value * value).sum::<f64>().sqrt()
        })
        .collect()
}
