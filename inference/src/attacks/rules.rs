//! Rules of the protocol that provers break, and variants of both parties without them.

use std::cell::Cell;

use ethnum::I256;
use ff::Field;
use zklora_proof::field::{F, Secret, inner_product};

use crate::{
    channel::Slot,
    fe::Fe,
    fractions::Leaves,
    integers::{Grid, element},
    lookups::{Argument, Block, BlockOf, Indices, Known, Lookup},
    openings::Folded,
    relations::Relations,
    tensors::{Catalog, PackId, TensorId},
};

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// T and U are pinned to their cells.
    Pinned,
    /// Messages are told apart by powers of χ.
    Apart,
    /// The blinder of X enters with χ.
    Blinder,
}

thread_local! {
    static PROVER: Cell<Option<Broken>> = const { Cell::new(None) };
    static BOTH: Cell<Option<Broken>> = const { Cell::new(None) };
}

/// Works as a prover that breaks a rule.
pub fn forging<T>(rule: Broken, work: impl FnOnce() -> T) -> T {
    PROVER.set(Some(rule));
    let result = work();
    PROVER.set(None);
    result
}

/// Works without a rule, on both sides.
pub fn without<T>(rule: Broken, work: impl FnOnce() -> T) -> T {
    BOTH.set(Some(rule));
    let result = work();
    BOTH.set(None);
    result
}

thread_local! {
    static LEFT_OUT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Works as a prover that leaves the first place of a lookup out.
pub fn leaving_out<T>(lookup: usize, work: impl FnOnce() -> T) -> T {
    LEFT_OUT.set(Some(lookup));
    let result = work();
    LEFT_OUT.set(None);
    result
}

/// Leaves of a prover without indices, which takes tuples as they are, entries or not.
pub fn leaves(
    of: &Argument<'_>,
    blocks: &[Block],
    [alpha, gamma]: [F; 2],
    indices: &[Indices],
    known: &Known<'_>,
    mut leaves: Leaves,
) -> Leaves {
    let [alpha, gamma] = [alpha, gamma].map(Fe::from);
    for block in blocks {
        let BlockOf::Lookup(at, from) = block.of else { continue };
        let lookup = &of.lookups[at];
        let width = 1 << block.feature_bits;
        let places = of.catalog.axes[lookup.axis].places.iter().enumerate();
        for (row, place) in places.filter(|_| indices[at].live.is_empty()) {
            for feature in from..from + width {
                let leaf = block.first + place * width + feature - from;
                let [index, out, out2] = tuple(lookup, known, row, feature).map(element);
                leaves.numerators[leaf] = lookup.live.is_live(*place, feature).into();
                leaves.codes[leaf] = leaves.denominators.len() as u32;
                let sum = gamma * (index + gamma * (out + gamma * out2));
                leaves.denominators.push(alpha - Fe::of(lookup.table as i64) - sum);
            }
        }
        if from == 0 && LEFT_OUT.get() == Some(at) {
            leaves.numerators[block.first] = 0;
        }
    }
    leaves
}

/// What a lookup looks up at a place.
pub fn tuple(lookup: &Lookup, known: &Known<'_>, row: usize, feature: usize) -> [I256; 3] {
    let out = |tensor: TensorId| known.tensors[tensor].get(row, feature);
    let [first, second] = lookup.outs.map(|tensor| tensor.map_or(I256::ZERO, out));
    [lookup.input.at(known, row, feature), first, second]
}

/// The columns of a pack, if some integers have more than 64 bits.
pub fn wide_columns(catalog: &Catalog, tensors: &[Grid], pack: PackId) -> Option<Grid> {
    let pack = &catalog.packs[pack];
    let rows = catalog.axes[pack.axis].len();
    if pack.tensors.iter().all(|(of, _)| tensors[*of].small_row(0, 0..0).is_some()) {
        return None;
    }
    let mut cells = vec![I256::ZERO; rows * pack.used];
    for (tensor, piece) in &pack.tensors {
        for row in 0..rows {
            for at in 0..piece.count {
                let cell = tensors[*tensor].get(row, piece.first + at);
                cells[row * pack.used + piece.row + at] = cell;
            }
        }
    }
    Some(Grid::wide(pack.used, cells))
}

pub fn is_forged(rule: Broken) -> bool {
    PROVER.get() == Some(rule)
}

pub fn is_off(rule: Broken) -> bool {
    BOTH.get() == Some(rule)
}

/// The cells of the first message such that the fractions sum to zero and its claim stays: what
/// a prover wishes it had said.
pub fn wished(relations: &Relations, cells: &[F]) -> Vec<F> {
    let mut wished = cells.to_vec();
    if is_forged(Broken::Apart) {
        let [p0, p1, q0, q1] = [cells[0], cells[1], cells[2], cells[3]];
        let sum = p0 * q1 + p1 * q0;
        // (1 − ρ)·x + ρ·y = 0, as the next relation reads them, and x·q1 + y·q0 = −sum.
        let terms = &relations.zero[1].linear.terms;
        let [low, high] = [0, 1]
            .map(|at| terms.iter().filter(|(cell, _)| cell.0 == at).map(|(_, c)| *c).sum::<F>());
        let (x, y) = (high, -low);
        let factor = -sum * (x * q1 + y * q0).invert().unwrap();
        wished[0] += x * factor;
        wished[1] += y * factor;
        assert_eq!(relations.violated(&wished), []);
    }
    wished
}

/// What the blinder of a column of W adds so that its cells are the wished ones.
pub fn of_column(column: usize, slots: &[Slot], cells: &[F], wished: &[F]) -> Vec<F> {
    let mut data = Vec::new();
    for ((slot, cell), wish) in slots.iter().zip(cells).zip(wished) {
        if slot.column == column && cell != wish {
            data.resize(data.len().max(slot.row + 1), F::ZERO);
            data[slot.row] += *wish - cell;
        }
    }
    data
}

/// A row of X's blinder that makes the opening true.
pub fn of_opening(folded: &Folded, x: &[F], cells: &[F]) -> Vec<F> {
    if !is_forged(Broken::Blinder) {
        return vec![];
    }
    let row = folded.inner.iter().position(|weight| *weight != F::ZERO).unwrap();
    let value = folded.value.value(cells);
    let missing = value - inner_product(&x[..folded.inner.len()], &folded.inner);
    let mut data = vec![F::ZERO; row + 1];
    data[row] = missing * folded.inner[row].invert().unwrap();
    data
}

/// First factors such that every relation with a product holds.
pub fn bend(relations: &Relations, cells: &[F], mut t: Secret) -> Secret {
    if !is_forged(Broken::Pinned) {
        return t;
    }
    for relation in &relations.zero {
        let value = |place: usize| relations.products[place].1.value(cells);
        let each = relation.products.iter().map(|(factor, at)| *factor * t[*at] * value(*at));
        let rest = relation.linear.value(cells) + each.sum::<F>();
        if rest != F::ZERO {
            let (factor, at) = relation.products[0];
            t[at] -= rest * (factor * value(at)).invert().unwrap();
        }
    }
    t
}
