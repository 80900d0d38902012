//! LoKr: `W = w1 ⊗ w2`, `delta = x Wᵀ · alpha / r`, each factor whole or itself of low rank (`w1_a
//! w1_b`, `w2_a w2_b`).
//!
//! A Kronecker product of products is a product of Kronecker products: with `w1 = u1 v1` and `w2 =
//! u2 v2`, `W = (u1 ⊗ u2)(v1 ⊗ v2)`, of rank rank(w1) · rank(w2). A whole factor `w` counts with
//! its smaller dimension (`w · I` or `I · w`). Where the rank is not below both dimensions of W, W
//! itself is written. Products are computed in f64 and rounded to f32 once. The scaling is `alpha /
//! r` whether or not a factor has rank r, as in `peft`. Of linear layers only.

use super::{
    config::Ranks,
    module::{AdapterModule, AppliesTo, Branch, Form, Kind, ModuleInput},
    parts::{
        Dim::{Any, Is},
        Matrix, Parts,
    },
    step::Step,
};
use crate::Error;

/// The tensors that a module may have.
pub(super) const ENDS: &[&str] =
    &[".lokr_w1", ".lokr_w1_a", ".lokr_w1_b", ".lokr_w2", ".lokr_w2_a", ".lokr_w2_b", T2];

const T2: &str = ".lokr_t2";

/// A matrix as a product `u v`.
struct Factored {
    u: Matrix,
    v: Matrix,
}

pub(super) fn module(parts: &mut Parts, ranks: &Ranks) -> Result<AdapterModule, Error> {
    if parts.has(T2) {
        return Err(parts.error(
            T2,
            "is of a convolution, which is not supported; leave it out of target_modules",
        ));
    }
    let rank = ranks.rank(&parts.name);
    let w1 = factored(parts, [".lokr_w1", ".lokr_w1_a", ".lokr_w1_b"], rank)?;
    let w2 = factored(parts, [".lokr_w2", ".lokr_w2_a", ".lokr_w2_b"], rank)?;

    let too_large = Error::Module {
        module: parts.name.clone(),
        reason: "has more features than can be counted".into(),
    };
    let sizes = [
        w1.u.rows.checked_mul(w2.u.rows),
        w1.v.cols.checked_mul(w2.v.cols),
        w1.v.rows.checked_mul(w2.v.rows),
    ];
    let [Some(d_out), Some(d_in), Some(inner)] = sizes else { return Err(too_large) };
    let steps = if inner < d_in.min(d_out) {
        parts.reserve(d_in.checked_add(d_out).and_then(|sum| sum.checked_mul(inner)))?;
        vec![
            Step::matrix("lokr_b", [inner, d_in], kronecker(&w1.v, &w2.v)),
            Step::matrix("lokr_a", [d_out, inner], kronecker(&w1.u, &w2.u)),
        ]
    } else {
        parts.reserve(d_in.checked_mul(d_out))?;
        vec![Step::matrix("lokr", [d_out, d_in], kronecker(&w1.product(), &w2.product()))]
    };
    Ok(AdapterModule {
        name: parts.name.clone(),
        form: Form::LoKr,
        kind: Kind::Linear,
        applies_to: AppliesTo::Output,
        inputs: vec![ModuleInput::x(d_in)],
        d_out,
        branches: vec![Branch { input: 0, steps }],
        scaling: ranks.scaling(&parts.name)?,
    })
}

/// One of the two factors of the Kronecker product, as small in the middle as its shape allows.
fn factored(
    parts: &mut Parts,
    [whole, left, right]: [&str; 3],
    rank: usize,
) -> Result<Factored, Error> {
    if !parts.has(whole) {
        let u = parts.matrix(left, [Any("rows"), Is(rank)])?;
        let v = parts.matrix(right, [Is(rank), Any("columns")])?;
        let pair = Factored { u, v };
        if rank <= pair.u.rows.min(pair.v.cols) {
            return Ok(pair);
        }
        parts.reserve(pair.u.rows.checked_mul(pair.v.cols))?;
        return with_identity(parts, pair.product());
    }
    if let Some(end) = [left, right].into_iter().find(|end| parts.has(end)) {
        return Err(parts.error(end, "is there beside the whole matrix, so peft would ignore it"));
    }
    let whole = parts.matrix(whole, [Any("rows"), Any("columns")])?;
    with_identity(parts, whole)
}

/// `w · I` or `I · w`, whichever is smaller in the middle.
fn with_identity(parts: &mut Parts, w: Matrix) -> Result<Factored, Error> {
    let size = w.rows.min(w.cols);
    parts.reserve(size.checked_mul(size))?;
    let mut values = vec![0.0; size * size];
    values.iter_mut().step_by(size + 1).for_each(|one| *one = 1.0);
    let identity = Matrix { rows: size, cols: size, values };
    Ok(if w.cols == size { Factored { u: w, v: identity } } else { Factored { u: identity, v: w } })
}

impl Factored {
    fn product(&self) -> Matrix {
        let (rows, cols) = (self.u.rows, self.v.cols);
        let mut values = Vec::with_capacity(rows * cols);
        for row in 0..rows {
            let mut sum = vec![0.0f64; cols];
            for (at, &factor) in self.u.row(row).iter().enumerate() {
                sum.iter_mut()
                    .zip(self.v.row(at))
                    .for_each(|(sum, &v)| *sum += f64::from(factor) * f64::from(v));
            }
            values.extend(sum.into_iter().map(|value| value as f32));
        }
        Matrix { rows, cols, values }
    }
}

/// `left ⊗ right`, row-major.
fn kronecker(left: &Matrix, right: &Matrix) -> Vec<f32> {
    let mut out = Vec::with_capacity(left.values.len() * right.values.len());
    for i in 0..left.rows {
        for k in 0..right.rows {
            for &l in left.row(i) {
                out.extend(right.row(k).iter().map(|&r| (f64::from(l) * f64::from(r)) as f32));
            }
        }
    }
    out
}
