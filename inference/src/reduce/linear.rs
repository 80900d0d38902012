//! Linear layers, with the adapter's part (docs/inference-proof.md, "Operators", linear).

use std::sync::Arc;

use ff::Field;
use zklora_integer::{
    graph::Operator,
    products::Scaled,
    program::{Action, LowRank},
};
use zklora_proof::field::{F, from_i64, from_i128};

use super::Reducer;
use crate::{
    Error,
    axis::{bits_for, dense_weights},
    cells::Expression,
    claims::Claim,
    exact::times_vectors,
    fe::{Fe, Products, Wiped, elements, inner_product},
    integers::{field, power},
    plan::ModuleTensors,
    relations::Rule,
    sumcheck::{Sumcheck, Tables, Term},
    values::Value,
};

impl Reducer<'_, '_> {
    pub(super) fn linear(&mut self, at: usize, claims: Vec<Claim>) -> Result<(), Error> {
        if claims.is_empty() {
            return Ok(());
        }
        let program = self.program;
        let step = &program.steps[at];
        let (
            Operator::Linear { x, affine, weight, .. },
            Action::Linear { weight_bits, bias, lift, low_rank, .. },
        ) = (&step.operator, &step.action)
        else {
            return Err(Error::Internal("a layer has the numbers of another kind".into()));
        };
        // Claims on the logits are on scored positions; from here on they are on tokens.
        let claims: Vec<Claim> =
            claims.into_iter().map(|claim| self.on_tokens(at, claim)).collect();
        let weight = &program.graph.weights[*weight];
        let scaled = Scaled { weight, gain: affine.gain.as_deref(), bits: *weight_bits };
        let features: Vec<&[F]> = claims.iter().map(|claim| claim.features.as_slice()).collect();
        let lift = field(power(*lift));
        let through = transposed(scaled, &features, lift);
        // The claims, less what is constant.
        let without_bias = |claim: &Claim| {
            let mut value = claim.value.clone();
            if let Some(bias) = bias {
                let each = bias.iter().zip(&claim.features);
                let bias: F = each.map(|(b, w)| from_i128(*b) * w).sum();
                value.constant -= claim.weights.iter().sum::<F>() * bias * lift;
            }
            value
        };
        let claims: Vec<Claim> = claims
            .iter()
            .map(|claim| Claim { value: without_bias(claim), ..claim.clone() })
            .collect();
        match low_rank {
            None => {
                for (claim, features) in claims.into_iter().zip(through) {
                    self.claim(*x, Claim { features, heads: None, ..claim });
                }
                Ok(())
            }
            Some(low_rank) => self.adapted(*x, low_rank, &claims, &through),
        }
    }

    /// A claim on scored positions as one on the tokens that they point at.
    fn on_tokens(&self, at: usize, claim: Claim) -> Claim {
        if at != self.program.graph.logits {
            return claim;
        }
        let mut weights = vec![F::ZERO; self.tokens().len()];
        let each = self.plan.scored.1.iter().zip(claim.weights.iter());
        each.for_each(|(token, weight)| weights[*token] += *weight);
        Claim { weights: Arc::new(weights), ..claim }
    }

