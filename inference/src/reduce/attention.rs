//! Attention (docs/inference-proof.md, "Operators", attention).

use std::sync::Arc;

use ff::Field;
use rayon::prelude::*;
use zklora_integer::graph::{Operator, key_heads};
use zklora_proof::field::F;

use super::{Reducer, Secrets};
use crate::{
    Error,
    axis::{bits_for, dense_weights},
    claims::{Claim, Heads},
    fe::{Fe, Products, Wiped, elements},
    plan::{Committed, Softmax},
    relations::Rule,
    sumcheck::{Sumcheck, Tables, Term},
    values::Value,
};

/// Weights of live cells (token, head, key): a product.
struct Masked {
    tokens: Arc<Vec<F>>,
    heads: Vec<F>,
    /// For each sequence and key.
    keys: Vec<F>,
}

/// Shapes.
#[derive(Clone, Copy)]
struct Shape {
    sequences: usize,
    sequence_bits: usize,
    /// Places of a sequence: a power of two.
    length: usize,
    heads: usize,
    head_bits: usize,
}

impl Shape {
    fn length_bits(&self) -> usize {
        bits_for(self.length)
    }

    /// Weights of sequences, of heads, and of `count` places of the rest, at a point.
    fn weights(&self, point: &[F], count: usize) -> [Vec<F>; 3] {
        let (of_sequence, rest) = point.split_at(self.sequence_bits);
        let (of_head, of_rest) = rest.split_at(self.head_bits);
        [(of_sequence, self.sequences), (of_head, self.heads), (of_rest, count)]
            .map(|(point, count)| dense_weights(point, count))
    }
}

/// `Σ_k λ^k·hidden[k]·hidden[n + k]`, with n powers of λ.
fn products(what: &'static str, variables: usize, lambdas: &[F]) -> Sumcheck {
    let count = lambdas.len();
    let term =
        |k: usize| Term { coefficient: lambdas[k], hidden: vec![k, count + k], public: None };
    let terms = (0..count).map(term).collect();
    Sumcheck { rule: Rule::Operator(what), variables, terms, hidden: 2 * count }
}

impl Reducer<'_, '_> {
    pub(super) fn attention(&mut self, at: usize) -> Result<(), Error> {
        let program = self.program;
        let Operator::Attention { q, k, v, groups, .. } = &program.steps[at].operator else {
            return Err(Error::Internal("attention has the numbers of another kind".into()));
        };
        let Committed::Softmax(softmax) = self.plan.committed[at].clone() else {
            return Err(Error::Internal("attention has no tensors".into()));
        };
        let length = self.plan.length;
        let sequence_bits = self.tokens().bits - bits_for(length);
        let shape = Shape {
            sequences: self.claimed.sequences.len(),
            sequence_bits,
            length,
            heads: groups.len(),
            head_bits: bits_for(groups.len()),
        };
        let claims = self.claims.take(Value::Result(at));
        let mut masked = Vec::new();
        if !claims.is_empty() {
            masked = self.context(shape, &softmax, *v, groups, &claims)?;
        }
        self.sums(at, shape, &softmax, masked)?;
        let scores = self.claims.take(Value::Scores(at));
        if scores.is_empty() {
            return Ok(());
        }
        self.scores(shape, *q, *k, groups, &scores)
    }

    /// Place of a token's sequence, and its position there.
    fn places(&self) -> Vec<(usize, usize)> {
        let length = self.plan.length;
        self.tokens().places.iter().map(|place| (place / length, place % length)).collect()
    }

