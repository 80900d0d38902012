//! Variants of the protocol, each without one rule. A forgery that succeeds against exactly one of
//! them shows the purpose of the missing rule.

use ff::Field;

use super::cheat::Attack;
use crate::{
    field::{F, G1, powers},
    projection::Projection,
    relations::{Challenges, Relation, RelationName, a_weights, pair_weights, relations},
};

/// What a variant leaves out. The default leaves out nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// β is drawn before T and U are absorbed.
    pub beta_first: bool,
    /// Each r is drawn before its round is absorbed.
    pub r_first: bool,
    /// χ is drawn before the re-randomised columns are absorbed.
    pub chi_first: bool,
    /// ε is drawn before the nonce commitment is absorbed.
    pub epsilon_first: bool,
    /// η is drawn before anything is committed.
    pub eta_first: bool,
    /// The S columns are added up: round j at rows 3j..3j+2 of one column, their commitments
    /// summed.
    pub rounds_in_one: bool,
    /// The U cell of a scale has a product weight, although nothing pins it.
    pub free_u: bool,
}

impl Attack<'_> {
    /// The relations, as the rules have them.
    pub fn relations(&self, projection: &Projection, challenges: &Challenges) -> Vec<Relation> {
        let pairs = self.session.checked.pairs();
        let mut all = relations(&self.session.checked.layout(), pairs, projection, challenges);
        for Relation { name, weights } in &mut all {
            if self.rules.rounds_in_one && !weights.s.is_empty() {
                let cells = weights
                    .s
                    .iter()
                    .flat_map(|s| (0..3).map(|i| s.get(i).copied().unwrap_or(F::ZERO)));
                weights.s = vec![cells.collect()];
            }
            if self.rules.free_u && *name == RelationName::Product {
                for (i, pair) in pairs.iter().enumerate().filter(|(_, pair)| pair.b.is_none()) {
                    weights.t[i] = F::ZERO;
                    weights.e[i] = projection.c[pair.module];
                }
            }
        }
        all
    }

    /// A second implementation of `P = Σ_k χ^k (C'_k − C_k)`.
    pub fn difference(&self, a: &[G1], b: &[G1], beta: F, r: &[F], chi: F) -> G1 {
        let checked = &self.session.checked;
        let chi = powers(chi, a.len() + b.len());
        let b_weights = pair_weights(beta, checked.pairs());
        let a_weights = a_weights(checked.pairs(), &b_weights, r);
        let mut p: G1 = a.iter().chain(b).zip(&chi).map(|(point, chi)| *point * *chi).sum();
        for (points, (wa, wb)) in checked.points().iter().zip(a_weights.iter().zip(&b_weights)) {
            p -= points.a.iter().zip(&chi).map(|(point, chi)| *point * (*chi * wa)).sum::<G1>();
            p -= points
                .b
                .iter()
                .zip(&chi[a.len()..])
                .map(|(point, chi)| *point * (*chi * wb))
                .sum::<G1>();
        }
        p
    }
}
