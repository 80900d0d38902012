//! Tensors, tables and lookups of a proof, as they are put together (docs/inference-proof.md,
//! "Lookups" and "Operators").

use std::{collections::HashMap, sync::Arc};

use ethnum::{I256, U256};
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::{
    Error,
    axis::Axis,
    integers::{Grid, power},
    lookups::{
        Entries, INDEX_BITS, Indices, Input, Known, Live, Lookup, PerRow, RANGE, TABLE_AXIS_BITS,
        Table, TableId, multiplicities,
    },
    statement::Bound,
    tensors::{AxisId, Catalog, Picks, TensorId, View},
    values::Values,
};

/// Bits of a limb.
pub const LIMB: u32 = 16;

/// Numbers that are cut into limbs.
#[derive(Debug, Clone)]
pub struct Limbs {
    /// The number.
    pub input: Input,
    /// Limbs 1, 2, …
    pub limbs: Vec<TensorId>,
    /// The axis.
    pub axis: AxisId,
    /// Features.
    pub features: usize,
    /// Which places count.
    pub live: Live,
}

/// Tensors, tables and lookups.
pub struct Schedule {
    /// Axes, tensors, packs.
    pub catalog: Catalog,
    /// The tables.
    pub tables: Vec<Table>,
    /// The lookups.
    pub lookups: Vec<Lookup>,
    /// Numbers in limbs.
    pub limbs: Vec<Limbs>,
    known: HashMap<(usize, u64), TableId>,
    table_axis: AxisId,
}

/// Bits of a number.
pub(crate) fn bits(value: U256) -> u32 {
    U256::BITS - value.leading_zeros()
}

impl Schedule {
    /// With the range table alone.
    pub fn new(k: u32) -> Schedule {
        let mut catalog = Catalog::new(k);
        let table_axis = catalog.axis(Axis::dense(1 << TABLE_AXIS_BITS));
        let mut schedule = Schedule {
            catalog,
            tables: vec![],
            lookups: vec![],
            limbs: vec![],
            known: HashMap::new(),
            table_axis,
        };
        schedule.table(Entries::Range);
        schedule
    }

    /// A new tensor.
    pub fn tensor(&mut self, axis: AxisId, features: usize) -> TensorId {
        self.catalog.tensor(axis, features)
    }

    /// A table, once.
    pub fn table(&mut self, entries: Entries) -> TableId {
        let key = match &entries {
            Entries::Range => (0, 0),
            Entries::Activation(table) => (Arc::as_ptr(table) as usize, 0),
            Entries::Exponentials { table, limit } => (Arc::as_ptr(table) as usize, *limit),
        };
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let multiplicities = self.tensor(self.table_axis, 1 << (INDEX_BITS - TABLE_AXIS_BITS));
        self.tables.push(Table { entries, multiplicities });
        let id = self.tables.len() - 1;
        self.known.insert(key, id);
        id
    }

    /// Looks an input up in the range table.
    pub fn look_up(&mut self, axis: AxisId, features: usize, live: Live, input: Input) {
        let outs = [None; 2];
        self.lookups.push(Lookup { table: RANGE, axis, features, input, outs, live });
    }

    /// Ranges a number by limbs.
    pub fn ranged(&mut self, axis: AxisId, features: usize, live: Live, input: Input, count: u32) {
        let limbs: Vec<TensorId> = (1..count).map(|_| self.tensor(axis, features)).collect();
        let mut lowest = input.clone();
        for (j, limb) in limbs.iter().enumerate() {
            self.look_up(axis, features, live, Input::tensor(*limb, 0));
            lowest = lowest.plus(*limb, View::Same, -power(LIMB * (j as u32 + 1)));
        }
        self.look_up(axis, features, live, lowest);
        self.limbs.push(Limbs { input, limbs, axis, features, live });
    }

    /// Bounds of weighted sums of results.
    ///
    /// # Errors
    /// [`Error::Statement`]: a bound has other weights than there are results, or allows nothing.
    pub fn bounds(&mut self, results: &[Score], bounds: &[Bound]) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::Statement(why));
        let axis = self.catalog.axis(Axis::dense(1));
        for (at, bound) in bounds.iter().enumerate() {
            if bound.weights.len() != results.len() {
                return refuse(format!(
                    "bound {at} has {} weights, and there are {} results",
                    bound.weights.len(),
                    results.len()
                ));
            }
            let weights = bound.weights.iter().zip(results);
            let largest = weights.clone().fold(0u128, |sum, (weight, score)| {
                let most = u128::from(score.tokens) << INDEX_BITS;
                sum.saturating_add(u128::from(weight.unsigned_abs()).saturating_mul(most))
            });
            let span = i128::from(bound.most) - i128::from(bound.least);
            // All numbers of the comparison are below 2^101, far below the field's order.
            if span < 0 || largest >= 1 << 100 {
                return refuse(format!("bound {at} allows no sum, or its weights are too large"));
            }
            let span = U256::from(span.unsigned_abs());
            let count = bits(span).div_ceil(LIMB).max(1);
            for (sign, constant) in [(1, -i128::from(bound.least)), (-1, i128::from(bound.most))] {
                // By tensor.
                let mut picks: Vec<(TensorId, Picks)> = Vec::new();
                for (weight, score) in weights.clone() {
                    let factor = I256::from(sign * score.sign * i64::from(*weight));
                    let cells = score.cells.iter().map(|(row, at)| (*row, *at, factor));
                    match picks.iter_mut().find(|(tensor, _)| *tensor == score.tensor) {
                        Some((_, known)) => known.extend(cells),
                        None => picks.push((score.tensor, cells.collect())),
                    }
                }
                let tensors = picks.into_iter().map(|(tensor, cells)| {
                    (tensor, View::Picked(Arc::new(vec![cells])), I256::ONE)
                });
                let input = Input {
                    tensors: tensors.collect(),
                    value: None,
                    constant: PerRow::Same(I256::from(constant)),
                };
                self.ranged(axis, 1, Live::All, input, count);
            }
        }
        Ok(())
    }
}