    /// `Σ_{s,h,j} Σ_k λ^k·P_k·V_k`: claims on v, and masked sums of P with their values.
    fn context(
        &mut self,
        shape: Shape,
        softmax: &Softmax,
        v: usize,
        groups: &[usize],
        claims: &[Claim],
    ) -> Result<Vec<(Masked, crate::cells::Expression)>, Error> {
        let Shape { sequence_bits, length, heads, head_bits, .. } = shape;
        let count = claims.len();
        let size = self.widths(v) / key_heads(groups);
        let places = self.places();
        let lambdas = self.lambdas(count);
        let variables = sequence_bits + head_bits + shape.length_bits();
        let cell = |s: usize, h: usize, j: usize| ((s << head_bits) + h) * length + j;
        let tables = self.secrets.map(|secrets| {
            let weights = &secrets.tensors[softmax.weight];
            let values = secrets.values.grid(Value::Result(v));
            let width = length << head_bits;
            let p = claims.iter().map(|claim| {
                let mut table = vec![Fe::ZERO; 1 << variables];
                table.par_chunks_mut(length).enumerate().for_each(|(at, table)| {
                    let (s, h) = (at * length / width, at % (width / length));
                    if h >= heads {
                        return;
                    }
                    for (row, ((of, t), weight)) in places.iter().zip(&*claim.weights).enumerate() {
                        if *of != s || *weight == F::ZERO {
                            continue;
                        }
                        let weight = Fe::from(*weight);
                        for (j, cell) in table.iter_mut().enumerate().take(t + 1) {
                            *cell += weights.element(row, h * length + j) * weight;
                        }
                    }
                });
                Wiped(table)
            });
            let v = claims.iter().map(|claim| {
                let features = elements(&claim.features);
                let mut table = vec![Fe::ZERO; 1 << variables];
                for (row, (s, j)) in places.iter().enumerate() {
                    for (h, group) in groups.iter().enumerate() {
                        let own = &features[h * size..][..size];
                        let mut sum = Products::default();
                        for (e, weight) in own.iter().enumerate() {
                            sum.add(values.element(row, group * size + e), *weight);
                        }
                        table[cell(*s, h, *j)] = sum.reduce();
                    }
                }
                Wiped(table)
            });
            Tables::dense(p.chain(v).collect(), vec![])
        });
        let sumcheck = products("context", variables, &lambdas);
        let claim = Self::joined_values(claims, &lambdas);
        let end = sumcheck.run(self.channel, self.relations, claim, tables, |_| vec![])?;
        let [of_sequence, of_head, of_key] = shape.weights(&end.point, length);
        let mut masked = Vec::new();
        for (k, claim) in claims.iter().enumerate() {
            // v: at the point's sequences and keys; heads that share one are added up.
            let rows = places.iter().map(|(s, j)| of_sequence[*s] * of_key[*j]);
            let mut features = vec![F::ZERO; self.widths(v)];
            for (h, group) in groups.iter().enumerate() {
                for e in 0..size {
                    features[group * size + e] += of_head[h] * claim.features[h * size + e];
                }
            }
            let value = end.hidden[count + k].clone();
            let weights = Arc::new(rows.collect());
            self.claim(v, Claim { weights, features, heads: None, value });
            let tokens = places.iter().zip(claim.weights.iter());
            let tokens = tokens.map(|((s, _), weight)| of_sequence[*s] * weight);
            masked.push((
                Masked {
                    tokens: Arc::new(tokens.collect()),
                    heads: of_head.clone(),
                    keys: of_key.clone(),
                },
                end.hidden[k].clone(),
            ));
        }
        Ok(masked)
    }

