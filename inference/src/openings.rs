//! Openings: weighted sums over committed columns, folded into one (docs/inference-proof.md,
//! "Openings").

use std::{collections::BTreeMap, sync::Arc};

use ff::Field;
use rayon::prelude::*;
use zklora_proof::{
    field::{F, powers},
    fold::eq_weights,
    layout::data_rows,
};

use crate::{
    Error,
    axis::bits_for,
    cells::Expression,
    channel::Channel,
    fe::{Fe, Products, Wiped, library},
    integers::{Grid, field},
    sumcheck::lagrange,
    tensors::{Catalog, PackId, Piece, TensorId, View},
};

/// `Σ_t rows[t]·Σ_i inner[i]·column_t[row + i]` over the columns of a pack.
#[derive(Debug, Clone)]
pub struct Part {
    /// The pack.
    pub pack: PackId,
    /// A weight for each element of the pack's axis. Parts that share one vector are joined.
    pub weights: Arc<Vec<F>>,
    /// The first row.
    pub row: usize,
    /// Weights of the rows from there.
    pub inner: Vec<Fe>,
}

/// A sum of parts, and what it equals.
#[derive(Debug, Clone, Default)]
pub struct Opening {
    /// The parts.
    pub parts: Vec<Part>,
    /// Their sum.
    pub value: Expression,
}

impl Opening {
    /// Adds `factor·Σ_{t,o} weights[t]·features[o]·tensor(t, o)` to the parts.
    pub fn add(
        &mut self,
        catalog: &Catalog,
        tensor: TensorId,
        weights: &Arc<Vec<F>>,
        features: &[F],
        factor: F,
    ) {
        let factor = Fe::from(factor);
        for piece in &catalog.tensors[tensor].pieces {
            let inner = &features[piece.first..piece.first + piece.count];
            // A block of a lookup has weights of its own features only: memory is that of blocks.
            let is_weight = |weight: &F| *weight != F::ZERO;
            let ends = inner.iter().position(is_weight).zip(inner.iter().rposition(is_weight));
            let Some((first, last)) = ends else { continue };
            let inner = &inner[first..=last];
            self.parts.push(Part {
                pack: piece.pack,
                weights: Arc::clone(weights),
                row: piece.row + first,
                inner: inner.iter().map(|weight| Fe::from(*weight) * factor).collect(),
            });
        }
    }
}

impl Opening {
    /// The same for a tensor that is read through a view.
    pub fn add_view(
        &mut self,
        catalog: &Catalog,
        tensor: TensorId,
        view: &View,
        weights: &Arc<Vec<F>>,
        features: &[F],
        factor: F,
    ) {
        let own = catalog.tensors[tensor].features;
        match view {
            View::Same => self.add(catalog, tensor, weights, features, factor),
            View::Heads(keys) => {
                let sums: Vec<F> = features.chunks(*keys).map(|keys| keys.iter().sum()).collect();
                self.add(catalog, tensor, weights, &sums, factor);
            }
            View::Sum => self.add(catalog, tensor, weights, &vec![features[0]; own], factor),
            View::Picked(picks) => {
                let tensor = &catalog.tensors[tensor];
                let count = catalog.axes[tensor.axis].len();
                let mut rows: BTreeMap<usize, Arc<Vec<F>>> = BTreeMap::new();
                // As in `add`: memory is that of a block.
                let of_block = picks.iter().zip(features).filter(|(_, weight)| **weight != F::ZERO);
                for (picks, weight) in of_block {
                    for (row, feature, coefficient) in picks {
                        let own = |piece: &&Piece| {
                            (piece.first..piece.first + piece.count).contains(feature)
                        };
                        let Some(piece) = tensor.pieces.iter().find(own) else { continue };
                        let one = rows.entry(*row).or_insert_with(|| {
                            let mut one = vec![F::ZERO; count];
                            one[*row] = F::ONE;
                            Arc::new(one)
                        });
                        self.parts.push(Part {
                            pack: piece.pack,
                            weights: Arc::clone(one),
                            row: piece.row + feature - piece.first,
                            inner: vec![Fe::from(
                                *weight * weights[0] * field(*coefficient) * factor,
                            )],
                        });
                    }
                }
            }
        }
    }
}

/// The columns of a pack, for who has them: a row for each element.
pub type Columns<'a> = dyn Fn(PackId) -> Grid + Sync + 'a;

/// What all openings were folded into: `⟨X, inner⟩ = value`, X the columns' sum with `weights`.
pub struct Folded {
    /// Weights of rows of X.
    pub inner: Vec<F>,
    /// For each pack, a weight for each element.
    pub weights: Vec<Vec<F>>,
    /// The value.
    pub value: Expression,
}

/// Parts with equal weights, joined.
struct Joined {
    pack: PackId,
    weights: Arc<Vec<F>>,
    inner: Window,
}

/// A vector that is zero outside of some places.
#[derive(Clone, Default)]
struct Window {
    first: usize,
    values: Vec<Fe>,
}

