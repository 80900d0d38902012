//! What is looked up, in which table, and the claims that lookups leave (docs/inference-proof.md,
//! "Lookups").

use std::{collections::HashMap, sync::Arc};

use ethnum::I256;
use ff::Field;
use rayon::prelude::*;
use zeroize::{Zeroize, Zeroizing};
use zklora_proof::{field::F, fold::eq_weights};

use crate::{
    Error,
    channel::Channel,
    claims::{Claim, Claims, Heads},
    fe::{Fe, IntegerSum, Signed, Wiped, elements, eq_table},
    fractions::Leaves,
    integers::{Grid, element, field},
    openings::Opening,
    relations::Relations,
    tensors::{AxisId, Catalog, TensorId, View},
    tree,
    values::{Value, Values},
};

/// Bits of an index of a table.
pub const INDEX_BITS: usize = 16;
/// Bits of the places of the axis of a table's multiplicities; the features have the rest.
pub const TABLE_AXIS_BITS: usize = 7;

/// Index of a table.
pub type TableId = usize;

/// Index of the table of all integers of 16 bits.
pub const RANGE: TableId = 0;

/// What the entries of a table are: (index, out, out₂).
#[derive(Clone)]
pub enum Entries {
    /// Indices only.
    Range,
    /// The function's value.
    Activation(Arc<Vec<i32>>),
    /// T, and the difference to the entry before; before the first is `limit + 1`.
    Exponentials {
        /// T.
        table: Arc<Vec<u64>>,
        /// Z.
        limit: u64,
    },
}

impl Entries {
    /// (out, out₂) of an index.
    pub fn outs(&self, index: usize) -> [i64; 2] {
        match self {
            Entries::Range => [0, 0],
            Entries::Activation(table) => [table.get(index).copied().map_or(0, i64::from), 0],
            Entries::Exponentials { table, limit } => {
                let at = |index: usize| table.get(index).copied().unwrap_or(0);
                let before = if index == 0 { limit + 1 } else { at(index - 1) };
                [at(index) as i64, before as i64 - at(index) as i64]
            }
        }
    }
}

/// A table.
#[derive(Clone)]
pub struct Table {
    /// Its entries. The tag is its index.
    pub entries: Entries,
    /// How often each entry is looked up.
    pub multiplicities: TensorId,
}

/// A public number for each element of an axis.
#[derive(Debug, Clone, PartialEq)]
pub enum PerRow {
    /// One for all.
    Same(I256),
    /// One each.
    Each(Vec<I256>),
}

impl PerRow {
    /// That of an element.
    pub fn get(&self, row: usize) -> I256 {
        match self {
            PerRow::Same(value) => *value,
            PerRow::Each(values) => values[row],
        }
    }

    /// All times a number.
    #[must_use]
    pub fn times(&self, factor: I256) -> PerRow {
        match self {
            PerRow::Same(value) => PerRow::Same(*value * factor),
            PerRow::Each(values) => PerRow::Each(values.iter().map(|v| *v * factor).collect()),
        }
    }

    /// `weights ∘ self`
    pub fn weighted(&self, weights: &Arc<Vec<F>>) -> Arc<Vec<F>> {
        match self {
            PerRow::Same(value) if *value == I256::ONE => Arc::clone(weights),
            _ => {
                let each = weights.iter().enumerate();
                Arc::new(each.map(|(row, weight)| *weight * field(self.get(row))).collect())
            }
        }
    }
}

/// `Σ coefficient·tensor + Σ scale·value + constant`
#[derive(Debug, Clone)]
pub struct Input {
    /// Committed parts.
    pub tensors: Vec<(TensorId, View, I256)>,
    /// A virtual value, with a factor for each element.
    pub value: Option<(Value, PerRow)>,
    /// A constant for each element.
    pub constant: PerRow,
}

impl Input {
    /// A tensor plus a constant.
    pub fn tensor(tensor: TensorId, constant: i64) -> Input {
        Input {
            tensors: vec![(tensor, View::Same, I256::ONE)],
            value: None,
            constant: PerRow::Same(I256::from(constant)),
        }
    }

