//! The Okamoto proof that re-randomised columns differ from the manifest's combination on the mask
//! rows only (docs/protocol.md, "Mask span").
//!
//! Statement: `P = f_1·L_{u−2} + f_2·L_{u−1}` for some `f`, where `P = Σ_k χ^k (C'_k − C_k)`. This
//! module has only the arithmetic. The transcript fixes the order of messages and challenges.

use crate::{
    field::{F, G1, G1Affine},
    layout::{Layout, MASKS},
    msm::msm,
};

/// The Lagrange basis points of the two mask rows.
pub fn mask_bases(layout: &Layout, lagrange: &[G1Affine]) -> [G1Affine; MASKS] {
    layout.mask_rows().map(|row| lagrange[row])
}

/// `n_1·L_{u−2} + n_2·L_{u−1}`.
pub fn commit_nonces(bases: &[G1Affine; MASKS], nonces: &[F; MASKS]) -> G1 {
    msm(bases, nonces)
}

/// `f_s = Σ_k χ^k f_{k,s}`: the χ-combination of the fresh values of all columns.
pub fn combine(fresh: &[[F; MASKS]], chi_powers: &[F]) -> [F; MASKS] {
    std::array::from_fn(|slot| fresh.iter().zip(chi_powers).map(|(f, chi)| f[slot] * chi).sum())
}

/// `z_s = n_s + ε·f_s`.
pub fn respond(nonces: &[F; MASKS], epsilon: F, f: &[F; MASKS]) -> [F; MASKS] {
    std::array::from_fn(|slot| nonces[slot] + epsilon * f[slot])
}

/// The terms of `z_1·L_{u−2} + z_2·L_{u−1} − R − ε·P`, which must sum to the identity. `p` are the
/// terms of P.
pub fn equation(
    bases: &[G1Affine; MASKS],
    z: &[F; MASKS],
    r: G1Affine,
    epsilon: F,
    p: impl Iterator<Item = (G1Affine, F)>,
) -> (Vec<G1Affine>, Vec<F>) {
    let fixed = [(bases[0], z[0]), (bases[1], z[1]), (r, -F::from(1))];
    fixed.into_iter().chain(p.map(|(point, weight)| (point, -(epsilon * weight)))).unzip()
}
