//! Convolutions in the form of Tucker (LyCORIS, and `use_effective_conv2d` of `peft`): a core `[r,
//! r, …]` between a matrix over channels and one over outputs.
//!
//! With the core `t` and the matrix `b` over channels, the matrix over patches is `W[i, (c, tap)] =
//! Σ_j t[i, j, tap] · b[j, c]`, computed in f64 and rounded to f32 once.

use super::module_tensors::{
    Dim::{Any, Is},
    Matrix, ModuleTensors,
};
use crate::Error;

/// The matrix `[r, channels · taps]` of the core with this suffix and of `b` `[r, channels]`, with
/// the sizes of the kernel.
pub(super) fn over_patches(
    tensors: &mut ModuleTensors,
    core: &str,
    b: &Matrix,
) -> Result<(Matrix, Vec<usize>), Error> {
    let rank = b.rows;
    let (t, kernel) = tensors.kernel(core, [Is(rank), Any("r · taps")])?;
    let taps: usize = kernel.iter().product();
    if t.cols != rank * taps {
        let reason = format!("is not the core [{rank}, {rank}, …] that the rank asks for");
        return Err(tensors.error(core, reason));
    }
    let Some(cols) = b.cols.checked_mul(taps) else {
        return Err(tensors.error(core, "has too many taps for the channels of the module"));
    };
    tensors.reserve(cols.checked_mul(rank))?;
    let mut values = Vec::with_capacity(rank * cols);
    for i in 0..rank {
        let mut row = vec![0.0f64; cols];
        for (j, core) in t.row(i).chunks_exact(taps.max(1)).enumerate() {
            for (sums, &channel) in row.chunks_exact_mut(taps.max(1)).zip(b.row(j)) {
                let products = core.iter().map(|&tap| f64::from(tap) * f64::from(channel));
                sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
            }
        }
        values.extend(row.into_iter().map(|value| value as f32));
    }
    Ok((Matrix { rows: rank, cols, values }, kernel))
}