    /// Adds a committed part.
    #[must_use]
    pub fn plus(mut self, tensor: TensorId, view: View, coefficient: I256) -> Input {
        self.tensors.push((tensor, view, coefficient));
        self
    }

    /// The integer at a place.
    pub fn at(&self, known: &Known<'_>, row: usize, feature: usize) -> I256 {
        let mut sum = self.constant.get(row);
        for (tensor, view, coefficient) in &self.tensors {
            let grid = &known.tensors[*tensor];
            let cell = match view {
                View::Same => grid.get(row, feature),
                View::Heads(keys) => grid.get(row, feature / keys),
                View::Sum => (0..grid.columns).map(|at| grid.get(row, at)).sum(),
                View::Picked(picks) => {
                    let each = picks[feature].iter();
                    each.map(|(row, at, factor)| grid.get(*row, *at) * factor).sum()
                }
            };
            sum = sum.wrapping_add(cell.wrapping_mul(*coefficient));
        }
        if let Some((value, scale)) = &self.value {
            let cell = known.values.grid(*value).get(row, feature);
            sum = sum.wrapping_add(cell.wrapping_mul(scale.get(row)));
        }
        sum
    }
}

impl Input {
    /// The integers of a row, modulo 2^128.
    pub fn row(&self, known: &Known<'_>, row: usize, features: usize, out: &mut Vec<i128>) {
        out.clear();
        out.resize(features, self.constant.get(row).as_i128());
        let add = |out: &mut i128, x: i128| *out = out.wrapping_add(x);
        for (tensor, view, coefficient) in &self.tensors {
            let grid = &known.tensors[*tensor];
            let factor = coefficient.as_i128();
            match view {
                View::Same => grid.add_row(row, factor, out),
                View::Heads(keys) => {
                    for (head, out) in out.chunks_mut(*keys).enumerate() {
                        let cell = grid.low(row, head).wrapping_mul(factor);
                        out.iter_mut().for_each(|out| add(out, cell));
                    }
                }
                View::Sum => {
                    let cells = (0..grid.columns).map(|at| grid.low(row, at));
                    let sum = cells.fold(0i128, i128::wrapping_add).wrapping_mul(factor);
                    out.iter_mut().for_each(|out| add(out, sum));
                }
                View::Picked(picks) => {
                    for (out, picks) in out.iter_mut().zip(picks.iter()) {
                        for (row, at, times) in picks {
                            let cell = grid.low(*row, *at).wrapping_mul(times.as_i128());
                            add(out, cell.wrapping_mul(factor));
                        }
                    }
                }
            }
        }
        if let Some((value, scale)) = &self.value {
            known.values.grid(*value).add_row(row, scale.get(row).as_i128(), out);
        }
    }
}

/// What the prover knows.
pub struct Known<'a> {
    /// The tensors.
    pub tensors: &'a [Grid],
    /// The virtual values.
    pub values: &'a Values,
}

/// Which places of a lookup count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// All.
    All,
    /// Of heads and keys: the keys that are not after the element's position.
    Causal {
        /// Keys of a head.
        keys: usize,
    },
}

impl Live {
    /// Whether a place counts.
    pub fn is_live(self, place: usize, feature: usize) -> bool {
        match self {
            Live::All => true,
            Live::Causal { keys } => feature % keys <= place % keys,
        }
    }
}

/// `(in, out, out₂)` is an entry of a table, for all elements and features.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The table.
    pub table: TableId,
    /// The axis.
    pub axis: AxisId,
    /// Features.
    pub features: usize,
    /// The index.
    pub input: Input,
    /// out and out₂.
    pub outs: [Option<TensorId>; 2],
    /// Which places count.
    pub live: Live,
}

/// A block of leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// What it is of.
    pub of: BlockOf,
    /// log₂ of the places of its axis.
    pub axis_bits: usize,
    /// log₂ of its features.
    pub feature_bits: usize,
    /// Its first leaf.
    pub first: usize,
}

/// What a block is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockOf {
    /// Features of a lookup, from this one on.
    Lookup(usize, usize),
    /// A table.
    Table(TableId),
}

impl Block {
    fn bits(&self) -> usize {
        self.axis_bits + self.feature_bits
    }