    /// With the adapter's part. `through` has the weights of the inputs through the matrix.
    fn adapted(
        &mut self,
        x: usize,
        low_rank: &LowRank,
        claims: &[Claim],
        through: &[Vec<F>],
    ) -> Result<(), Error> {
        let ModuleTensors { pairs, bias } = self.plan.modules[low_rank.module];
        let lambdas = self.lambdas(claims.len());
        let factor = from_i64(low_rank.factor) * field(power(low_rank.lift));
        let mut claim = Self::joined_values(claims, &lambdas);
        let sums: Vec<F> = claims.iter().map(|claim| claim.weights.iter().sum()).collect();

        if let (Some(tensor), Some((shift, _))) =
            (bias, &self.program.adapter.modules[low_rank.module].bias)
        {
            let outputs = claims[0].features.len();
            let mut features = vec![F::ZERO; outputs];
            for ((claim, lambda), sum) in claims.iter().zip(&lambdas).zip(&sums) {
                let weight = *lambda * sum;
                features.iter_mut().zip(&claim.features).for_each(|(f, w)| *f += weight * w);
            }
            let known = self.secrets.map(|s| vec![s.tensors[tensor].value(&[F::ONE], &features)]);
            let cell = self.channel.message("bias", 1, known)?.remove(0);
            self.open(tensor, vec![F::ONE], &features, &cell);
            claim.add(&cell, -(factor * from_i128(low_rank.one) * field(power(*shift))));
        }
        let Some([a, b]) = pairs else {
            return self.matrix_only(x, claims, through, &lambdas, claim);
        };
        let rank = self.plan.catalog.axes[self.plan.catalog.tensors[a].axis].len();
        let inputs = self.widths(x);
        let count = claims.len();
        let gain = |i: usize| low_rank.gain.as_ref().map_or(F::ONE, |gain| from_i128(gain[i]));
        let gains: Vec<F> = (0..inputs).map(gain).collect();
        let shifts: Option<Vec<F>> =
            low_rank.shift.as_ref().map(|shift| shift.iter().map(|s| from_i128(*s)).collect());

        // x_k, and P_k and B_k of each pair.
        let fe_gains = elements(&gains);
        let x_rows: Option<Vec<Wiped>> = self.secrets.map(|secrets| {
            let grid = secrets.values.grid(Value::Result(x));
            claims.iter().map(|claim| grid.fold(&claim.weights, 0..inputs)).collect()
        });
        let inner = self.secrets.zip(x_rows.as_ref()).map(|(secrets, x_rows)| {
            let rows_of = |tensor: usize, vector: &[Fe]| {
                let grid = &secrets.tensors[tensor];
                let row = |j: usize| {
                    let mut sum = Products::default();
                    vector.iter().enumerate().for_each(|(i, w)| sum.add(grid.element(j, i), *w));
                    sum.reduce()
                };
                Wiped((0..rank).map(row).collect())
            };
            let p = x_rows.iter().zip(&sums).map(|(x, sum)| {
                let u = (0..inputs).map(|i| {
                    let shift = shifts.as_ref().map_or(F::ZERO, |shifts| shifts[i]);
                    x[i] * fe_gains[i] + Fe::from(*sum * shift)
                });
                rows_of(a, &Wiped(u.collect()))
            });
            let b = claims.iter().map(|claim| rows_of(b, &elements(&claim.features)));
            (p.collect::<Vec<_>>(), b.collect::<Vec<_>>())
        });
        let low = inner.as_ref().map(|(p, b)| {
            let each = p.iter().zip(b).zip(&lambdas);
            vec![each.map(|((p, b), lambda)| F::from(inner_product(p, b)) * lambda).sum()]
        });
        let low = self.channel.message("low rank", 1, low)?.remove(0);
        claim.add(&low, -factor);

        // Over the pairs.
        let variables = bits_for(rank);
        let spread = |mut values: Wiped| {
            values.resize(1 << variables, Fe::ZERO);
            values
        };
        let terms = (0..count).map(|k| Term {
            coefficient: lambdas[k],
            hidden: vec![k, count + k],
            public: None,
        });
        let sumcheck = Sumcheck {
            rule: Rule::Operator("low rank"),
            variables,
            terms: terms.collect(),
            hidden: 2 * count,
        };
        let tables =
            inner.map(|(p, b)| Tables::dense(p.into_iter().chain(b).map(spread).collect(), vec![]));
        let end = sumcheck.run(self.channel, self.relations, low, tables, |_| vec![])?;
        let pair_weights = dense_weights(&end.point, rank);
        for (k, claim) in claims.iter().enumerate() {
            self.open(b, pair_weights.clone(), &claim.features, &end.hidden[count + k]);
        }

        // Over the inputs: the matrix's part, and with fresh powers the P_k.
        let a_row = self.secrets.map(|secrets| secrets.tensors[a].fold(&pair_weights, 0..inputs));
        let shift_part = match &shifts {
            None => None,
            Some(shifts) => {
                let product = |a: &Wiped| inner_product(a, &elements(shifts)).into();
                let known = a_row.as_ref().map(|a| vec![product(a)]);
                let cell = self.channel.message("shift", 1, known)?.remove(0);
                self.open(a, pair_weights.clone(), shifts, &cell);
                Some(cell)
            }
        };
        let others = self.lambdas(count);
        for (k, (other, sum)) in others.iter().zip(&sums).enumerate() {
            claim.add(&end.hidden[k], *other);
            if let Some(part) = &shift_part {
                claim.add(part, -(*other * sum));
            }
        }
        let gained = a_row.map(|a| Wiped(a.iter().zip(&fe_gains).map(|(a, g)| *a * *g).collect()));
        let mut terms: Vec<Term> = (0..count)
            .map(|k| Term { coefficient: lambdas[k], hidden: vec![k], public: Some(k) })
            .collect();
        terms.extend((0..count).map(|k| Term {
            coefficient: others[k],
            hidden: vec![k, count],
            public: None,
        }));
        let variables = bits_for(inputs);
        let sumcheck = Sumcheck {
            rule: Rule::Operator("adapted linear"),
            variables,
            terms,
            hidden: count + 1,
        };
        let spread = |mut values: Vec<Fe>| {
            values.resize(1 << variables, Fe::ZERO);
            Wiped(values)
        };
        let tables = x_rows.zip(gained).map(|(x_rows, gained)| {
            let hidden = x_rows.iter().chain([&gained]).map(|x| spread(x.to_vec())).collect();
            Tables::dense(hidden, through.iter().map(|w| spread(elements(w))).collect())
        });
        let end = sumcheck.run(self.channel, self.relations, claim, tables, |point| {
            let eq = dense_weights(point, inputs);
            let eq = elements(&eq);
            let product = |through: &Vec<F>| inner_product(&elements(through), &eq).into();
            through.iter().map(product).collect()
        })?;
        let eq = dense_weights(&end.point, inputs);
        let with_gains: Vec<F> = eq.iter().zip(&gains).map(|(w, g)| *w * g).collect();
        self.open(a, pair_weights, &with_gains, &end.hidden[count]);
        for (claim, value) in claims.iter().zip(&end.hidden) {
            let (weights, features) = (Arc::clone(&claim.weights), eq.clone());
            self.claim(x, Claim { weights, features, heads: None, value: value.clone() });
        }
        Ok(())
    }

