//! The only pass over the trace: random combinations of its rows (protocol 5.2).
//!
//! `ρ` has 128 bits a row. Activations are summed over 32-bit limbs of ρ in 64-bit accumulators that are flushed before
//! they can wrap; deltas in 128-bit accumulators. Both parties run this.

use rayon::prelude::*;

use crate::{
    field::{F, from_parts_of_32_bits, inner_product, powers},
    manifest::{MAX_X_BITS, Pinned},
    trace::{MAX_ROWS, Rows, Trace},
    transcript::Opening,
};

/// Limbs of ρ.
const LIMBS: usize = 4;
/// Rows between two flushes of the 64-bit accumulators: |x| < 2^23 and a limb below 2^32 make products below 2^55 in
/// magnitude, so 128 of them stay below 2^62.
const FLUSH: usize = 128;
/// Features that one task sums: keeps a task's accumulators in the first-level cache.
const STRIPE: usize = 256;

const _: () = assert!(MAX_X_BITS - 1 + 32 + FLUSH.ilog2() < 63);
// Deltas: a product is below 2^(63+32) in magnitude.
const _: () = assert!(63 + 32 + MAX_ROWS.ilog2() < 127);

/// The 128-bit weights of `rows` rows of module `module`, as 32-bit limbs, least significant first.
pub fn row_weights(rho_key: &[u8; 32], module: usize, rows: usize) -> Vec<[u32; LIMBS]> {
    let mut hasher = blake3::Hasher::new_keyed(rho_key);
    hasher.update(&(module as u64).to_le_bytes());
    let mut stream = hasher.finalize_xof();
    let mut bytes = vec![0u8; rows * 16];
    stream.fill(&mut bytes);
    bytes
        .chunks_exact(16)
        .map(|row| {
            let mut limbs = [0u32; LIMBS];
            for (limb, word) in limbs.iter_mut().zip(row.chunks_exact(4)) {
                *limb = word.iter().rev().fold(0, |value, byte| (value << 8) | u32::from(*byte));
            }
            limbs
        })
        .collect()
}

/// `ρᵀX` for integers below 2^23 in magnitude: `dim` field elements.
pub fn project_inputs(rho: &[[u32; LIMBS]], x: &[i32], dim: usize) -> Vec<F> {
    stripes(dim, |first, width| {
        let mut wide = vec![[0i128; LIMBS]; width];
        let mut narrow = vec![0i64; LIMBS * width];
        for (block, weights) in rho.chunks(FLUSH).enumerate() {
            narrow.fill(0);
            for (row, limbs) in weights.iter().enumerate() {
                let start = (block * FLUSH + row) * dim + first;
                let values = &x[start..start + width];
                for (acc, limb) in narrow.chunks_exact_mut(width).zip(limbs) {
                    let limb = i64::from(*limb);
                    for (a, v) in acc.iter_mut().zip(values) {
                        *a = a.wrapping_add(limb.wrapping_mul(i64::from(*v)));
                    }
                }
            }
            for (limb, acc) in narrow.chunks_exact(width).enumerate() {
                for (total, a) in wide.iter_mut().zip(acc) {
                    total[limb] += i128::from(*a);
                }
            }
        }
        wide
    })
}

/// `ρᵀD` for 64-bit integers: `dim` field elements.
pub fn project_deltas(rho: &[[u32; LIMBS]], d: &[i64], dim: usize) -> Vec<F> {
    stripes(dim, |first, width| {
        let mut wide = vec![[0i128; LIMBS]; width];
        for (row, limbs) in rho.iter().enumerate() {
            let start = row * dim + first;
            for (total, v) in wide.iter_mut().zip(&d[start..start + width]) {
                for (acc, limb) in total.iter_mut().zip(limbs) {
                    *acc = acc.wrapping_add(i128::from(*v).wrapping_mul(i128::from(*limb)));
                }
            }
        }
        wide
    })
}

/// Runs `sum(first feature, width)` on stripes of the features and recombines the limbs.
fn stripes(dim: usize, sum: impl Fn(usize, usize) -> Vec<[i128; LIMBS]> + Sync) -> Vec<F> {
    (0..dim.div_ceil(STRIPE))
        .into_par_iter()
        .flat_map_iter(|stripe| {
            let first = stripe * STRIPE;
            sum(first, STRIPE.min(dim - first))
        })
        .map(|limbs| from_parts_of_32_bits(&limbs))
        .collect()
}

/// Everything public that the relations need: computed by both sides from their own trace.
#[derive(Debug, Clone)]
pub struct Public {
    /// `v_g` for each group.
    pub groups: Vec<Vec<F>>,
    /// `Σ_l ρ_l·w_l` for each module (zero where there is no bias).
    pub ones: Vec<F>,
    /// `1, γ, γ², …`, as long as the longest output.
    pub gamma: Vec<F>,
    /// `c^m` for each module.
    pub c: Vec<F>,
    /// `δ = Σ_m c^m·ρ_mᵀ D_m γ⃗`.
    pub delta: F,
}

impl Public {
    /// The pass over the trace.
    pub fn of(pinned: &Pinned, trace: &Trace<'_>, opening: &Opening) -> Public {
        let modules = pinned.modules();
        let longest = modules.iter().map(|m| m.d_out).max().unwrap_or(0);
        let gamma = powers(opening.gamma, longest);
        let c = powers(opening.c, modules.len());
        let projected: Vec<Projected> = trace
            .modules()
            .par_iter()
            .enumerate()
            .map(|(m, rows)| {
                Projected::of(rows, &row_weights(&opening.rho_key, m, rows.count()), modules[m].d_out, &gamma)
            })
            .collect();
        let groups = pinned
            .pairs()
            .groups()
            .iter()
            .map(|group| {
                let vector = &projected[group.module].inputs[group.input];
                if group.scaled { vector.iter().zip(&gamma).map(|(y, g)| *y * g).collect() } else { vector.clone() }
            })
            .collect();
        let delta = projected.iter().zip(&c).map(|(p, c)| p.delta * c).sum();
        Public { groups, ones: projected.iter().map(|p| p.one).collect(), gamma, c, delta }
    }
}

/// One module's rows, combined.
struct Projected {
    inputs: Vec<Vec<F>>,
    one: F,
    delta: F,
}

impl Projected {
    fn of(rows: &Rows<'_>, rho: &[[u32; LIMBS]], d_out: usize, gamma: &[F]) -> Projected {
        let dim = |values: &[i32]| if rho.is_empty() { 0 } else { values.len() / rho.len() };
        let one = project_inputs(rho, rows.ones, dim(rows.ones)).first().copied().unwrap_or_default();
        let inputs = rows.inputs.iter().map(|x| project_inputs(rho, x, dim(x))).collect();
        let delta =
            if rho.is_empty() { F::from(0) } else { inner_product(&project_deltas(rho, rows.delta, d_out), gamma) };
        Projected { inputs, one, delta }
    }
}
