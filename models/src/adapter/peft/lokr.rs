//! LoKr: `W = w1 ⊗ w2`, `delta = x Wᵀ · alpha / r`, where each factor is whole or of low rank
//! (`w1_a w1_b`, `w2_a w2_b`).
//!
//! A Kronecker product of products is a product of Kronecker products: with `w1 = u1 v1` and `w2 =
//! u2 v2`, `W = (u1 ⊗ u2)(v1 ⊗ v2)`, of rank rank(w1) · rank(w2). The rank of a whole factor `w` is
//! its smaller dimension (`w · I` or `I · w`). Where the rank is not below both dimensions of W, W
//! itself is written. Products are computed in f64 and rounded to f32 once. The scaling is `alpha /
//! r` whether or not a factor has rank r, as in `peft`. Of a convolution, w2 is over patches.

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
pub(super) const SUFFIXES: &[&str] =
    &[".lokr_w1", ".lokr_w1_a", ".lokr_w1_b", ".lokr_w2", ".lokr_w2_a", ".lokr_w2_b", T2];

const T2: &str = ".lokr_t2";

/// A matrix as a product `u v`.
struct Factored {
    u: Matrix,
    v: Matrix,
}

pub(super) fn module(
    tensors: &mut ModuleTensors,
    ranks: &Ranks,
    of_peft: bool,
) -> Result<AdapterModule, Error> {
    let rank = ranks.rank(&tensors.name)?;
    let (w1, _) = factored(tensors, [".lokr_w1", ".lokr_w1_a", ".lokr_w1_b"], rank)?;
    let (w2, kind) = factored(tensors, [".lokr_w2", ".lokr_w2_a", ".lokr_w2_b"], rank)?;
    // `peft` gives w1 the dimensions of a two-dimensional kernel only.
    let of_kernel = [".lokr_w2", T2].into_iter().find(|suffix| tensors.has(suffix));
    if let Some(suffix) = of_kernel.filter(|_| of_peft && kind == Kind::Convolution)
        && tensors.dimensions(suffix)? != 4
    {
        let reason = "is of a kernel whose product peft reshapes to another map than LoKr's: only \
                      kernels of two dimensions are supported; leave the module out with --module";
        return Err(tensors.error(suffix, reason));
    }

    let too_large = Error::ModuleTooLarge {
        module: tensors.name.clone(),
        reason: "the number of its features overflows".into(),
    };
    let sizes = [
        w1.u.rows.checked_mul(w2.u.rows),
        w1.v.cols.checked_mul(w2.v.cols),
        w1.v.rows.checked_mul(w2.v.rows),
    ];
    let [Some(d_out), Some(d_in), Some(inner)] = sizes else { return Err(too_large) };
    let steps = if inner < d_in.min(d_out) {
        tensors.reserve(d_in.checked_add(d_out).and_then(|sum| sum.checked_mul(inner)))?;
        vec![
            Step::matrix("lokr_b", [inner, d_in], kronecker(&w1.v, &w2.v)),
            Step::matrix("lokr_a", [d_out, inner], kronecker(&w1.u, &w2.u)),
        ]
    } else {
        tensors.reserve(d_in.checked_mul(d_out))?;
        vec![Step::matrix("lokr", [d_out, d_in], kronecker(&w1.product(), &w2.product()))]
    };
    Ok(AdapterModule {
        name: tensors.name.clone(),
        form: Form::LoKr,
        kind,
        applies_to: AppliesTo::Output,
        inputs: vec![ModuleInput::x(d_in)],
        d_out,
        branches: vec![Branch { input: 0, steps }],
        scaling: ranks.scaling(&tensors.name)?,
    })
}

/// One of the two factors of the Kronecker product, with the smallest inner dimension that its
/// shape allows.
fn factored(
    tensors: &mut ModuleTensors,
    [whole, left, right]: [&str; 3],
    rank: usize,
) -> Result<(Factored, Kind), Error> {
    if !tensors.has(whole) {
        let has_core = left == ".lokr_w2_a" && tensors.has(T2);
        let (u, v, kind) = if has_core {
            let u = tensors.matrix(left, [Is(rank), Any("rows")])?.transposed();
            let channels = tensors.matrix(right, [Is(rank), Any("channels")])?;
            (u, tucker::over_patches(tensors, T2, &channels)?.0, Kind::Convolution)
        } else {
            let u = tensors.matrix(left, [Any("rows"), Is(rank)])?;
            let (v, kernel) = tensors.kernel(right, [Is(rank), Any("columns")])?;
            (u, v, kind_of(&kernel))
        };
        let pair = Factored { u, v };
        if rank <= pair.u.rows.min(pair.v.cols) {
            return Ok((pair, kind));
        }
        tensors.reserve(pair.u.rows.checked_mul(pair.v.cols))?;
        return Ok((with_identity(tensors, pair.product())?, kind));
    }
    if let Some(suffix) = [left, right, T2]
        .into_iter()
        .find(|&suffix| tensors.has(suffix) && (suffix != T2 || left == ".lokr_w2_a"))
    {
        return Err(
            tensors.error(suffix, "is in the file beside the whole matrix, so peft would ignore it; save the adapter again")
        );
    }
    let (whole, kernel) = tensors.kernel(whole, [Any("rows"), Any("columns")])?;
    Ok((with_identity(tensors, whole)?, kind_of(&kernel)))
}

fn kind_of(kernel: &[usize]) -> Kind {
    if kernel.is_empty() { Kind::Linear } else { Kind::Convolution }
}

/// `w · I` or `I · w`, whichever has the smaller inner dimension.
fn with_identity(tensors: &mut ModuleTensors, w: Matrix) -> Result<Factored, Error> {
    let size = w.rows.min(w.cols);
    tensors.reserve(size.checked_mul(size))?;
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