    /// `Σ_{s,t,h,j} [M·P + N·Δ]` over live cells: openings of P and Δ.
    fn sums(
        &mut self,
        at: usize,
        shape: Shape,
        softmax: &Softmax,
        mut masked: Vec<(Masked, crate::cells::Expression)>,
    ) -> Result<(), Error> {
        let Shape { length, heads, head_bits, .. } = shape;
        let before = masked.len();
        let [weights, with_steps] =
            [Value::Weights(at), Value::WeightsBefore(at)].map(|value| self.claims.take(value));
        let first_with_steps = before + weights.len();
        for claim in weights.into_iter().chain(with_steps) {
            let Claim { weights, features, value, .. } = claim;
            let keys = vec![F::ONE; length];
            masked.push((Masked { tokens: weights, heads: features, keys }, value));
        }
        let lambdas = self.lambdas(masked.len());
        let mut claim = crate::cells::Expression::default();
        masked.iter().zip(&lambdas).for_each(|((_, value), lambda)| claim.add(value, *lambda));
        let variables = self.tokens().bits + head_bits + shape.length_bits();
        let term = |at| Term { coefficient: F::ONE, hidden: vec![at], public: Some(at) };
        let sumcheck = Sumcheck {
            rule: Rule::Operator("attention's weights"),
            variables,
            terms: vec![term(0), term(1)],
            hidden: 2,
        };
        let (places, tokens) = (self.places(), self.tokens().clone());
        let width = 1usize << (head_bits + shape.length_bits());
        let tables = self.secrets.map(|secrets| {
            let spread = |tensor: usize| {
                let grid = &secrets.tensors[tensor];
                let mut table = vec![Fe::ZERO; 1 << variables];
                for (row, place) in tokens.places.iter().enumerate() {
                    let row_of_table = table[place * width..].iter_mut().enumerate();
                    for (at, cell) in row_of_table.take(heads * length) {
                        *cell = grid.element(row, at);
                    }
                }
                Wiped(table)
            };
            let mut public = [(); 2].map(|()| Wiped(vec![Fe::ZERO; 1 << variables]));
            let keys: Vec<Vec<Fe>> = masked.iter().map(|(m, _)| elements(&m.keys)).collect();
            for (row, (place, (_, t))) in tokens.places.iter().zip(&places).enumerate() {
                for h in 0..heads {
                    let first = place * width + h * length;
                    for (at, ((mask, _), lambda)) in masked.iter().zip(&lambdas).enumerate() {
                        let factor = Fe::from(*lambda * mask.tokens[row] * mask.heads[h]);
                        if factor == Fe::ZERO {
                            continue;
                        }
                        for (j, key) in keys[at].iter().enumerate().take(t + 1) {
                            let weight = factor * *key;
                            public[0][first + j] += weight;
                            if at >= first_with_steps {
                                public[1][first + j] += weight;
                            }
                        }
                    }
                }
            }
            let public = public.into();
            let hidden = vec![spread(softmax.weight), spread(softmax.step)];
            let features = Some((head_bits + shape.length_bits(), heads * length));
            Tables { features, ..Tables::dense(hidden, public) }
        });
        let end = sumcheck.run(self.channel, self.relations, claim, tables, |point| {
            let (rows, rest) = point.split_at(tokens.bits);
            let (of_head, of_key) = rest.split_at(head_bits);
            let rows = tokens.weights(rows);
            let (of_head, of_key) = (dense_weights(of_head, heads), dense_weights(of_key, length));
            let mut values = vec![F::ZERO; 2];
            for (at, ((mask, _), lambda)) in masked.iter().zip(&lambdas).enumerate() {
                let in_heads: F = mask.heads.iter().zip(&of_head).map(|(a, b)| *a * b).sum();
                // Sums over the keys up to each position.
                let mut sum = F::ZERO;
                let up_to: Vec<F> = mask
                    .keys
                    .iter()
                    .zip(&of_key)
                    .map(|(a, b)| {
                        sum += *a * b;
                        sum
                    })
                    .collect();
                let each = places.iter().zip(mask.tokens.iter()).zip(rows.iter());
                let live: F = each.map(|(((_, t), weight), eq)| *weight * eq * up_to[*t]).sum();
                let value = *lambda * in_heads * live;
                values[0] += value;
                if at >= first_with_steps {
                    values[1] += value;
                }
            }
            values
        })?;
        let (rows, rest) = end.point.split_at(tokens.bits);
        let (of_head, of_key) = rest.split_at(head_bits);
        let weights = tokens.weights(rows);
        let (of_head, of_key) = (dense_weights(of_head, heads), dense_weights(of_key, length));
        let features: Vec<F> =
            of_head.iter().flat_map(|h| of_key.iter().map(move |j| *h * j)).collect();
        for (tensor, value) in [softmax.weight, softmax.step].into_iter().zip(&end.hidden) {
            self.open(tensor, weights.to_vec(), &features, value);
        }
        Ok(())
    }

