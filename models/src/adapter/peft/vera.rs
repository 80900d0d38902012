//! VeRA: `delta = λ_b ∘ (B (λ_d ∘ (A x)))`, with one pair of random matrices A, B for all modules
//! and two trained vectors each.
//!
//! `vera_A` `[r, largest d_in]` and `vera_B` `[largest d_out, r]` are cut to each module's size, as
//! in `peft`. They must be in the file (`save_projection=True`, the default), because matrices made
//! again from the seed may differ. No tensor of the adapter has `d_in` of a module, so it comes
//! from the base model.

use super::{
    base_layer::BaseLayers,
    module::{AdapterModule, Branch, Form, Kind, ModuleInput},
    module_tensors::{
        AdapterTensors,
        Dim::{Any, Is},
        Matrix, ModuleTensors,
    },
    step::Step,
};
use crate::{AppliesTo, Error};

/// Suffixes of the tensors of a module.
pub(super) const SUFFIXES: &[&str] = &[LAMBDA_B, LAMBDA_D];

/// Names of the tensors that all modules share.
pub(super) const SHARED: &[&str] = &[A, B];

const LAMBDA_B: &str = ".vera_lambda_b";
const LAMBDA_D: &str = ".vera_lambda_d";
const A: &str = "base_model.vera_A";
const B: &str = "base_model.vera_B";

/// The shared matrices.
pub(super) struct Projections {
    a: Matrix,
    b: Matrix,
}

impl Projections {
    pub(super) fn read(tensors: &mut AdapterTensors) -> Result<Projections, Error> {
        if let Some(missing) = SHARED.iter().find(|name| !tensors.has(name)) {
            let reason = "is missing: the random projections must be in the file, because projections made again from \
                          the seed may differ; train or save the adapter with save_projection=True";
            return Err(tensors.error(missing, reason));
        }
        let [rank, d_in] = tensors.dims(A, [Any("r"), Any("largest d_in")])?;
        let [d_out, _] = tensors.dims(B, [Any("largest d_out"), Is(rank)])?;
        let a = Matrix { rows: rank, cols: d_in, values: tensors.values("vera_A", A)? };
        let b = Matrix { rows: d_out, cols: rank, values: tensors.values("vera_B", B)? };
        Ok(Projections { a, b })
    }
}

pub(super) fn module(
    tensors: &mut ModuleTensors,
    shared: &Projections,
    layers: &mut BaseLayers,
) -> Result<AdapterModule, Error> {
    let Projections { a, b } = shared;
    let rank = a.rows;
    tensors.dims(LAMBDA_D, [Is(rank)])?;
    let [d_out] = tensors.dims(LAMBDA_B, [Any("d_out")])?;
    let layer = layers.find(&tensors.name, Kind::Linear, None, d_out)?;
    let d_in = layer.d_in;
    if d_out > b.rows || d_in > a.cols {
        let reason = format!(
            "belongs to a module with {d_in} -> {d_out} features, but the projections cover only {} -> {}; the base \
             model may be the wrong one",
            a.cols, b.rows
        );
        return Err(tensors.error(LAMBDA_B, reason));
    }
    tensors.reserve(d_in.checked_add(d_out).and_then(|sum| sum.checked_mul(rank)))?;
    let cut_a = (0..rank).flat_map(|row| &a.row(row)[..d_in]).copied().collect();
    let cut_b = b.values[..d_out * rank].to_vec();
    let steps = vec![
        Step::matrix("vera_A", [rank, d_in], cut_a),
        Step::scale("vera_lambda_d", tensors.values(LAMBDA_D)?),
        Step::matrix("vera_B", [d_out, rank], cut_b),
        Step::scale("vera_lambda_b", tensors.values(LAMBDA_B)?),
    ];
    Ok(AdapterModule {
        name: tensors.name.clone(),
        form: Form::Vera,
        kind: Kind::Linear,
        applies_to: AppliesTo::Output,
        inputs: vec![ModuleInput::x(d_in)],
        d_out,
        branches: vec![Branch { input: 0, steps }],
        scaling: 1.0,
    })
}
