//! The relations of a session as weights on the committed columns (docs/protocol.md, "Relations").
//!
//! All but the last are linear in the columns, with public coefficients. The last has products
//! `T·U`. Both parties compute all of this from public values. A cell carries a weight in the
//! product relation only if another relation pins it.

use ff::Field;

use crate::{
    field::F,
    fold::{eq_weights, fold_public, interpolation},
    layout::{Layout, ROUND_ROWS},
    pairs::Pairs,
    projection::Projection,
};

/// The challenges in the relations.
#[derive(Debug, Clone)]
pub struct Challenges {
    /// Separates the pairs.
    pub beta: F,
    /// One for each round of the fold.
    pub r: Vec<F>,
    /// Separates the relations.
    pub eta: F,
}

/// The relations, as docs/protocol.md, "Relations" lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationName {
    /// `g_1(0) + g_1(1) − Σ b_i t_i = 0`.
    FirstRound,
    /// `g_j(0) + g_j(1) − g_{j−1}(r_{j−1}) = 0`, for the round at this index.
    Round(usize),
    /// `⟨A**, x**⟩ − g_μ(r_μ) = 0`, or `− Σ b_i t_i` without rounds.
    LastPoint,
    /// `⟨B*, γ⃗⟩ − Σ b_i u_i = 0`.
    Outputs,
    /// `Σ c^{m(i)} t_i u_i − δ = 0`.
    Product,
}

/// Weights on cells, by address. A vector stands for its extension with zeros.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CellWeights {
    /// On the cells of T: one for each pair.
    pub t: Vec<F>,
    /// On the cells of U: one for each pair.
    pub u: Vec<F>,
    /// On the three cells of each round.
    pub s: Vec<Vec<F>>,
    /// On the cells of B*.
    pub b: Vec<F>,
    /// On the cells of A**.
    pub a: Vec<F>,
    /// On the products T·U: one for each pair.
    pub e: Vec<F>,
    /// The public value that the sum must equal.
    pub constant: F,
}

/// One relation: its name and its weights, without powers of η.
pub struct Relation {
    /// The name.
    pub name: RelationName,
    /// `Σ weights·cells = constant`.
    pub weights: CellWeights,
}

/// `b_i = β^i`.
pub fn pair_weights(beta: F, pairs: &Pairs) -> Vec<F> {
    crate::field::powers(beta, pairs.len())
}

/// `β^i·eq(r, g(i))` for each pair with an A side, zero for the others: how `A**` combines the
/// manifest.
pub fn a_weights(pairs: &Pairs, b: &[F], r: &[F]) -> Vec<F> {
    let eq = eq_weights(r, pairs.groups().len());
    pairs
        .iter()
        .zip(b)
        .map(|(pair, b)| pair.a.map_or(F::ZERO, |side| *b * eq[side.group]))
        .collect()
}

/// The relations of a session, in the order of the powers of η that [`combine`] gives them.
pub fn relations(
    layout: &Layout,
    pairs: &Pairs,
    projection: &Projection,
    challenges: &Challenges,
) -> Vec<Relation> {
    let b = pair_weights(challenges.beta, pairs);
    let minus_b = |has_side: fn(&crate::pairs::Pair) -> bool| -> Vec<F> {
        pairs.iter().zip(&b).map(|(pair, b)| if has_side(pair) { -*b } else { F::ZERO }).collect()
    };
    let minus_claim =
        || CellWeights { t: minus_b(|pair| pair.a.is_some()), ..CellWeights::default() };
    let round = |index: usize, values: [F; ROUND_ROWS], weights: &mut CellWeights| {
        weights.s.resize(layout.rounds, Vec::new());
        weights.s[index] = values.to_vec();
    };
    let at = |index: usize| interpolation(challenges.r[index]).map(|w| -w);
    let sum = [F::ONE, F::ONE, F::ZERO];

    let mut out = Vec::new();
    if layout.rounds > 0 {
        let mut weights = minus_claim();
        round(0, sum, &mut weights);
        out.push(Relation { name: RelationName::FirstRound, weights });
    }
    for j in 1..layout.rounds {
        let mut weights = CellWeights::default();
        round(j, sum, &mut weights);
        round(j - 1, at(j - 1), &mut weights);
        out.push(Relation { name: RelationName::Round(j), weights });
    }
    if layout.a_columns > 0 {
        let mut weights = if layout.rounds == 0 { minus_claim() } else { CellWeights::default() };
        if layout.rounds > 0 {
            round(layout.rounds - 1, at(layout.rounds - 1), &mut weights);
        }
        weights.a =
            fold_public(&projection.groups, &eq_weights(&challenges.r, pairs.groups().len()));
        out.push(Relation { name: RelationName::LastPoint, weights });
    }
    if layout.b_columns > 0 {
        let gamma = projection.gamma[..pairs.longest_b().min(projection.gamma.len())].to_vec();
        out.push(Relation {
            name: RelationName::Outputs,
            weights: CellWeights {
                b: gamma,
                u: minus_b(|pair| pair.b.is_some()),
                ..CellWeights::default()
            },
        });
    }
    out.push(Relation { name: RelationName::Product, weights: product(pairs, projection) });
    out
}