impl Schedule {
    /// Fills in limbs and multiplicities, which follow from the other tensors, and returns the
    /// indices of each lookup.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]
    pub fn fill(&self, tensors: &mut [Grid], values: &Values) -> Result<Vec<Indices>, Error> {
        self.cut(tensors, values)?;
        self.look_all_up(tensors, values)
    }

    /// Fills in limbs.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]
    pub fn cut(&self, tensors: &mut [Grid], values: &Values) -> Result<(), Error> {
        for limbs in self.limbs.iter().filter(|limbs| !limbs.limbs.is_empty()) {
            let filled = limbs.cut(&self.catalog, &Known { tensors, values })?;
            for (tensor, grid) in limbs.limbs.iter().zip(filled) {
                tensors[*tensor] = grid;
            }
        }
        Ok(())
    }

    /// Looks everything up, and counts.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]
    pub fn look_all_up(
        &self,
        tensors: &mut [Grid],
        values: &Values,
    ) -> Result<Vec<Indices>, Error> {
        let known = Known { tensors, values };
        let indices = self.lookups.iter().map(|lookup| lookup.indices(&self.catalog, &known));
        let indices: Vec<Indices> = indices.collect::<Result<_, _>>()?;
        let counts = multiplicities(&self.catalog, &self.lookups, &indices, self.tables.len());
        for (table, counts) in self.tables.iter().zip(counts) {
            tensors[table.multiplicities] = counts;
        }
        Ok(indices)
    }
}

impl Limbs {
    /// The limbs 1, 2, … of the numbers.
    fn cut(&self, catalog: &Catalog, known: &Known<'_>) -> Result<Vec<Grid>, Error> {
        let axis = &catalog.axes[self.axis];
        let (count, features) = (self.limbs.len(), self.features);
        let end = LIMB * (count as u32 + 1);
        // Numbers modulo 2^128 do, if they are below.
        let fits = end < 120;
        let scratch = || Zeroizing::new(Vec::<i128>::new());
        let rows = (0..axis.len()).into_par_iter().map_init(scratch, |numbers, row| {
            let mut cells = Zeroizing::new(vec![0i64; count * features]);
            if fits {
                self.input.row(known, row, features, numbers);
            }
            for feature in (0..features).filter(|at| self.live.is_live(axis.places[row], *at)) {
                if fits {
                    let number = numbers[feature];
                    if number < 0 || number >> end != 0 {
                        return Err(Error::OutOfRange);
                    }
                    let each = cells.chunks_mut(features).zip(1u32..);
                    each.for_each(|(cells, j)| cells[feature] = narrow_limb(number, j));
                } else {
                    let number = self.input.at(known, row, feature);
                    if number < I256::ZERO || number >> end != I256::ZERO {
                        return Err(Error::OutOfRange);
                    }
                    let each = cells.chunks_mut(features).zip(1u32..);
                    each.for_each(|(cells, j)| cells[feature] = limb(number, j));
                }
            }
            Ok(cells)
        });
        let rows: Vec<Zeroizing<Vec<i64>>> = rows.collect::<Result<_, Error>>()?;
        let grids = (0..count).into_par_iter().map(|j| {
            let of_limb = rows.iter().flat_map(|row| &row[j * features..(j + 1) * features]);
            Grid::small(features, of_limb.copied().collect())
        });
        Ok(grids.collect())
    }
}

/// Limb j of a number that is not negative.
pub(crate) fn limb(number: I256, j: u32) -> i64 {
    ((number >> (LIMB * j)) & I256::from(0xffff)).as_i64()
}

/// The same of fewer bits.
pub(crate) fn narrow_limb(number: i128, j: u32) -> i64 {
    ((number >> (LIMB * j)) & 0xffff) as i64
}

/// A score: `sign·Σ cells` of a tensor.
#[derive(Debug, Clone)]
pub struct Score {
    /// The tensor.
    pub tensor: TensorId,
    /// Element and feature of each cell.
    pub cells: Vec<(usize, usize)>,
    /// 1 or −1.
    pub sign: i64,
    /// Scored tokens: each is at most 2^16 in magnitude.
    pub tokens: u64,
}
