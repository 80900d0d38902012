//! Reduces claims on the results of operators to claims on what they read, from the last operator
//! to the first (docs/inference-proof.md, "Operators").

mod attention;
mod linear;
mod norm;

use std::sync::Arc;

use ff::Field;
use rayon::prelude::*;
use zklora_integer::{
    evaluate::table_rows,
    graph::Operator,
    program::{Action, Program},
};
use zklora_proof::field::{F, powers};

use crate::{
    Error,
    axis::{Axis, bits_for, dense_weights},
    cells::Expression,
    channel::Channel,
    claims::{Claim, Claims},
    fe::{Fe, Wiped, elements, inner_product},
    integers::{Grid, element, field, power},
    openings::Opening,
    plan::{Defined, Plan},
    relations::{Relations, Rule},
    statement::Claimed,
    sumcheck::{Sumcheck, Tables, Term},
    tensors::{TensorId, View},
    values::{Value, Values},
};

/// What the prover knows.
pub(crate) struct Secrets<'a> {
    /// The tensors, those of the manifest included.
    pub tensors: &'a [Grid],
    /// Virtual values, and all results.
    pub values: &'a Values,
}

/// The state of the reduction.
pub(crate) struct Reducer<'a, 'c> {
    pub channel: &'a mut Channel<'c>,
    pub relations: &'a mut Relations,
    pub openings: &'a mut Vec<Opening>,
    pub claims: &'a mut Claims,
    pub plan: &'a Plan,
    pub program: &'a Program,
    pub claimed: &'a Claimed,
    pub secrets: Option<&'a Secrets<'a>>,
}

impl Reducer<'_, '_> {
    /// Reduces all claims.
    ///
    /// # Errors
    /// Those of [`Channel::message`].
    pub fn run(&mut self) -> Result<(), Error> {
        for at in (0..self.program.steps.len()).rev() {
            self.operator(at)?;
        }
        self.committed_results();
        Ok(())
    }

    /// The committed results are those of the statement: one sum of all, with powers of λ.
    fn committed_results(&mut self) {
        let plan = self.plan;
        let Some(tensor) = plan.sums else { return };
        let lambdas = self.lambdas(plan.results.len());
        let mut opening = Opening::default();
        let catalog = &plan.catalog;
        let one = Arc::new(vec![F::ONE]);
        opening.add(catalog, tensor, &one, &lambdas, F::ONE);
        for (score, lambda) in plan.results.iter().zip(&lambdas) {
            let sign = ethnum::I256::from(-score.sign);
            let picks = score.cells.iter().map(|(row, at)| (*row, *at, sign)).collect();
            let picked = View::Picked(Arc::new(vec![picks]));
            opening.add_view(catalog, score.tensor, &picked, &one, &[*lambda], F::ONE);
        }
        self.openings.push(opening);
    }

    fn operator(&mut self, at: usize) -> Result<(), Error> {
        let (program, plan) = (self.program, self.plan);
        let step = &program.steps[at];
        match (&step.operator, &step.action) {
            (Operator::Norm { x, kind, .. }, Action::Norm { .. }) => {
                return self.norm(at, *x, *kind);
            }
            (Operator::Linear { .. }, Action::Linear { .. }) => {
                let value = match plan.defined[at] {
                    Defined::Committed(..) => Value::Accumulator(at),
                    _ => Value::Result(at),
                };
                let claims = self.claims.take(value);
                return self.linear(at, claims);
            }
            (Operator::Attention { .. }, _) => return self.attention(at),
            _ => {}
        }
        let claims = self.claims.take(Value::Result(at));
        if claims.is_empty() {
            return Ok(());
        }
        match (&step.operator, &step.action) {
            (Operator::Embedding { table }, Action::Table { bits }) => {
                let tokens = self.claimed.sequences.iter().flat_map(|s| &s.tokens);
                let rows: Vec<usize> = tokens.map(|token| *token as usize).collect();
                self.public(&claims, table_rows(program, *table, *bits, &rows));
                Ok(())
            }
            (Operator::Positions { table }, Action::Table { bits }) => {
                let places = self.tokens().places.iter();
                let rows: Vec<usize> = places.map(|place| place % plan.length).collect();
                self.public(&claims, table_rows(program, *table, *bits, &rows));
                Ok(())
            }
            (Operator::Sum { terms }, Action::Sum { shifts }) => self.sum(&claims, terms, shifts),
            (Operator::Select { x, from, .. }, _) => {
                let width = self.widths(*x);
                for claim in claims {
                    let mut features = vec![F::ZERO; width];
                    features[*from..*from + claim.features.len()].copy_from_slice(&claim.features);
                    self.claim(*x, Claim { features, ..claim });
                }
                Ok(())
            }
            (Operator::Rotary { x, .. }, Action::Rotary { .. }) => self.rotary(at, *x, &claims),
            (Operator::Product { x, y }, _) => self.product(*x, *y, &claims),
            (operator, _) => Err(Error::Internal(format!(
                "claims on the result of operator {at} ({})",
                operator.name()
            ))),
        }
    }

