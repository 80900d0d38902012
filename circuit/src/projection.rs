//! The only pass over the trace: random combinations of its rows (protocol 5.2).
//!
//! `ρ` has 128 bits a row. Both parties run this.

use rayon::prelude::*;

use crate::{
    field::{F, from_parts_of_32_bits, inner_product, powers},
    manifest::{Module, Pinned},
    row_sums::{self, LIMBS, STRIPE, Stripe, Weight},
    trace::{MAX_ROWS, Rows, Trace},
    transcript::Opening,
};

// The sums of all rows: a delta is below 2^63, a limb below 2^32.
const _: () = assert!(63 + 32 + MAX_ROWS.ilog2() < 127);

/// The 128-bit weights of `rows` rows of module `module`, as 32-bit limbs, least significant first.
pub fn row_weights(rho_key: &[u8; 32], module: usize, rows: usize) -> Vec<Weight> {
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
pub fn project_inputs(rho: &[Weight], x: &[i32], dim: usize) -> Vec<F> {
    stripes(dim, |stripe| row_sums::of_inputs(rho, x, stripe))
}

/// `ρᵀD` for integers below 2^`bits` in magnitude: `dim` field elements.
pub fn project_deltas(rho: &[Weight], d: &[i64], dim: usize, bits: u32) -> Vec<F> {
    stripes(dim, |stripe| row_sums::of_deltas(rho, d, bits, stripe))
}

/// Runs `sum` on stripes of the features and recombines the limbs.
fn stripes(dim: usize, sum: impl Fn(Stripe) -> Vec<[i128; LIMBS]> + Sync) -> Vec<F> {
    (0..dim.div_ceil(STRIPE))
        .into_par_iter()
        .flat_map_iter(|stripe| {
            let first = stripe * STRIPE;
            sum(Stripe { dim, first, width: STRIPE.min(dim - first) })
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
            .map(|(m, rows)| Projected::of(rows, &row_weights(&opening.rho_key, m, rows.count()), &modules[m], &gamma))
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
    fn of(rows: &Rows<'_>, rho: &[Weight], module: &Module, gamma: &[F]) -> Projected {
        let dim = |values: &[i32]| if rho.is_empty() { 0 } else { values.len() / rho.len() };
        let one = project_inputs(rho, rows.ones, dim(rows.ones)).first().copied().unwrap_or_default();
        let inputs = rows.inputs.iter().map(|x| project_inputs(rho, x, dim(x))).collect();
        let delta = if rho.is_empty() {
            F::from(0)
        } else {
            inner_product(&project_deltas(rho, rows.delta, module.d_out, module.delta_bits), gamma)
        };
        Projected { inputs, one, delta }
    }
}
