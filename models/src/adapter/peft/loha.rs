//! LoHa: `W = (w1_a w1_b) ∘ (w2_a w2_b)`, `delta = x Wᵀ · alpha / r`.
//!
//! The Hadamard product of two matrices of rank r has rank r²: `W[o, c] = Σ_ij (w1_a[o, i] w2_a[o,
//! j]) (w1_b[i, c] w2_b[j, c])`, whose factors are Khatri-Rao products. They are computed in f64
//! and rounded to f32 once. Where r² is not below both dimensions of W, W itself is written,
//! because it is not larger. A convolution has whole kernels as matrices over patches, or the form
//! of Tucker. (`peft` has no LoHa for Conv1D.)

use super::{
    config::Ranks,
    module::{AdapterModule, Branch, Form, Kind, ModuleInput},
    module_tensors::{
        Dim::{Any, Is},
        Matrix, ModuleTensors,
    },
    step::Step,
    tucker,
};
use crate::{AppliesTo, Error};

/// Suffixes of the tensors that a module may have.
pub(super) const SUFFIXES: &[&str] = &[W1_A, W1_B, W2_A, W2_B, T1, T2];

const W1_A: &str = ".hada_w1_a";
const W1_B: &str = ".hada_w1_b";
const W2_A: &str = ".hada_w2_a";
const W2_B: &str = ".hada_w2_b";
const T1: &str = ".hada_t1";
const T2: &str = ".hada_t2";

pub(super) fn module(tensors: &mut ModuleTensors, ranks: &Ranks) -> Result<AdapterModule, Error> {
    let rank = ranks.rank(&tensors.name)?;
    let (w1_a, w1_b, kind) = pair(tensors, [W1_A, W1_B, T1], rank)?;
    let (d_out, d_in) = (w1_a.rows, w1_b.cols);
    let (w2_a, w2_b, other) = pair(tensors, [W2_A, W2_B, T2], rank)?;
    if (w2_a.rows, w2_b.cols, other) != (d_out, d_in, kind) {
        let reason = "does not have the sizes of hada_w1_a and hada_w1_b; save the adapter again";
        return Err(tensors.error(W2_A, reason));
    }

    let low = rank.checked_mul(rank).filter(|&squared| squared < d_in.min(d_out));
    let steps = match low {
        Some(squared) => {
            tensors.reserve(d_in.checked_add(d_out).and_then(|sum| sum.checked_mul(squared)))?;
            let (up, down) = khatri_rao(&w1_a, &w1_b, &w2_a, &w2_b);
            vec![
                Step::matrix("hada_b", [squared, d_in], down),
                Step::matrix("hada_a", [d_out, squared], up),
            ]
        }
        None => {
            tensors.reserve(d_in.checked_mul(d_out))?;
            vec![Step::matrix("hada", [d_out, d_in], hadamard(&w1_a, &w1_b, &w2_a, &w2_b))]
        }
    };
    Ok(AdapterModule {
        name: tensors.name.clone(),
        form: Form::LoHa,
        kind,
        applies_to: AppliesTo::Output,
        inputs: vec![ModuleInput::x(d_in)],
        d_out,
        branches: vec![Branch { input: 0, steps }],
        scaling: ranks.scaling(&tensors.name)?,
    })
}

/// One factor `[d_out, rank]`, `[rank, d_in]`, over patches if the module has the core of a
/// convolution.
fn pair(
    tensors: &mut ModuleTensors,
    [a, b, core]: [&str; 3],
    rank: usize,
) -> Result<(Matrix, Matrix, Kind), Error> {
    if !tensors.has(core) {
        let a = tensors.matrix(a, [Any("d_out"), Is(rank)])?;
        return Ok((a, tensors.matrix(b, [Is(rank), Any("d_in")])?, Kind::Linear));
    }
    let outputs = tensors.matrix(a, [Is(rank), Any("d_out")])?.transposed();
    let channels = tensors.matrix(b, [Is(rank), Any("channels")])?;
    let (patches, _) = tucker::over_patches(tensors, core, &channels)?;
    Ok((outputs, patches, Kind::Convolution))
}

/// Two matrices `[d_out, r²]` and `[r², d_in]`, whose product is the Hadamard product.
fn khatri_rao(w1_a: &Matrix, w1_b: &Matrix, w2_a: &Matrix, w2_b: &Matrix) -> (Vec<f32>, Vec<f32>) {
    let product = |left: f32, right: f32| (f64::from(left) * f64::from(right)) as f32;
    let up = (0..w1_a.rows)
        .flat_map(|o| {
            w1_a.row(o).iter().flat_map(move |&i| w2_a.row(o).iter().map(move |&j| product(i, j)))
        })
        .collect();
    let down = (0..w1_b.rows)
        .flat_map(|i| (0..w2_b.rows).map(move |j| (i, j)))
        .flat_map(|(i, j)| {
            w1_b.row(i).iter().zip(w2_b.row(j)).map(move |(&left, &right)| product(left, right))
        })
        .collect();
    (up, down)
}

/// The Hadamard product, `[d_out, d_in]`.
fn hadamard(w1_a: &Matrix, w1_b: &Matrix, w2_a: &Matrix, w2_b: &Matrix) -> Vec<f32> {
    let row = |a: &[f32], b: &Matrix| -> Vec<f64> {
        let mut sum = vec![0.0; b.cols];
        for (at, &factor) in a.iter().enumerate() {
            sum.iter_mut()
                .zip(b.row(at))
                .for_each(|(sum, &value)| *sum += f64::from(factor) * f64::from(value));
        }
        sum
    };
    (0..w1_a.rows)
        .flat_map(|o| row(w1_a.row(o), w1_b).into_iter().zip(row(w2_a.row(o), w2_b)))
        .map(|(left, right)| (left * right) as f32)
        .collect()
}
