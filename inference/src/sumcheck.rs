//! Sumchecks whose rounds are committed (docs/inference-proof.md, "Sumcheck").

use ff::Field;
use rayon::prelude::*;
use zklora_proof::field::F;

use crate::{
    Error,
    cells::Expression,
    channel::Channel,
    fe::{Fe, Products, Wiped},
    relations::{Relations, Rule},
};

/// One summand: `coefficient·Π hidden factors·public factor`.
#[derive(Debug, Clone)]
pub struct Term {
    /// Public.
    pub coefficient: F,
    /// Indices of hidden factors; the same may occur twice.
    pub hidden: Vec<usize>,
    /// Index of a public factor.
    pub public: Option<usize>,
}

/// What is summed over the hypercube of some variables.
#[derive(Debug, Clone)]
pub struct Sumcheck {
    /// What the relation at the end states.
    pub rule: Rule,
    /// Number of variables.
    pub variables: usize,
    /// The summands.
    pub terms: Vec<Term>,
    /// Number of hidden factors.
    pub hidden: usize,
}

/// A factor over the hypercube.
pub enum Table {
    /// All values.
    Dense(Wiped),
    /// A value for each place of the high variables, the same on the first `width` of `2^bits`
    /// places of the low ones; zero on the rest.
    Rows {
        /// The values.
        rows: Wiped,
        /// Number of low variables.
        bits: usize,
        /// Places of them.
        width: usize,
    },
}

impl Table {
    /// Fixes the most significant variable.
    fn bind(&mut self, r: Fe) {
        match self {
            Table::Dense(values) => bind(values, r),
            Table::Rows { rows, .. } => bind(rows, r),
        }
        self.settle();
    }

    /// One row is as good as all values.
    fn settle(&mut self) {
        if let Table::Rows { rows, bits, width } = self
            && rows.len() == 1
        {
            let mut values = vec![Fe::ZERO; 1 << *bits];
            values[..*width].fill(rows[0]);
            *self = Table::Dense(Wiped(values));
        }
    }

    fn dense(&self) -> Option<&[Fe]> {
        match self {
            Table::Dense(values) => Some(values),
            Table::Rows { .. } => None,
        }
    }
}

/// The prover's tables.
pub struct Tables {
    /// Hidden factors.
    pub hidden: Vec<Table>,
    /// Public factors.
    pub public: Vec<Table>,
    /// Low variables, and their places at which a summand may be other than zero: all before this.
    pub features: Option<(usize, usize)>,
}

impl Tables {
    /// Tables of all values.
    pub fn dense(hidden: Vec<Wiped>, public: Vec<Wiped>) -> Tables {
        let [hidden, public] =
            [hidden, public].map(|tables| tables.into_iter().map(Table::Dense).collect());
        Tables { hidden, public, features: None }
    }
}

/// Where a sumcheck ends.
pub struct End {
    /// The challenges, most significant variable first.
    pub point: Vec<F>,
    /// The hidden factors there.
    pub hidden: Vec<Expression>,
}