    /// `Σ_{s,h,e} Σ_k λ^k·Q_k·K_k`: claims on q and k.
    fn scores(
        &mut self,
        shape: Shape,
        q: usize,
        k: usize,
        groups: &[usize],
        claims: &[Claim],
    ) -> Result<(), Error> {
        let Shape { sequence_bits, heads, head_bits, .. } = shape;
        let count = claims.len();
        let size = self.widths(q) / heads;
        let size_bits = bits_for(size);
        let weights: Vec<&Heads> = claims.iter().filter_map(|claim| claim.heads.as_ref()).collect();
        if weights.len() != count {
            return Err(Error::Internal("a claim on scores has no weights of heads".into()));
        }
        let places = self.places();
        let lambdas = self.lambdas(count);
        let variables = sequence_bits + head_bits + size_bits;
        let cell = |s: usize, h: usize, e: usize| (((s << head_bits) + h) << size_bits) + e;
        let tables = self.secrets.map(|secrets: &Secrets<'_>| {
            let [of_q, of_k] = [q, k].map(|x| secrets.values.grid(Value::Result(x)));
            let queries = claims.iter().map(|claim| {
                let mut table = vec![Fe::ZERO; 1 << variables];
                for (row, ((s, _), weight)) in places.iter().zip(claim.weights.iter()).enumerate() {
                    let weight = Fe::from(*weight);
                    for h in 0..heads {
                        for e in 0..size {
                            table[cell(*s, h, e)] += of_q.element(row, h * size + e) * weight;
                        }
                    }
                }
                Wiped(table)
            });
            let keys = weights.iter().map(|weights| {
                let mut table = vec![Fe::ZERO; 1 << variables];
                for (row, (s, j)) in places.iter().enumerate() {
                    for (h, group) in groups.iter().enumerate() {
                        let weight = Fe::from(weights.heads[h] * weights.keys[*j]);
                        if weight == Fe::ZERO {
                            continue;
                        }
                        for e in 0..size {
                            table[cell(*s, h, e)] += of_k.element(row, group * size + e) * weight;
                        }
                    }
                }
                Wiped(table)
            });
            Tables::dense(queries.chain(keys).collect(), vec![])
        });
        let sumcheck = products("attention's scores", variables, &lambdas);
        let claim = Self::joined_values(claims, &lambdas);
        let end = sumcheck.run(self.channel, self.relations, claim, tables, |_| vec![])?;
        let [of_sequence, of_head, of_feature] = shape.weights(&end.point, size);
        for (at, (claim, weights)) in claims.iter().zip(weights).enumerate() {
            let rows = places.iter().zip(claim.weights.iter());
            let rows = rows.map(|((s, _), weight)| of_sequence[*s] * weight).collect();
            let features =
                of_head.iter().flat_map(|h| of_feature.iter().map(move |e| *h * e)).collect();
            let value = end.hidden[at].clone();
            self.claim(q, Claim { weights: Arc::new(rows), features, heads: None, value });

            let rows = places.iter().map(|(s, j)| of_sequence[*s] * weights.keys[*j]).collect();
            let mut features = vec![F::ZERO; self.widths(k)];
            for (h, group) in groups.iter().enumerate() {
                for (e, weight) in of_feature.iter().enumerate() {
                    features[group * size + e] += of_head[h] * weights.heads[h] * weight;
                }
            }
            let value = end.hidden[count + at].clone();
            self.claim(k, Claim { weights: Arc::new(rows), features, heads: None, value });
        }
        Ok(())
    }
}