    fn tokens(&self) -> &Axis {
        &self.plan.catalog.axes[self.plan.tokens]
    }

    fn widths(&self, at: usize) -> usize {
        self.program.graph.widths()[at]
    }

    /// Powers of a fresh challenge, from the first on: one for each claim.
    fn lambdas(&mut self, count: usize) -> Vec<F> {
        let lambda = self.channel.challenge("lambda");
        powers(lambda, count + 1).split_off(1)
    }

    /// A claim on the result of an operator: an opening if the result is committed.
    fn claim(&mut self, x: usize, claim: Claim) {
        let Defined::Committed(parts, constant) = &self.plan.defined[x] else {
            self.claims.push(Value::Result(x), claim);
            return;
        };
        let all: F = claim.weights.iter().sum::<F>() * claim.features.iter().sum::<F>();
        let mut opening = Opening { value: claim.value, ..Opening::default() };
        opening.value.constant -= all * field(*constant);
        for (tensor, coefficient) in parts {
            opening.add(
                &self.plan.catalog,
                *tensor,
                &claim.weights,
                &claim.features,
                field(*coefficient),
            );
        }
        self.openings.push(opening);
    }

    /// An opening of one tensor.
    fn open(&mut self, tensor: TensorId, weights: Vec<F>, features: &[F], value: &Expression) {
        let mut opening = Opening { value: value.clone(), ..Opening::default() };
        opening.add(&self.plan.catalog, tensor, &Arc::new(weights), features, F::ONE);
        self.openings.push(opening);
    }

    /// Claims on what the tokens alone fix.
    fn public(&mut self, claims: &[Claim], rows: zklora_integer::matrix::Matrix) {
        let grid = Grid::new(rows);
        for claim in claims {
            let value = grid.value(&claim.weights, &claim.features);
            let mut linear = claim.value.clone();
            linear.constant -= value;
            self.relations.require(Rule::Public, linear, vec![]);
        }
    }

    /// The value of a claim on a result, for who knows it.
    fn known(&self, x: usize, weights: &[F], features: &[F]) -> Option<F> {
        let grid = self.secrets?.values.grid(Value::Result(x));
        Some(grid.value(weights, features))
    }

    /// A claim on a sum is one on each summand; the last follows from the others.
    fn sum(&mut self, claims: &[Claim], terms: &[usize], shifts: &[u32]) -> Result<(), Error> {
        let factors: Vec<F> = shifts.iter().map(|shift| field(power(*shift))).collect();
        let last = terms.len() - 1;
        for claim in claims {
            let known: Option<Vec<F>> = terms[..last]
                .iter()
                .map(|x| self.known(*x, &claim.weights, &claim.features))
                .collect();
            let mut rest = claim.value.clone();
            let cells = self.channel.message("summands", last, known)?;
            for ((x, factor), cell) in terms.iter().zip(&factors).zip(&cells) {
                rest.add(cell, -*factor);
                self.claim(*x, Claim { value: cell.clone(), ..claim.clone() });
            }
            let inverse = Option::<F>::from(factors[last].invert()).unwrap_or(F::ZERO);
            let value = rest.times(inverse);
            self.claim(terms[last], Claim { value, ..claim.clone() });
        }
        Ok(())
    }