impl Window {
    fn end(&self) -> usize {
        self.first + self.values.len()
    }

    fn get(&self, at: usize) -> Fe {
        let within = at.checked_sub(self.first);
        within.and_then(|at| self.values.get(at)).copied().unwrap_or(Fe::ZERO)
    }

    /// Widens the window to these places too.
    fn cover(&mut self, first: usize, end: usize) {
        if self.values.is_empty() {
            self.first = first;
        }
        if first < self.first {
            self.values.splice(0..0, vec![Fe::ZERO; self.first - first]);
            self.first = first;
        }
        if end > self.end() {
            self.values.resize(end - self.first, Fe::ZERO);
        }
    }

    /// Adds `factor·values` from a place on.
    fn add(&mut self, first: usize, values: &[Fe], factor: Fe) {
        self.cover(first, first + values.len());
        let own = &mut self.values[first - self.first..];
        own.iter_mut().zip(values).for_each(|(own, value)| *own += factor * *value);
    }

    /// `self + r·(high − self)`
    fn bind(&mut self, high: &Window, r: Fe) {
        self.values.iter_mut().for_each(|value| *value *= Fe::ONE - r);
        if !high.values.is_empty() {
            self.add(high.first, &high.values, r);
        }
    }
}

/// The prover's side: the columns' sums, and the weights of their rows.
struct Folding {
    columns: Vec<Wiped>,
    inner: Vec<Window>,
}

impl Folding {
    fn new(joined: &[Joined], packs: usize, columns: &Columns<'_>, rounds: usize) -> Folding {
        let mut sums: Vec<Wiped> = Vec::new();
        sums.resize_with(1 << rounds, Wiped::default);
        let mut of_packs = vec![Vec::new(); packs];
        joined.iter().enumerate().for_each(|(at, part)| of_packs[part.pack].push(at));
        for (pack, parts) in of_packs.iter().enumerate().filter(|(_, parts)| !parts.is_empty()) {
            let weights: Vec<&[F]> =
                parts.iter().map(|at| joined[*at].weights.as_slice()).collect();
            let of_parts = columns(pack).folds(&weights);
            parts.iter().zip(of_parts).for_each(|(at, sum)| sums[*at] = sum);
        }
        let mut inner: Vec<Window> = joined.iter().map(|part| part.inner.clone()).collect();
        inner.resize_with(1 << rounds, Window::default);
        Folding { columns: sums, inner }
    }