impl Sumcheck {
    /// Reduces `claim = Σ_x Σ_terms …(x)` to the factors at one point. `public_at` gives the
    /// public factors there.
    ///
    /// # Errors
    /// Those of [`Channel::message`].
    pub fn run(
        &self,
        channel: &mut Channel<'_>,
        relations: &mut Relations,
        mut claim: Expression,
        tables: Option<Tables>,
        public_at: impl FnOnce(&[F]) -> Vec<F>,
    ) -> Result<End, Error> {
        let mut tables = tables;
        if let Some(tables) = &mut tables {
            tables.hidden.iter_mut().chain(&mut tables.public).for_each(Table::settle);
        }
        let degree = |term: &Term| term.hidden.len() + usize::from(term.public.is_some());
        let degree = self.terms.iter().map(degree).max().unwrap_or(0).max(1);
        let mut point = Vec::with_capacity(self.variables);
        for left in (1..=self.variables).rev() {
            let round = tables.as_ref().map(|tables| self.round(tables, left, degree));
            let cells = channel.message("round", degree, round)?;
            let r = channel.challenge("r");
            claim = next_claim(&claim, &cells, r);
            if let Some(tables) = &mut tables {
                let all = tables.hidden.iter_mut().chain(&mut tables.public);
                all.for_each(|table| table.bind(Fe::from(r)));
            }
            point.push(r);
        }
        let ends = tables.map(|tables| {
            let end = |table: &Table| table.dense().and_then(|values| values.first().copied());
            tables.hidden.iter().map(|table| F::from(end(table).unwrap_or_default())).collect()
        });
        let hidden = match self.hidden {
            0 => Vec::new(),
            count => channel.message("ends", count, ends)?,
        };
        let public = public_at(&point);
        let mut linear = claim;
        let mut products = Vec::new();
        for term in &self.terms {
            let public = term.public.map_or(F::ONE, |at| public[at]);
            let factor = -(term.coefficient * public);
            match term.hidden.as_slice() {
                [] => linear.constant += factor,
                [x] => linear.add(&hidden[*x], factor),
                [x, y] => {
                    let place = relations.product(hidden[*x].clone(), hidden[*y].clone());
                    products.push((factor, place));
                }
                [x, y, z] => {
                    let value = channel
                        .cells()
                        .map(|cells| vec![hidden[*x].value(cells) * hidden[*y].value(cells)]);
                    let both = channel.message("product", 1, value)?.remove(0);
                    let place = relations.product(hidden[*x].clone(), hidden[*y].clone());
                    let minus = both.clone().times(-F::ONE);
                    relations.require(self.rule, minus, vec![(F::ONE, place)]);
                    products.push((factor, relations.product(both, hidden[*z].clone())));
                }
                more => {
                    return Err(Error::Internal(format!("a term of {} factors", more.len())));
                }
            }
        }
        relations.require(self.rule, linear, products);
        Ok(End { point, hidden })
    }

    /// The round's polynomial at 0, 2, 3, … degree, with `left` variables.
    fn round(&self, tables: &Tables, left: usize, degree: usize) -> Vec<F> {
        let half = 1usize << (left - 1);
        let (chunk, count) = match tables.features {
            Some((bits, width)) if left > bits => (1 << bits, width),
            _ => (half.min(CHUNK), half.min(CHUNK)),
        };
        let zero = || vec![[Fe::ZERO; MAX_DEGREE]; self.terms.len()];
        let least = (CHUNK / chunk).max(1);
        let chunks = (0..half / chunk).into_par_iter().with_min_len(least);
        let sums = chunks.fold(zero, |mut sums, at| {
            for (sums, term) in sums.iter_mut().zip(&self.terms) {
                let of_chunk = term.sum(tables, at * chunk, half, count, degree);
                sums.iter_mut().zip(of_chunk).for_each(|(sum, value)| *sum += value);
            }
            sums
        });
        let sums = sums.reduce(zero, |mut a, b| {
            let each = a.iter_mut().flatten().zip(b.into_iter().flatten());
            each.for_each(|(a, b)| *a += b);
            a
        });
        let at = |point: usize| {
            let terms = self.terms.iter().zip(&sums);
            terms.map(|(term, sum)| term.coefficient * F::from(sum[point])).sum()
        };
        (0..degree).map(at).collect()
    }
}

/// Places that a task sums at least.
const CHUNK: usize = 1 << 10;

impl Term {
    /// The sum over `count` places from `first` on, without the coefficient, of the product of
    /// factors at 0, 2, 3, … degree.
    fn sum(
        &self,
        tables: &Tables,
        first: usize,
        half: usize,
        count: usize,
        degree: usize,
    ) -> [Fe; MAX_DEGREE] {
        let hidden = self.hidden.iter().map(|at| &tables.hidden[*at]);
        let public = self.public.iter().map(|at| &tables.public[*at]);
        // The same on all places of this chunk, and others.
        let mut outside = [Fe::ONE; MAX_DEGREE];
        let mut inside: [(&[Fe], &[Fe]); MAX_DEGREE] = Default::default();
        let mut factors = 0;
        for table in hidden.chain(public) {
            match table {
                Table::Dense(values) => {
                    inside[factors] = (&values[first..][..count], &values[first + half..][..count]);
                    factors += 1;
                }
                Table::Rows { rows, bits, .. } => {
                    let (low, high) = (rows[first >> bits], rows[(first + half) >> bits]);
                    let values = outside[..degree].iter_mut().zip(points(low, high));
                    values.for_each(|(value, at)| *value *= at);
                }
            }
        }
        let mut sums = match factors {
            1 => sum_of_products::<1>(&inside, count, degree),
            2 => sum_of_products::<2>(&inside, count, degree),
            3 => sum_of_products::<3>(&inside, count, degree),
            4 => sum_of_products::<4>(&inside, count, degree),
            _ => [Fe::of(count as i64); MAX_DEGREE],
        };
        sums.iter_mut().zip(outside).for_each(|(sum, factor)| *sum *= factor);
        sums
    }
}