    /// `Σ_k λ^k·weights_k(t)·features_k(i)` for all elements and features.
    fn joined(&self, claims: &[Claim], lambdas: &[F], width: usize) -> Vec<Fe> {
        let features: Vec<Vec<Fe>> = claims.iter().map(|claim| elements(&claim.features)).collect();
        let mut sums = vec![Fe::ZERO; self.tokens().len() * width];
        sums.par_chunks_mut(width.max(1)).enumerate().for_each(|(row, sums)| {
            for ((claim, lambda), features) in claims.iter().zip(lambdas).zip(&features) {
                let weight = Fe::from(claim.weights[row]) * Fe::from(*lambda);
                sums.iter_mut().zip(features).for_each(|(sum, f)| *sum += weight * *f);
            }
        });
        sums
    }

    /// The same, summed with weights of elements and features.
    fn joined_at(claims: &[Claim], lambdas: &[F], rows: &[F], features: &[F]) -> F {
        let product = |a: &[F], b: &[F]| inner_product(&elements(a), &elements(b));
        let each = claims.iter().zip(lambdas).map(|(claim, lambda)| {
            let sums = product(&claim.weights, rows) * product(&claim.features, features);
            *lambda * F::from(sums)
        });
        each.sum()
    }

    /// `Σ_k λ^k·E_k`
    fn joined_values(claims: &[Claim], lambdas: &[F]) -> Expression {
        let mut sum = Expression::default();
        claims.iter().zip(lambdas).for_each(|(claim, lambda)| sum.add(&claim.value, *lambda));
        sum
    }

    /// A matrix of elements and features on its hypercube, from its rows.
    fn spread(&self, width: usize, fill: impl Fn(usize, &mut [Fe]) + Sync) -> Wiped {
        let (bits, places) = (bits_for(width), 1usize << self.tokens().bits);
        let mut out = vec![Fe::ZERO; places << bits];
        let mut rows = vec![None; places];
        let elements = self.tokens().places.iter().enumerate();
        elements.for_each(|(row, place)| rows[*place] = Some(row));
        out.par_chunks_mut(1 << bits).zip(rows).for_each(|(out, row)| {
            if let Some(row) = row {
                fill(row, &mut out[..width]);
            }
        });
        Wiped(out)
    }

    /// The same of a matrix that is there.
    fn spread_matrix(&self, values: &[Fe], width: usize) -> Wiped {
        self.spread(width, |row, out| out.copy_from_slice(&values[row * width..][..width]))
    }

    /// A result on its hypercube.
    fn spread_result(&self, secrets: &Secrets<'_>, x: usize) -> Wiped {
        let grid = secrets.values.grid(Value::Result(x));
        self.spread(grid.columns, |row, out| {
            out.iter_mut().enumerate().for_each(|(at, cell)| *cell = grid.element(row, at));
        })
    }

    /// Weights of elements and of features at a point of their hypercube.
    fn at_point(&self, point: &[F], width: usize) -> (Arc<Vec<F>>, Vec<F>) {
        let (rows, features) = point.split_at(self.tokens().bits);
        (self.tokens().weights(rows), dense_weights(features, width))
    }

