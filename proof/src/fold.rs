//! Folds the groups by a sumcheck: `Σ_g ⟨A*_g, v_g⟩ = claim` becomes one inner product
//! (docs/protocol.md, "Steps", step 5).
//!
//! This module has only the arithmetic. The prover and the verifier decide what is committed,
//! absorbed and drawn. A vector stands for its extension with zeros, and a missing group for a zero
//! vector.

use ff::Field;
use rayon::prelude::*;

use crate::field::{F, Secret, inner_product};

/// `g(0), g(1), g(2)` of a round polynomial of degree 2.
pub type Round = [F; 3];

/// The prover's side: the private vectors `A*_g` and the public `v_g`, halved in every round.
pub struct Folding {
    a: Vec<Secret>,
    v: Vec<Vec<F>>,
}

impl Folding {
    /// `a` and `v` have one entry a group; `rounds` is ⌈log₂ G⌉.
    pub fn new(mut a: Vec<Secret>, mut v: Vec<Vec<F>>, rounds: usize) -> Folding {
        a.resize_with(1 << rounds, Secret::default);
        v.resize_with(1 << rounds, Vec::new);
        Folding { a, v }
    }

    /// The polynomial of this round, in the most significant remaining bit of g.
    pub fn round(&self) -> Round {
        let half = self.a.len() / 2;
        (0..half)
            .into_par_iter()
            .map(|g| {
                let (a0, a1, v0, v1) =
                    (&self.a[g], &self.a[g + half], &self.v[g], &self.v[g + half]);
                let at_two = |low: &[F], high: &[F]| -> Vec<F> {
                    extended(low, high).map(|(l, h)| h.double() - l).collect()
                };
                let a2 = Secret(at_two(a0, a1));
                [inner_product(a0, v0), inner_product(a1, v1), inner_product(&a2, &at_two(v0, v1))]
            })
            .reduce(|| [F::ZERO; 3], |x, y| [x[0] + y[0], x[1] + y[1], x[2] + y[2]])
    }

    /// Fixes the bit to `r`.
    pub fn bind(&mut self, r: F) {
        let half = self.a.len() / 2;
        let bind = |low: &[F], high: &[F]| -> Vec<F> {
            extended(low, high).map(|(l, h)| l + r * (h - l)).collect()
        };
        self.a = (0..half)
            .into_par_iter()
            .map(|g| Secret(bind(&self.a[g], &self.a[g + half])))
            .collect();
        self.v = (0..half).into_par_iter().map(|g| bind(&self.v[g], &self.v[g + half])).collect();
    }

    /// `A**` and `x**`, after the last round.
    pub fn finish(mut self) -> (Secret, Vec<F>) {
        (self.a.pop().unwrap_or_default(), self.v.pop().unwrap_or_default())
    }
}

/// Both vectors, element by element, zero-extended to the longer one.
fn extended<'a>(low: &'a [F], high: &'a [F]) -> impl Iterator<Item = (F, F)> + 'a {
    let at = |v: &[F], i: usize| v.get(i).copied().unwrap_or(F::ZERO);
    (0..low.len().max(high.len())).map(move |i| (at(low, i), at(high, i)))
}

/// `eq(r, g)` for g = 0..count, most significant bit first: `Π_j (r_j if bit j of g else 1 − r_j)`.
pub fn eq_weights(r: &[F], count: usize) -> Vec<F> {
    let mut weights = vec![F::ONE];
    for r in r {
        weights = weights.iter().flat_map(|w| [*w * (F::ONE - r), *w * r]).collect();
    }
    weights.truncate(count);
    weights
}

/// `Σ_g eq_g·v_g`: what the verifier computes instead of folding.
pub fn fold_public(groups: &[Vec<F>], eq: &[F]) -> Vec<F> {
    let length = groups.iter().map(Vec::len).max().unwrap_or(0);
    (0..length)
        .into_par_iter()
        .map(|i| groups.iter().zip(eq).filter_map(|(v, e)| v.get(i).map(|x| *x * e)).sum())
        .collect()
}

/// Weights that take `g(0), g(1), g(2)` to `g(r)`: Lagrange interpolation at 0, 1, 2.
pub fn interpolation(r: F) -> Round {
    let one = F::ONE;
    let two = one.double();
    let half = F::from(2).invert().unwrap_or(F::ZERO);
    [(r - one) * (r - two) * half, r * (two - r), r * (r - one) * half]
}

#[cfg(test)]
mod tests {
    use rand_core::OsRng;

    use super::*;

    fn random(length: usize) -> Vec<F> {
        (0..length).map(|_| F::random(OsRng)).collect()
    }

    #[test]
    fn an_honest_fold_keeps_its_claim_in_every_round_for_any_number_of_groups() {
        for groups in [1usize, 2, 3, 4, 5, 7, 8, 9] {
            let a: Vec<Vec<F>> = (0..groups).map(|g| random(1 + 3 * g)).collect();
            let v: Vec<Vec<F>> = (0..groups).map(|g| random(1 + 3 * g)).collect();
            let rounds = groups.next_power_of_two().ilog2() as usize;
            let mut claim: F = a.iter().zip(&v).map(|(a, v)| inner_product(a, v)).sum();
            let mut folding =
                Folding::new(a.iter().cloned().map(Secret).collect(), v.clone(), rounds);
            let mut r = Vec::new();
            for _ in 0..rounds {
                let g = folding.round();
                assert_eq!(g[0] + g[1], claim);
                let challenge = F::random(OsRng);
                claim = inner_product(&g, &interpolation(challenge));
                folding.bind(challenge);
                r.push(challenge);
            }
            let (folded_a, folded_v) = folding.finish();
            assert_eq!(inner_product(&folded_a, &folded_v), claim);
            let eq = eq_weights(&r, groups);
            assert_eq!(fold_public(&v, &eq), folded_v);
            assert_eq!(fold_public(&a, &eq), *folded_a);
        }
    }
}
