//! Norms (docs/inference-proof.md, "Operators", norm).

use std::sync::Arc;

use ff::Field;
use rayon::prelude::*;
use zklora_integer::{graph::NormKind, program::Action};
use zklora_proof::field::F;

use super::Reducer;
use crate::{
    Error,
    axis::{bits_for, dense_weights},
    cells::Expression,
    claims::Claim,
    fe::{Fe, Wiped, elements, inner_product},
    integers::{element, field, power},
    openings::Opening,
    plan::{Committed, ROOT_OFFSET},
    relations::Rule,
    schedule::LIMB,
    sumcheck::{Sumcheck, Table, Tables, Term},
    values::Value,
};

impl Reducer<'_, '_> {
    pub(super) fn norm(&mut self, at: usize, x: usize, kind: NormKind) -> Result<(), Error> {
        let (program, plan) = (self.program, self.plan);
        let (Action::Norm { epsilon, .. }, Committed::Norm { rho, .. }) =
            (&program.steps[at].action, &plan.committed[at])
        else {
            return Err(Error::Internal("a norm has the numbers of another kind".into()));
        };
        let width = self.widths(x);
        let bits = self.tokens().bits;
        let tokens = self.tokens().clone();
        let epsilon = field(epsilon.as_i256());

        // The inequalities: Σ_t [μ₁·R²·v + μ₂·(R + 2)²·v], up to R and v at one point.
        let [lower, upper, scaled] =
            [Value::Lower(at), Value::Upper(at), Value::Scaled(at)].map(|v| self.claims.take(v));
        let both: Vec<Claim> = lower.iter().chain(&upper).cloned().collect();
        let lambdas = self.lambdas(both.len());
        let weights = |claims: &[Claim], lambdas: &[F]| {
            let mut sums = vec![F::ZERO; tokens.len()];
            for (claim, lambda) in claims.iter().zip(lambdas) {
                let factor = *lambda * claim.features[0];
                sums.iter_mut().zip(claim.weights.iter()).for_each(|(s, w)| *s += factor * w);
            }
            sums
        };
        let (of_lower, of_upper) = lambdas.split_at(lower.len());
        let (mu1, mu2) = (weights(&lower, of_lower), weights(&upper, of_upper));
        let sums: Vec<F> = mu1.iter().zip(&mu2).map(|(a, b)| *a + b).collect();
        let four = F::from(4);
        let term = |coefficient, hidden: &[usize], public| Term {
            coefficient,
            hidden: hidden.to_vec(),
            public: Some(public),
        };
        let sumcheck = Sumcheck {
            rule: Rule::Operator("norm's root"),
            variables: bits,
            terms: vec![term(F::ONE, &[0, 0, 1], 0), term(four, &[0, 1], 1), term(four, &[1], 1)],
            hidden: 2,
        };
        let tables = self.secrets.map(|secrets| {
            let roots = self.roots(secrets, rho);
            let squares = self.squares(secrets, x, kind, Fe::from(epsilon));
            let weights = |values: &[F]| self.spread_matrix(&elements(values), 1);
            let hidden = vec![self.spread_matrix(&roots, 1), self.spread_matrix(&squares, 1)];
            Tables::dense(hidden, vec![weights(&sums), weights(&mu2)])
        });
        let claim = Self::joined_values(&both, &lambdas);
        let end = sumcheck.run(self.channel, self.relations, claim, tables, |point| {
            let eq = tokens.weights(point);
            let at = |weights: &[F]| weights.iter().zip(eq.iter()).map(|(w, e)| *w * e).sum();
            vec![at(&sums), at(&mu2)]
        })?;
        let root_weights = tokens.weights(&end.point);
        self.open_root(rho, &root_weights, &end.hidden[0]);
        let all: F = root_weights.iter().sum();
        let mut squares = end.hidden[1].clone();
        squares.constant -= all * epsilon;

        // Σ_{t,i} [M·R·y + N·y·y], up to R and y at one point.
        let lambdas = self.lambdas(scaled.len() + 1);
        let last = lambdas[scaled.len()];
        let claim = Self::joined_values(&scaled, &lambdas).plus(&squares, last);
        let sumcheck = Sumcheck {
            rule: Rule::Operator("norm"),
            variables: bits + bits_for(width),
            terms: vec![term(F::ONE, &[0, 1], 0), term(last, &[1, 1], 1)],
            hidden: 2,
        };
        let tables = self.secrets.map(|secrets| {
            let roots = self.roots(secrets, rho);
            let joined = self.joined(&scaled, &lambdas, width);
            let rows = |values: &[Fe]| Table::Rows {
                rows: self.spread_matrix(values, 1),
                bits: bits_for(width),
                width,
            };
            let y = self.spread(width, |row, out| self.input(secrets, x, kind, row, out));
            Tables {
                hidden: vec![rows(&roots), Table::Dense(y)],
                public: vec![
                    Table::Dense(self.spread_matrix(&joined, width)),
                    rows(&elements(&root_weights)),
                ],
                features: Some((bits_for(width), width)),
            }
        });
        let end = sumcheck.run(self.channel, self.relations, claim, tables, |point| {
            let (rows, features) = point.split_at(bits);
            let (rows, features) = (tokens.weights(rows), dense_weights(features, width));
            let all: F = features.iter().sum();
            let squares: F = rows.iter().zip(root_weights.iter()).map(|(a, b)| *a * b).sum();
            vec![Self::joined_at(&scaled, &lambdas, &rows, &features), squares * all]
        })?;
        // R was spread over the real features only.
        let (rows, features) = end.point.split_at(bits);
        let weights = tokens.weights(rows);
        let mut features = dense_weights(features, width);
        let all: F = features.iter().sum();
        let of_root: Vec<F> = weights.iter().map(|weight| *weight * all).collect();
        self.open_root(rho, &Arc::new(of_root), &end.hidden[0]);
        if kind == NormKind::Layer {
            // y = n·x − Σx
            let n = F::from(width as u64);
            features.iter_mut().for_each(|feature| *feature = *feature * n - all);
        }
        let value = end.hidden[1].clone();
        self.claim(x, Claim { weights, features, heads: None, value });
        Ok(())
    }