    /// An adapter with a bias only: the matrix's part is a claim on x for each claim.
    fn matrix_only(
        &mut self,
        x: usize,
        claims: &[Claim],
        through: &[Vec<F>],
        lambdas: &[F],
        mut rest: Expression,
    ) -> Result<(), Error> {
        let last = claims.len() - 1;
        let known: Option<Vec<F>> =
            (0..last).map(|k| self.known(x, &claims[k].weights, &through[k])).collect();
        let cells = match last {
            0 => vec![],
            _ => self.channel.message("summands", last, known)?,
        };
        for (k, cell) in cells.iter().enumerate() {
            rest.add(cell, -lambdas[k]);
        }
        let inverse = Option::<F>::from(lambdas[last].invert()).unwrap_or(F::ZERO);
        let values = cells.into_iter().chain([rest.times(inverse)]);
        for ((claim, features), value) in claims.iter().zip(through).zip(values) {
            let (weights, features) = (Arc::clone(&claim.weights), features.clone());
            self.claim(x, Claim { weights, features, heads: None, value });
        }
        Ok(())
    }
}

/// For each vector over the outputs, `factor·Σ_o vector[o]·W_oi` for all inputs.
fn transposed(scaled: Scaled<'_>, vectors: &[&[F]], factor: F) -> Vec<Vec<F>> {
    let inputs = scaled.weight.inputs();
    let vectors: Vec<Vec<Fe>> = vectors.iter().map(|vector| elements(vector)).collect();
    let blocks = scaled.blocks(|first, block| {
        let of_block = vectors.iter().map(|vector| &vector[first..first + block.ncols()]);
        times_vectors(&block, &of_block.collect::<Vec<_>>())
    });
    let mut sums = vec![vec![Fe::ZERO; inputs]; vectors.len()];
    for block in blocks {
        for (sums, more) in sums.iter_mut().zip(block) {
            sums.iter_mut().zip(more.iter()).for_each(|(sum, more)| *sum += *more);
        }
    }
    let factor = Fe::from(factor);
    sums.iter().map(|sums| sums.iter().map(|sum| F::from(*sum * factor)).collect()).collect()
}