    /// The round's polynomial at 0 and 2.
    fn round(&self) -> Vec<F> {
        let half = self.columns.len() / 2;
        let sums = (0..half).into_par_iter().map(|part| {
            let (low, high) = (&self.columns[part], &self.columns[part + half]);
            let (inner, inner_high) = (&self.inner[part], &self.inner[part + half]);
            let mut sums = [Products::default(); 2];
            let first = inner.first;
            low.iter().skip(first).zip(&inner.values).for_each(|(x, w)| sums[0].add(*x, *w));
            let mut both = inner.clone();
            if !inner_high.values.is_empty() {
                both.cover(inner_high.first, inner_high.end());
            }
            let at = |x: &Wiped, row: usize| x.get(row).copied().unwrap_or(Fe::ZERO);
            for row in both.first..both.end() {
                let weight = inner_high.get(row).double() - both.get(row);
                sums[1].add(at(high, row).double() - at(low, row), weight);
            }
            sums.map(|sum| sum.reduce())
        });
        let sums = sums.reduce(|| [Fe::ZERO; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
        sums.map(F::from).to_vec()
    }

    /// Fixes a bit of the parts' numbers.
    fn bind(&mut self, r: Fe) {
        let half = self.columns.len() / 2;
        let high = self.columns.split_off(half);
        self.columns.par_iter_mut().zip(&high).for_each(|(low, high)| {
            if low.len() < high.len() {
                low.resize(high.len(), Fe::ZERO);
            }
            let (both, rest) = low.split_at_mut(high.len());
            both.iter_mut().zip(high.iter()).for_each(|(low, high)| *low += r * (*high - *low));
            rest.iter_mut().for_each(|low| *low *= Fe::ONE - r);
        });
        let high = self.inner.split_off(half);
        self.inner.par_iter_mut().zip(&high).for_each(|(low, high)| low.bind(high, r));
    }
}

/// Folds openings.
///
/// # Errors
/// Those of [`Channel::message`].
pub fn fold(
    channel: &mut Channel<'_>,
    catalog: &Catalog,
    openings: &[Opening],
    columns: Option<&Columns<'_>>,
) -> Result<Folded, Error> {
    let beta = channel.challenge("beta");
    let betas = powers(beta, openings.len());
    let joined = join(openings, &betas);
    let mut claim = Expression::default();
    openings.iter().zip(&betas).for_each(|(opening, beta)| claim.add(&opening.value, *beta));
    let rounds = bits_for(joined.len());
    let mut folding =
        columns.map(|columns| Folding::new(&joined, catalog.packs.len(), columns, rounds));
    let mut r = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let cells = channel.message("fold", 2, folding.as_ref().map(Folding::round))?;
        let challenge = channel.challenge("r");
        let weights = lagrange(challenge, 2);
        claim = claim.plus(&cells[0], -F::ONE).times(weights[1]);
        claim.add(&cells[0], weights[0]);
        claim.add(&cells[1], weights[2]);
        if let Some(folding) = &mut folding {
            folding.bind(Fe::from(challenge));
        }
        r.push(challenge);
    }
    let eq = eq_weights(&r, joined.len());
    let mut weights: Vec<Vec<F>> =
        catalog.packs.iter().map(|pack| vec![F::ZERO; catalog.axes[pack.axis].len()]).collect();
    let mut inner = Window::default();
    inner.cover(0, data_rows(catalog.k));
    for (part, eq) in joined.iter().zip(&eq) {
        let total = weights[part.pack].iter_mut().zip(part.weights.iter());
        total.for_each(|(total, weight)| *total += *weight * eq);
        inner.add(part.inner.first, &part.inner.values, Fe::from(*eq));
    }
    Ok(Folded { inner: library(&inner.values), weights, value: claim })
}

/// Which vector the weights of a part are.
#[derive(PartialEq, Eq, Hash)]
enum Same {
    /// 1 at one element, 0 at the others.
    Unit(usize),
    /// This one.
    Vector(*const Vec<F>),
}

impl Same {
    fn of(weights: &Arc<Vec<F>>) -> Same {
        let mut others = weights.iter().enumerate().filter(|(_, weight)| **weight != F::ZERO);
        match (others.next(), others.next()) {
            (Some((at, weight)), None) if *weight == F::ONE => Same::Unit(at),
            _ => Same::Vector(Arc::as_ptr(weights)),
        }
    }
}

/// Joins parts of one pack whose weights of columns are one vector.
fn join(openings: &[Opening], betas: &[F]) -> Vec<Joined> {
    let mut joined: Vec<Joined> = Vec::new();
    let mut known = std::collections::HashMap::new();
    for (opening, beta) in openings.iter().zip(betas) {
        for part in &opening.parts {
            let key = (part.pack, Same::of(&part.weights));
            let at = *known.entry(key).or_insert_with(|| {
                let (pack, weights) = (part.pack, Arc::clone(&part.weights));
                joined.push(Joined { pack, weights, inner: Window::default() });
                joined.len() - 1
            });
            joined[at].inner.add(part.row, &part.inner, Fe::from(*beta));
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::axis::Axis;

    /// What a block of a lookup opens takes as much memory as the block.
    #[test]
    fn parts_hold_the_weights_that_are_not_zero() {
        let mut catalog = Catalog::new(6);
        let axis = catalog.axis(Axis::dense(1));
        let rows = data_rows(6);
        let tensor = catalog.tensor(axis, 3 * rows);
        let weights = Arc::new(vec![F::ONE]);
        let mut features = vec![F::ZERO; 3 * rows];
        for at in [rows + 2, rows + 5, 2 * rows] {
            features[at] = F::from(at as u64);
        }
        let mut opening = Opening::default();
        opening.add(&catalog, tensor, &weights, &features, F::ONE);
        let found: Vec<_> = opening.parts.iter().map(|part| (part.row, part.inner.len())).collect();
        assert_eq!(found, [(2, 4), (0, 1)]);
    }

    /// Cells of a tensor that is continued in other packs, and of a block's features only.
    #[test]
    fn picked_cells_are_found_in_their_pieces() {
        use ethnum::I256;
        let mut catalog = Catalog::new(6);
        let axis = catalog.axis(Axis::dense(3));
        let rows = data_rows(6);
        catalog.tensor(axis, 5);
        let tensor = catalog.tensor(axis, 2 * rows);
        let picks = vec![
            vec![(1, 0, I256::ONE)],
            vec![
                (2, rows - 6, I256::from(2)),
                (0, rows - 5, I256::from(-3)),
                (1, 2 * rows - 1, I256::ONE),
            ],
        ];
        let (view, one) = (View::Picked(Arc::new(picks)), Arc::new(vec![F::ONE]));
        let mut opening = Opening::default();
        let features = [F::ZERO, F::from(7)];
        opening.add_view(&catalog, tensor, &view, &one, &features, F::from(2));
        let found: Vec<_> = opening
            .parts
            .iter()
            .map(|part| {
                let of = part.weights.iter().position(|weight| *weight == F::ONE);
                (part.pack, part.row, of.unwrap(), library(&part.inner))
            })
            .collect();
        let expected = [
            (0, rows - 1, 2, vec![F::from(28)]),
            (1, 0, 0, vec![-F::from(42)]),
            (2, 4, 1, vec![F::from(14)]),
        ];
        assert_eq!(found, expected);
    }
}