    /// `Σ_t weights[t]·R_t = value`, with `R = 2ρ + 257`.
    fn open_root(&mut self, rho: &[usize; 2], weights: &Arc<Vec<F>>, value: &Expression) {
        let all: F = weights.iter().sum();
        let mut opening = Opening { value: value.clone(), ..Opening::default() };
        opening.value.constant -= all * F::from(ROOT_OFFSET as u64);
        for (limb, shift) in rho.iter().zip([1, LIMB + 1]) {
            let factor = field(power(shift));
            opening.add(&self.plan.catalog, *limb, weights, &[F::ONE], factor);
        }
        self.openings.push(opening);
    }

    /// R of each token.
    fn roots(&self, secrets: &super::Secrets<'_>, rho: &[usize; 2]) -> Wiped {
        let at = |row: usize| {
            let limbs = rho.map(|limb| secrets.tensors[limb].get(row, 0));
            let rho = limbs[0] + (limbs[1] << LIMB);
            element(rho * 2 + ethnum::I256::from(ROOT_OFFSET))
        };
        Wiped((0..self.tokens().len()).map(at).collect())
    }

    /// y of a token, for all features.
    fn input(
        &self,
        secrets: &super::Secrets<'_>,
        x: usize,
        kind: NormKind,
        row: usize,
        out: &mut [Fe],
    ) {
        let grid = secrets.values.grid(Value::Result(x));
        out.iter_mut().enumerate().for_each(|(at, cell)| *cell = grid.element(row, at));
        if kind == NormKind::Layer {
            let n = Fe::of(grid.columns as i64);
            let sum: Fe = out.iter().copied().sum();
            out.iter_mut().for_each(|x| *x = *x * n - sum);
        }
    }

    /// v = Σ y² + ε' of each token.
    fn squares(
        &self,
        secrets: &super::Secrets<'_>,
        x: usize,
        kind: NormKind,
        epsilon: Fe,
    ) -> Wiped {
        let width = self.widths(x);
        let rows = (0..self.tokens().len()).into_par_iter().map(|row| {
            let mut y = Wiped(vec![Fe::ZERO; width]);
            self.input(secrets, x, kind, row, &mut y);
            epsilon + inner_product(&y, &y)
        });
        Wiped(rows.collect())
    }
}