    fn product(&mut self, x: usize, y: usize, claims: &[Claim]) -> Result<(), Error> {
        let width = self.widths(x);
        let lambdas = self.lambdas(claims.len());
        let sumcheck = Sumcheck {
            rule: Rule::Operator("product"),
            variables: self.tokens().bits + bits_for(width),
            terms: vec![Term { coefficient: F::ONE, hidden: vec![0, 1], public: Some(0) }],
            hidden: 2,
        };
        let features = Some((bits_for(width), width));
        let tables = self.secrets.map(|secrets| {
            let hidden = vec![self.spread_result(secrets, x), self.spread_result(secrets, y)];
            let joined = self.spread_matrix(&self.joined(claims, &lambdas, width), width);
            Tables { features, ..Tables::dense(hidden, vec![joined]) }
        });
        let claim = Self::joined_values(claims, &lambdas);
        let (tokens, bits) = (self.tokens().clone(), self.tokens().bits);
        let end = sumcheck.run(self.channel, self.relations, claim, tables, |point| {
            let (rows, features) = point.split_at(bits);
            let (rows, features) = (tokens.weights(rows), dense_weights(features, width));
            vec![Self::joined_at(claims, &lambdas, &rows, &features)]
        })?;
        let (weights, features) = self.at_point(&end.point, width);
        for (x, value) in [x, y].into_iter().zip(end.hidden) {
            let (weights, features) = (Arc::clone(&weights), features.clone());
            self.claim(x, Claim { weights, features, heads: None, value });
        }
        Ok(())
    }

    fn rotary(&mut self, at: usize, x: usize, claims: &[Claim]) -> Result<(), Error> {
        let step = &self.program.steps[at];
        let (Operator::Rotary { rotations, .. }, Action::Rotary { waves }) =
            (&step.operator, &step.action)
        else {
            return Err(Error::Internal("a rotation has the numbers of another kind".into()));
        };
        let width = self.widths(x);
        let lambdas = self.lambdas(claims.len());
        let joined = self.joined(claims, &lambdas, width);
        // Feature d of the result is cosine·x[d] ± sine·x[partner].
        let one = element(power(zklora_integer::rules::WAVE_BITS));
        let mut turned = vec![Fe::ZERO; joined.len()];
        let rows = turned.par_chunks_mut(width).zip(joined.par_chunks(width));
        rows.zip(&self.tokens().places).for_each(|((turned, joined), place)| {
            let position = place % self.plan.length;
            for (feature, weight) in joined.iter().enumerate() {
                let within = feature % rotations.len();
                let rotation = &rotations[within];
                let wave = waves[within].as_ref().and_then(|wave| wave.get(position).copied());
                match wave {
                    None => turned[feature] += *weight * one,
                    Some((cosine, sine)) => {
                        let [cosine, sine] = [cosine, sine].map(|x| Fe::of(x.into()));
                        let sine = if rotation.negative { -sine } else { sine };
                        turned[feature] += *weight * cosine;
                        turned[feature - within + rotation.partner] += *weight * sine;
                    }
                }
            }
        });
        let sumcheck = Sumcheck {
            rule: Rule::Operator("rotary"),
            variables: self.tokens().bits + bits_for(width),
            terms: vec![Term { coefficient: F::ONE, hidden: vec![0], public: Some(0) }],
            hidden: 1,
        };
        let features = Some((bits_for(width), width));
        let tables = self.secrets.map(|secrets| {
            let hidden = vec![self.spread_result(secrets, x)];
            Tables { features, ..Tables::dense(hidden, vec![self.spread_matrix(&turned, width)]) }
        });
        let claim = Self::joined_values(claims, &lambdas);
        let tokens = self.tokens().clone();
        let mut end = sumcheck.run(self.channel, self.relations, claim, tables, |point| {
            let (rows, features) = point.split_at(tokens.bits);
            let (rows, features) = (tokens.weights(rows), dense_weights(features, width));
            vec![bilinear(&turned, &rows, &features)]
        })?;
        let (weights, features) = self.at_point(&end.point, width);
        let value = end.hidden.remove(0);
        self.claim(x, Claim { weights, features, heads: None, value });
        Ok(())
    }
}

/// `Σ_{t,i} rows[t]·matrix[t, i]·features[i]`
fn bilinear(matrix: &[Fe], rows: &[F], features: &[F]) -> F {
    let features = elements(features);
    let each = matrix.par_chunks(features.len().max(1)).zip(rows);
    let sums = each.map(|(row, weight)| Fe::from(*weight) * inner_product(row, &features));
    sums.reduce(|| Fe::ZERO, |a, b| a + b).into()
}