    /// Its leaves.
    pub fn leaves(&self) -> usize {
        1 << self.bits()
    }
}

/// The blocks of all lookups and tables, and the depth of their tree.
pub fn blocks(catalog: &Catalog, lookups: &[Lookup], tables: usize) -> (Vec<Block>, usize) {
    let mut blocks = Vec::new();
    for (at, lookup) in lookups.iter().enumerate() {
        let axis_bits = catalog.axes[lookup.axis].bits;
        let mut from = 0;
        for feature_bits in (0..usize::BITS as usize).rev() {
            if lookup.features >> feature_bits & 1 == 1 {
                let of = BlockOf::Lookup(at, from);
                blocks.push(Block { of, axis_bits, feature_bits, first: 0 });
                from += 1 << feature_bits;
            }
        }
    }
    blocks.extend((0..tables).map(|table| Block {
        of: BlockOf::Table(table),
        axis_bits: TABLE_AXIS_BITS,
        feature_bits: INDEX_BITS - TABLE_AXIS_BITS,
        first: 0,
    }));
    // Stable: lookups before tables among equals, by creation.
    blocks.sort_by_key(|block| std::cmp::Reverse(block.bits()));
    let mut first = 0;
    for block in &mut blocks {
        block.first = first;
        first += 1usize << block.bits();
    }
    let depth = first.next_power_of_two().trailing_zeros().max(1) as usize;
    (blocks, depth)
}

/// The indices of a lookup's live places, and of the others the field elements.
pub struct Indices {
    /// For each element and feature, the index; 0 where it is not live.
    pub live: Vec<u16>,
    /// The inputs of places that are not live, in order.
    pub others: Wiped,
}

impl Drop for Indices {
    fn drop(&mut self) {
        self.live.zeroize();
    }
}

impl Lookup {
    /// How many features of a place do not count.
    fn others(&self, place: usize) -> usize {
        match self.live {
            Live::All => 0,
            Live::Causal { keys } => self.features / keys * (keys - 1 - place % keys),
        }
    }

    /// All indices.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]: an index is none of the table's. It does not say where.
    pub fn indices(&self, catalog: &Catalog, known: &Known<'_>) -> Result<Indices, Error> {
        let axis = &catalog.axes[self.axis];
        let features = self.features;
        let mut live = vec![0u16; axis.len() * features];
        let each = live.par_chunks_mut(features.max(1)).enumerate();
        let others: Result<Vec<Wiped>, Error> = each
            .map_init(
                || Zeroizing::new(Vec::<i128>::new()),
                |inputs, (row, live)| {
                    self.input.row(known, row, features, inputs);
                    let place = axis.places[row];
                    let mut others = Wiped(Vec::with_capacity(self.others(place)));
                    for (feature, (index, input)) in live.iter_mut().zip(inputs.iter()).enumerate()
                    {
                        if self.live.is_live(place, feature) {
                            *index = u16::try_from(*input).map_err(|_| Error::OutOfRange)?;
                        } else {
                            others.push(element(self.input.at(known, row, feature)));
                        }
                    }
                    Ok(others)
                },
            )
            .collect();
        let others = others?;
        let mut all = Wiped(Vec::with_capacity(others.iter().map(|others| others.len()).sum()));
        others.iter().for_each(|others| all.extend_from_slice(others));
        Ok(Indices { live, others: all })
    }
}

/// How often each entry of each table occurs.
pub fn multiplicities(
    catalog: &Catalog,
    lookups: &[Lookup],
    indices: &[Indices],
    tables: usize,
) -> Vec<Grid> {
    let mut counts = vec![vec![0i64; 1 << INDEX_BITS]; tables];
    for (lookup, indices) in lookups.iter().zip(indices) {
        let counts = &mut counts[lookup.table];
        let places = &catalog.axes[lookup.axis].places;
        for (row, indices) in places.iter().zip(indices.live.chunks(lookup.features)) {
            for (feature, index) in indices.iter().enumerate() {
                if lookup.live.is_live(*row, feature) {
                    counts[usize::from(*index)] += 1;
                }
            }
        }
    }
    let features = 1 << (INDEX_BITS - TABLE_AXIS_BITS);
    counts.into_iter().map(|counts| Grid::small(features, counts)).collect()
}

