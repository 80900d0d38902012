//! VeRA: `delta = λ_b ∘ (B (λ_d ∘ (A x)))`, with one pair of random matrices A, B for all modules
//! and two trained vectors each.
//!
//! `vera_A` `[r, largest d_in]` and `vera_B` `[largest d_out, r]` are cut to each module's size, as
//! in `peft`. They have to be in the file (`save_projection=True`, the default): made again from
//! the seed they may differ. `d_in` of a module is in no tensor of the adapter, so the base model
//! is asked.

use super::{
    base_layer::Layers,
    module::{AdapterModule, AppliesTo, Branch, Form, Kind, ModuleInput},
    parts::{
        Dim::{Any, Is},
        Matrix, Parts, Tensors,
    },
    step::Step,
};
use crate::Error;

/// The tensors that a module has.
pub(super) const ENDS: &[&str] = &[LAMBDA_B, LAMBDA_D];

/// The tensors that all modules share.
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
    pub(super) fn read(tensors: &mut Tensors) -> Result<Projections, Error> {
        if let Some(missing) = SHARED.iter().find(|name| !tensors.has(name)) {
            let reason = "is missing: the random projections have to be in the file, since made again from the seed \
                          they may differ; train or save the adapter with save_projection=True";
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
    parts: &mut Parts,
    shared: &Projections,
    layers: &mut Layers,
) -> Result<AdapterModule, Error> {
    let Projections { a, b } = shared;
    let rank = a.rows;
    parts.dims(LAMBDA_D, [Is(rank)])?;
    let [d_out] = parts.dims(LAMBDA_B, [Any("d_out")])?;
    let layer = layers.find(&parts.name, Kind::Linear, None, d_out)?;
    let d_in = layer.d_in;
    if d_out > b.rows || d_in > a.cols {
        let reason = format!(
            "is of a module with {d_in} -> {d_out} features, but the projections have room for {} -> {} only; the base \
             model may be another one",
            a.cols, b.rows
        );
        return Err(parts.error(LAMBDA_B, reason));
    }
    parts.reserve(d_in.checked_add(d_out).and_then(|sum| sum.checked_mul(rank)))?;
    let cut_a = (0..rank).flat_map(|row| &a.row(row)[..d_in]).copied().collect();
    let cut_b = b.values[..d_out * rank].to_vec();
    let steps = vec![
        Step::matrix("vera_A", [rank, d_in], cut_a),
        Step::scale("vera_lambda_d", parts.values(LAMBDA_D)?),
        Step::matrix("vera_B", [d_out, rank], cut_b),
        Step::scale("vera_lambda_b", parts.values(LAMBDA_B)?),
    ];
    Ok(AdapterModule {
        name: parts.name.clone(),
        form: Form::Vera,
        kind: Kind::Linear,
        applies_to: AppliesTo::Output,
        inputs: vec![ModuleInput::x(d_in)],
        d_out,
        branches: vec![Branch { input: 0, steps }],
        scaling: 1.0,
    })
}