/// The values at 0, 2, 3, … of what is linear between 0 and 1.
#[inline(always)]
fn points(low: Fe, high: Fe) -> impl Iterator<Item = Fe> {
    let step = high - low;
    let mut at = high;
    let further = std::iter::from_fn(move || {
        at += step;
        Some(at)
    });
    std::iter::once(low).chain(further)
}

/// `Σ_x Π_n table_n(x)` at 0, 2, 3, … degree.
#[inline(always)]
fn sum_of_products<const N: usize>(
    tables: &[(&[Fe], &[Fe]); MAX_DEGREE],
    count: usize,
    degree: usize,
) -> [Fe; MAX_DEGREE] {
    let mut sums = [Products::default(); MAX_DEGREE];
    let mut linear = [Fe::ZERO; MAX_DEGREE];
    for x in 0..count {
        let mut values = [Fe::ZERO; MAX_DEGREE];
        for (n, (low, high)) in tables.iter().enumerate().take(N) {
            let (low, high) = (low[x], high[x]);
            let step = high - low;
            let mut at = high;
            for e in 0..degree.min(MAX_DEGREE) {
                let factor = if e == 0 {
                    low
                } else {
                    at += step;
                    at
                };
                match n {
                    0 if N == 1 => linear[e] += factor,
                    0 => values[e] = factor,
                    _ if n + 1 == N => sums[e].add(values[e], factor),
                    _ => values[e] *= factor,
                }
            }
        }
    }
    if N == 1 { linear } else { sums.map(|sum| sum.reduce()) }
}

/// Highest degree of a round.
const MAX_DEGREE: usize = 4;

/// Fixes the most significant variable of a table, and overwrites what is no longer needed.
pub fn bind(table: &mut Vec<Fe>, r: Fe) {
    const TASK: usize = 1 << 12;
    let half = table.len() / 2;
    let (low, high) = table.split_at_mut(half);
    low.par_chunks_mut(TASK).zip(high.par_chunks_mut(TASK)).for_each(|(low, high)| {
        low.iter_mut().zip(high.iter_mut()).for_each(|(low, high)| {
            // Places without a value are common.
            if *low != *high {
                *low += r * (*high - *low);
            }
            *high = Fe::ZERO;
        });
    });
    table.truncate(half);
}

/// The claim of the next round: the polynomial at `r`, of which `cells` are the values at 0, 2, 3,
/// … and `claim` the sum of those at 0 and 1.
fn next_claim(claim: &Expression, cells: &[Expression], r: F) -> Expression {
    let weights = lagrange(r, cells.len());
    let at_one = claim.clone().plus(&cells[0], -F::ONE);
    let mut next = at_one.times(weights[1]);
    next.add(&cells[0], weights[0]);
    cells[1..].iter().zip(&weights[2..]).for_each(|(cell, weight)| next.add(cell, *weight));
    next
}

/// Weights that take a polynomial's values at 0, 1, …, degree to its value at `r`.
pub fn lagrange(r: F, degree: usize) -> Vec<F> {
    let at = |i: usize| F::from(i as u64);
    (0..=degree)
        .map(|i| {
            let others = (0..=degree).filter(|j| *j != i);
            let (above, below) = others.fold((F::ONE, F::ONE), |(above, below), j| {
                (above * (r - at(j)), below * (at(i) - at(j)))
            });
            above * below.invert().unwrap_or(F::ZERO)
        })
        .collect()
}