/// The product relation. A missing side is a public value, which becomes part of the other cell's
/// weight: `2^shift` for a scale's missing B side, `2^shift·Σ ρ_l w_l` for a bias's missing A side.
fn product(pairs: &Pairs, projection: &Projection) -> CellWeights {
    let mut weights = CellWeights { constant: projection.delta, ..CellWeights::default() };
    for pair in pairs.iter() {
        let c = projection.c[pair.module];
        let shift = F::from(1u64 << pair.shift);
        let (t, u, e) = match (pair.a, pair.b) {
            (Some(_), Some(_)) => (F::ZERO, F::ZERO, c),
            (Some(_), None) => (c * shift, F::ZERO, F::ZERO),
            (None, _) => (F::ZERO, c * shift * projection.ones[pair.module], F::ZERO),
        };
        weights.t.push(t);
        weights.u.push(u);
        weights.e.push(e);
    }
    weights
}

/// `Σ_k η^k · relation_k`.
pub fn combine(relations: &[Relation], eta: F) -> CellWeights {
    let mut sum = CellWeights::default();
    let mut power = F::ONE;
    for Relation { weights, .. } in relations {
        add(&mut sum.t, &weights.t, power);
        add(&mut sum.u, &weights.u, power);
        add(&mut sum.b, &weights.b, power);
        add(&mut sum.a, &weights.a, power);
        add(&mut sum.e, &weights.e, power);
        sum.s.resize(sum.s.len().max(weights.s.len()), Vec::new());
        for (total, addend) in sum.s.iter_mut().zip(&weights.s) {
            add(total, addend, power);
        }
        sum.constant += power * weights.constant;
        power *= eta;
    }
    sum
}

fn add(total: &mut Vec<F>, addend: &[F], factor: F) {
    total.resize(total.len().max(addend.len()), F::ZERO);
    for (t, o) in total.iter_mut().zip(addend) {
        *t += factor * o;
    }
}

/// The public instance columns of the halo2 proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicColumns {
    /// A weight column for each committed column, in the order T, U, S, B, A.
    pub weights: Vec<Vec<F>>,
    /// A column of product weights for each T column.
    pub products: Vec<Vec<F>>,
    /// The value of the output cell.
    pub output: F,
}

impl PublicColumns {
    /// Lays out the weights. Each vector is cut at the data rows, so no column reaches row u − 2 or
    /// beyond: masks and the output row never carry a weight.
    pub fn lay_out(layout: &Layout, weights: &CellWeights) -> PublicColumns {
        let cut = |vector: &[F], columns: usize| -> Vec<Vec<F>> {
            let mut out: Vec<Vec<F>> =
                vector.chunks(layout.data_rows()).map(<[F]>::to_vec).collect();
            out.resize(columns, Vec::new());
            out
        };
        let mut columns = cut(&weights.t, layout.pair_columns);
        columns.extend(cut(&weights.u, layout.pair_columns));
        let mut rounds = weights.s.clone();
        rounds.resize(layout.rounds, Vec::new());
        columns.extend(rounds);
        columns.extend(cut(&weights.b, layout.b_columns));
        columns.extend(cut(&weights.a, layout.a_columns));
        PublicColumns {
            weights: columns,
            products: cut(&weights.e, layout.pair_columns),
            output: weights.constant,
        }
    }

    /// Whether the columns are those of `layout` and are zero on the mask rows, the output row and
    /// all rows beyond.
    pub fn fits(&self, layout: &Layout) -> bool {
        self.weights.len() == layout.committed_columns()
            && self.products.len() == layout.pair_columns
            && self
                .weights
                .iter()
                .chain(&self.products)
                .all(|column| column.len() <= layout.data_rows())
    }

    /// The columns as halo2 takes them: weights, products, and the output cell at row u − 2 of one
    /// more column.
    pub fn instances(&self, layout: &Layout) -> Vec<Vec<F>> {
        let mut output = vec![F::ZERO; layout.output_row() + 1];
        output[layout.output_row()] = self.output;
        self.weights.iter().chain(&self.products).cloned().chain([output]).collect()
    }
}