/// All lookups of a proof.
pub struct Argument<'a> {
    /// Axes and tensors.
    pub catalog: &'a Catalog,
    /// The lookups.
    pub lookups: &'a [Lookup],
    /// The tables.
    pub tables: &'a [Table],
}

/// α and the powers of γ.
struct Challenges {
    alpha: F,
    gamma: [F; 3],
}

impl Argument<'_> {
    /// Shows all lookups, up to claims on virtual values and two openings.
    ///
    /// # Errors
    /// Those of [`Channel::message`].
    pub fn run(
        &self,
        channel: &mut Channel<'_>,
        relations: &mut Relations,
        openings: &mut Vec<Opening>,
        claims: &mut Claims,
        indices: Option<(&[Indices], &[&Grid])>,
        known: Option<&Known<'_>>,
    ) -> Result<(), Error> {
        let (blocks, depth) = blocks(self.catalog, self.lookups, self.tables.len());
        let alpha = channel.challenge("alpha");
        let gamma = channel.challenge("gamma");
        let gamma = [gamma, gamma * gamma, gamma * gamma * gamma];
        let challenges = Challenges { alpha, gamma };
        let leaves = indices.map(|(indices, multiplicities)| {
            self.leaves(&blocks, &challenges, indices, multiplicities)
        });
        #[cfg(test)]
        let leaves = leaves.zip(indices).zip(known).map(|((leaves, (indices, _)), known)| {
            let drawn = [challenges.alpha, challenges.gamma[0]];
            crate::attacks::rules::leaves(self, &blocks, drawn, indices, known, leaves)
        });
        let end = tree::run(channel, relations, depth, leaves)?;
        self.close(channel, openings, claims, &blocks, &challenges, end, known)
    }

    /// The leaves, for who knows the indices.
    fn leaves(
        &self,
        blocks: &[Block],
        challenges: &Challenges,
        indices: &[Indices],
        multiplicities: &[&Grid],
    ) -> Leaves {
        // Denominators: those of all tables, one for the empty places of each, and others.
        let entries = 1usize << INDEX_BITS;
        let alpha = Fe::from(challenges.alpha);
        let gamma = challenges.gamma.map(Fe::from);
        let empty: Vec<Fe> = (0..self.tables.len()).map(|tag| alpha - Fe::of(tag as i64)).collect();
        // Allocated whole, with that of the filling: a vector that grows leaves copies of its
        // secrets in memory.
        let others: usize = indices.iter().map(|indices| indices.others.len()).sum();
        let of_tables = self.tables.len() * entries;
        let mut denominators = Wiped(Vec::with_capacity(of_tables + empty.len() + others + 1));
        denominators.resize(of_tables, Fe::ZERO);
        let each = denominators.par_chunks_mut(entries).zip(self.tables).zip(&empty);
        each.for_each(|((denominators, table), empty)| {
            for (index, denominator) in denominators.iter_mut().enumerate() {
                let [out, out2] = table.entries.outs(index);
                *denominator = *empty - gamma[0] * Fe::of(index as i64);
                if out != 0 {
                    *denominator -= gamma[1] * Fe::of(out);
                }
                if out2 != 0 {
                    *denominator -= gamma[2] * Fe::of(out2);
                }
            }
        });
        let first_empty = denominators.len();
        denominators.extend_from_slice(&empty);
        let first_others: Vec<usize> = self
            .lookups
            .iter()
            .zip(indices)
            .map(|(lookup, indices)| {
                let first = denominators.len();
                // Outs are zero there.
                let others = indices.others.iter().map(|x| empty[lookup.table] - gamma[0] * *x);
                denominators.extend(others);
                first
            })
            .collect();

        let count = blocks.last().map_or(0, |block| block.first + (1 << block.bits()));
        let linear = match self.tables.first() {
            Some(Table { entries: Entries::Range, .. }) => entries,
            _ => 0,
        };
        let (numerators, codes) = (vec![0; count], vec![0; count]);
        let mut leaves = Leaves { numerators, codes, denominators, linear };
        let (mut numerators, mut codes) = (&mut leaves.numerators[..], &mut leaves.codes[..]);
        let mut slices = Vec::new();
        for block in blocks {
            let (of_block, rest) = std::mem::take(&mut numerators).split_at_mut(1 << block.bits());
            let (codes_of_block, rest_of_codes) =
                std::mem::take(&mut codes).split_at_mut(1 << block.bits());
            slices.push((block, of_block, codes_of_block));
            (numerators, codes) = (rest, rest_of_codes);
        }
        slices.into_par_iter().for_each(|(block, numerators, codes)| match block.of {
            BlockOf::Table(table) => {
                let grid = multiplicities[table];
                let at = |index: usize| grid.low(index / grid.columns, index % grid.columns);
                let counts = (0..).map(at);
                numerators.iter_mut().zip(counts).for_each(|(n, count)| *n = -(count as i32));
                codes.iter_mut().zip(table * entries..).for_each(|(code, at)| *code = at as u32);
            }
            BlockOf::Lookup(at, from) => {
                let lookup = &self.lookups[at];
                let width = 1usize << block.feature_bits;
                let first = (lookup.table * entries) as u32;
                codes.fill((first_empty + lookup.table) as u32);
                let mut other = first_others[at];
                let places = &self.catalog.axes[lookup.axis].places;
                let rows = indices[at].live.chunks(lookup.features);
                for (place, indices) in places.iter().zip(rows) {
                    let row = place * width..(place + 1) * width;
                    let (numerators, codes) = (&mut numerators[row.clone()], &mut codes[row]);
                    if lookup.live == Live::All {
                        numerators.fill(1);
                        let indices = &indices[from..from + width];
                        let each = codes.iter_mut().zip(indices);
                        each.for_each(|(code, index)| *code = first + u32::from(*index));
                        continue;
                    }
                    for (feature, index) in indices.iter().enumerate() {
                        let is_own = (from..from + width).contains(&feature);
                        let leaf = feature.wrapping_sub(from);
                        if lookup.live.is_live(*place, feature) {
                            if is_own {
                                numerators[leaf] = 1;
                                codes[leaf] = first + u32::from(*index);
                            }
                        } else {
                            if is_own {
                                codes[leaf] = other as u32;
                            }
                            other += 1;
                        }
                    }
                }
            }
        });
        leaves
    }

    /// From the leaves at a point to claims and openings.
    #[expect(clippy::too_many_arguments)]
    fn close(
        &self,
        channel: &mut Channel<'_>,
        openings: &mut Vec<Opening>,
        claims: &mut Claims,
        blocks: &[Block],
        challenges: &Challenges,
        end: tree::End,
        known: Option<&Known<'_>>,
    ) -> Result<(), Error> {
        let Challenges { alpha, gamma } = challenges;
        let depth = end.point.len();
        // What is committed stands on the right, the rest on the left.
        let mut above = Opening { value: end.p, ..Opening::default() };
        let mut below = Opening { value: end.q, ..Opening::default() };
        let mut rows: HashMap<(AxisId, usize), Arc<Vec<F>>> = HashMap::new();
        let mut of_tables = None;
        let mut rest = F::ONE;
        for block in blocks {
            let (high, low) = end.point.split_at(depth - block.bits());
            let selector = eq_at(high, block.first >> block.bits());
            rest -= selector;
            let (row_point, feature_point) = low.split_at(block.axis_bits);
            match block.of {
                BlockOf::Table(table) => {
                    let Table { entries, multiplicities } = &self.tables[table];
                    // All tables have the same size, so the same point.
                    let eq = of_tables.get_or_insert_with(|| {
                        let eq = eq_table(&elements(low), Fe::ONE);
                        eq.into_iter().map(Signed::from).collect::<Vec<_>>()
                    });
                    below.value.constant -=
                        selector * self.table_at(table, entries, eq, challenges);
                    let axis = self.catalog.tensors[*multiplicities].axis;
                    let weights = rows
                        .entry((axis, block.bits()))
                        .or_insert_with(|| self.catalog.axes[axis].weights(row_point));
                    let features = eq_weights(feature_point, 1 << block.feature_bits);
                    above.add(self.catalog, *multiplicities, weights, &features, -selector);
                }
                BlockOf::Lookup(at, from) => {
                    let lookup = &self.lookups[at];
                    let axis = &self.catalog.axes[lookup.axis];
                    let weights = Arc::clone(
                        rows.entry((lookup.axis, block.bits()))
                            .or_insert_with(|| axis.weights(row_point)),
                    );
                    let inner = eq_weights(feature_point, 1 << block.feature_bits);
                    let mut features = vec![F::ZERO; lookup.features];
                    features[from..from + inner.len()].copy_from_slice(&inner);
                    above.value.constant -= selector * live_at(axis, lookup, &weights, &features);
                    below.value.constant -= selector * (*alpha - F::from(lookup.table as u64));
                    let factor = -(selector * gamma[0]);
                    for (tensor, view, coefficient) in &lookup.input.tensors {
                        let factor = factor * field(*coefficient);
                        below.add_view(self.catalog, *tensor, view, &weights, &features, factor);
                    }
                    for (out, gamma) in lookup.outs.iter().zip(&gamma[1..]) {
                        if let Some(tensor) = out {
                            let factor = -(selector * gamma);
                            below.add(self.catalog, *tensor, &weights, &features, factor);
                        }
                    }
                    let constants = lookup.input.constant.weighted(&weights);
                    let all: F = features.iter().sum();
                    below.value.constant -= factor * all * constants.iter().sum::<F>();
                    if let Some((value, scale)) = &lookup.input.value {
                        let heads = match lookup.live {
                            Live::All => None,
                            Live::Causal { keys } => Some(Heads::of_block(
                                feature_point,
                                from / keys,
                                lookup.features / keys,
                                keys,
                            )),
                        };
                        let weights = scale.weighted(&weights);
                        let cell = known.map(|known| {
                            vec![known.values.grid(*value).value(&weights, &features)]
                        });
                        let cell = channel.message("virtual", 1, cell)?.remove(0);
                        below.value.add(&cell, -factor);
                        claims.push(*value, Claim { weights, features, heads, value: cell });
                    }
                }
            }
        }
        below.value.constant -= rest;
        openings.push(above);
        openings.push(below);
        Ok(())
    }

    /// The denominators of a table at a point, of which these are the weights.
    fn table_at(&self, tag: usize, entries: &Entries, eq: &[Signed], challenges: &Challenges) -> F {
        const TASK: usize = 1 << 12;
        let Challenges { alpha, gamma } = challenges;
        let sums = eq.par_chunks(TASK).enumerate().map(|(task, eq)| {
            let mut sums = [IntegerSum::default(); 3];
            for (index, eq) in (task * TASK..).zip(eq) {
                let [out, out2] = entries.outs(index);
                sums.iter_mut().zip([index as i64, out, out2]).for_each(|(s, x)| s.add(x, eq));
            }
            sums.map(|sum| sum.reduce())
        });
        let add = |a: [Fe; 3], b: [Fe; 3]| [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
        let sums = sums.reduce(|| [Fe::ZERO; 3], add);
        let sum: F = sums.iter().zip(gamma).map(|(sum, gamma)| F::from(*sum) * gamma).sum();
        *alpha - F::from(tag as u64) - sum
    }
}

/// `eq(point, i)`
fn eq_at(point: &[F], i: usize) -> F {
    let bits = point.iter().enumerate();
    bits.map(|(at, r)| if i >> (point.len() - 1 - at) & 1 == 1 { *r } else { F::ONE - r }).product()
}

/// The numerators of a lookup's block at a point.
fn live_at(axis: &crate::axis::Axis, lookup: &Lookup, weights: &[F], features: &[F]) -> F {
    match lookup.live {
        Live::All => weights.iter().sum::<F>() * features.iter().sum::<F>(),
        Live::Causal { keys } => {
            // By key, over all heads; then sums of the first keys.
            let mut sums = vec![F::ZERO; keys];
            features.iter().enumerate().for_each(|(at, weight)| sums[at % keys] += *weight);
            for key in 1..keys {
                let before = sums[key - 1];
                sums[key] += before;
            }
            let each = axis.places.iter().zip(weights);
            each.map(|(place, weight)| *weight * sums[place % keys]).sum()
        }
    }
}
