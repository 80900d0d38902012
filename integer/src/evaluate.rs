//! Runs a program on units of tokens, operator by operator.
//!
//! A value is dropped after its last use, so memory is that of one layer. Several units are
//! computed at once: they share the reading of the public matrices. A unit that leaves a range gets
//! no result; the others are not affected.

use std::sync::Arc;

use ethnum::{I256, U256};
use ndarray::{Array2, linalg::general_mat_mul};
use rayon::prelude::*;
use zeroize::Zeroize;

use crate::{
    Error,
    graph::{NormKind, Operator, key_heads},
    matrix::Cell,
    operators::{self, Beyond},
    products::Scaled,
    program::{Action, LowRank, Program, Step},
    rules,
    tables::Wave,
    weight::{nearest, power_of_two},
};

pub use crate::matrix::{Integers, Matrix};

/// Rows of logits that are computed at once.
const LOGIT_ROWS: usize = 128;

/// What an operator computed, for a proof of it.
#[derive(Debug)]
pub struct Observation<'a> {
    /// Index of the operator.
    pub operator: usize,
    /// Its result.
    pub result: &'a Matrix,
    /// For norms, the root of each row. For attention, the normaliser of each query: row by row,
    /// head by head.
    pub advice: &'a [i64],
}

/// A unit left a range.
#[derive(Debug, Clone, PartialEq)]
pub struct OutOfRange {
    /// Index of the operator.
    pub operator: usize,
    /// Its name, and that of its layer.
    pub what: String,
    /// The token.
    pub token: usize,
    /// Where, and by how much.
    pub beyond: Beyond,
}

/// A factor in words.
fn times(factor: f64) -> String {
    if factor < 1000.0 { format!("{factor:.3} times") } else { "over 1000 times".into() }
}

impl std::fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let OutOfRange { operator, what, token, beyond } = self;
        write!(
            f,
            "operator {operator} ({what}), token {token}, feature {}: {} its range",
            beyond.place,
            times(beyond.times)
        )
    }
}

/// The result of units before the logits.
pub struct Evaluation<'p> {
    program: &'p Program,
    hidden: Arc<Matrix>,
    /// The first row of each unit, and the number of all rows.
    starts: Vec<usize>,
    /// For each unit, the range that it left.
    pub failures: Vec<Option<OutOfRange>>,
    /// For each operator, the largest part of its range that was used; 0 if it has none.
    pub used: Vec<f64>,
}

/// One run.
struct Run<'p> {
    program: &'p Program,
    /// Unit and position of every row.
    rows: Vec<(usize, usize)>,
    ids: Vec<u32>,
    starts: Vec<usize>,
    failures: Vec<Option<OutOfRange>>,
    used: Vec<f64>,
}

/// Evaluates units up to the value that the logits are computed from. `observe` sees every result.
///
/// # Errors
/// [`Error::Unit`]: a unit is empty or too long, or has a token that the model does not have.
pub fn evaluate<'p>(
    program: &'p Program,
    units: &[&[u32]],
    observe: &mut dyn FnMut(Observation<'_>),
) -> Result<Evaluation<'p>, Error> {
    let graph = &program.graph;
    for (at, unit) in units.iter().enumerate() {
        check_unit(program, at, unit)?;
    }
    let rows: Vec<(usize, usize)> = units
        .iter()
        .enumerate()
        .flat_map(|(unit, ids)| (0..ids.len()).map(move |position| (unit, position)))
        .collect();
    let mut starts = vec![0];
    units.iter().for_each(|ids| starts.push(starts.last().unwrap_or(&0) + ids.len()));
    let mut run = Run {
        program,
        rows,
        ids: units.iter().flat_map(|ids| ids.iter().copied()).collect(),
        starts,
        failures: vec![None; units.len()],
        used: vec![0.0; graph.operators.len()],
    };
    let last_uses = graph.last_uses();
    let mut values: Vec<Option<Arc<Matrix>>> = vec![None; graph.operators.len()];
    let hidden = hidden(program)?;
    for (at, step) in program.steps.iter().enumerate().take(hidden + 1) {
        let inputs: Vec<Arc<Matrix>> = step
            .operator
            .inputs()
            .into_iter()
            .map(|x| values[x].clone().ok_or_else(|| Error::Internal("a value is missing".into())))
            .collect::<Result<_, _>>()?;
        // In 64 bits, if all of it fits.
        let small = step.size.is_small() && inputs.iter().all(|x| x.is_small());
        let (result, advice) = match small {
            true => run.step::<i64>(at, step, &inputs),
            false => run.step::<i128>(at, step, &inputs),
        };
        let result = result.sized(&step.size);
        drop(inputs);
        observe(Observation { operator: at, result: &result, advice: &advice });
        values[at] = Some(Arc::new(result));
        for x in step.operator.inputs() {
            if last_uses[x] == at {
                values[x] = None;
            }
        }
    }
    let hidden = values[hidden].take().ok_or_else(|| Error::Internal("no result".into()))?;
    let Run { starts, failures, used, .. } = run;
    Ok(Evaluation { program, hidden, starts, failures, used })
}

/// The value that the logits are computed from.
fn hidden(program: &Program) -> Result<usize, Error> {
    match program.graph.operators[program.graph.logits] {
        Operator::Linear { x, .. } => Ok(x),
        _ => Err(Error::Internal("the logits are no linear layer".into())),
    }
}

/// Checks that a sequence can be evaluated at all. `at` is the unit's index, for the error.
///
/// # Errors
/// [`Error::Unit`]: it has no tokens, too many, or some of another model.
pub fn check_unit(program: &Program, at: usize, unit: &[u32]) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::Unit { unit: at, why });
    if unit.is_empty() {
        return refuse("it has no tokens".into());
    }
    if unit.len() > program.tokens {
        return refuse(format!(
            "it has {} tokens, more than the {} that the integer model takes; pass shorter units",
            unit.len(),
            program.tokens
        ));
    }
    match unit.iter().find(|id| **id as usize >= program.graph.vocabulary) {
        Some(id) => refuse(format!(
            "token {id} is not one of the model's {}; the tokenizer belongs to another model",
            program.graph.vocabulary
        )),
        None => Ok(()),
    }
}

impl Evaluation<'_> {
    /// Calls `each` with rows of logits, at `self.program.steps[logits].size.bits` fractional
    /// bits: the index among `wanted`, and the row. `wanted` are unit and position.
    pub fn logits(&self, wanted: &[(usize, usize)], each: impl Fn(usize, &[i128]) + Sync) {
        self.matrices_of_logits(wanted, |first, logits| {
            let values = logits.values();
            let rows = values.par_chunks(logits.columns).enumerate();
            rows.for_each(|(at, row)| each(first + at, row));
        });
    }

    /// The same as matrices, with the index of their first rows.
    pub(crate) fn matrices_of_logits(
        &self,
        wanted: &[(usize, usize)],
        mut each: impl FnMut(usize, &Matrix),
    ) {
        let program = self.program;
        let step = &program.steps[program.graph.logits];
        for (block, wanted) in wanted.chunks(LOGIT_ROWS).enumerate() {
            let rows: Vec<usize> =
                wanted.iter().map(|(unit, position)| self.starts[*unit] + position).collect();
            each(block * LOGIT_ROWS, &linear(program, step, &self.hidden.of_rows(&rows)));
        }
    }
}

impl Run<'_> {
    /// The name of an operator, with its layer.
    fn name(&self, at: usize) -> String {
        let graph = &self.program.graph;
        let name = graph.operators[at].name();
        graph.layer_of(at).map_or_else(|| name.into(), |layer| format!("{name} after {layer}"))
    }

    /// Notes what a row used of its range, and the first failure of its unit.
    fn note(&mut self, at: usize, row: usize, used: f64, outcome: Result<(), Beyond>) {
        self.used[at] = self.used[at].max(used);
        let Err(beyond) = outcome else { return };
        let (unit, token) = self.rows[row];
        if self.failures[unit].is_none() {
            let what = self.name(at);
            self.failures[unit] = Some(OutOfRange { operator: at, what, token, beyond });
        }
    }

    fn step<T: Cell>(
        &mut self,
        at: usize,
        step: &Step,
        inputs: &[Arc<Matrix>],
    ) -> (Matrix, Vec<i64>) {
        let program = self.program;
        let read = |input: usize| T::read(&inputs[input].integers);
        let (rows, columns) = inputs.first().map_or((0, 0), |x| (x.rows, x.columns));
        match (&step.operator, &step.action) {
            (Operator::Embedding { table }, Action::Table { bits }) => {
                let of = self.ids.iter().map(|id| *id as usize).collect::<Vec<_>>();
                (read_rows::<T>(program, *table, *bits, &of), vec![])
            }
            (Operator::Positions { table }, Action::Table { bits }) => {
                let of = self.rows.iter().map(|row| row.1).collect::<Vec<_>>();
                (read_rows::<T>(program, *table, *bits, &of), vec![])
            }
            (Operator::Sum { .. }, Action::Sum { shifts }) => {
                let sum = match step.size.is_narrow() {
                    true => sum::<T>(inputs, shifts),
                    false => wide_sum(inputs, shifts),
                };
                (sum, vec![])
            }
            (Operator::Round { .. }, Action::Round { shift, range }) => {
                (self.round(at, &inputs[0], *shift, *range), vec![])
            }
            (Operator::Norm { kind, .. }, action @ Action::Norm { .. }) => {
                self.norm(at, &read(0), columns, *kind, action)
            }
            (Operator::Linear { .. }, Action::Linear { part, .. }) => {
                let exact = linear(program, step, &inputs[0]);
                let result = match part {
                    Some(shift) => self.round(at, &exact, *shift, rules::PART),
                    None => exact,
                };
                (result, vec![])
            }
            (Operator::Select { from, count, .. }, _) => {
                let x = read(0);
                let rows_of_x = x.chunks(columns).flat_map(|row| &row[*from..*from + *count]);
                (Matrix::new(rows, *count, rows_of_x.copied().collect()), vec![])
            }
            (Operator::Rotary { rotations, .. }, Action::Rotary { waves }) => {
                let x = read(0);
                let mut out = vec![T::default(); x.len()];
                let each = out.par_chunks_mut(columns).zip(x.par_chunks(columns));
                each.zip(&self.rows).for_each(|((out, x), (_, position))| {
                    let at_position = |wave: &Option<Wave>| {
                        wave.as_ref().and_then(|wave| wave.get(*position).copied())
                    };
                    let waves: Vec<_> = waves.iter().map(at_position).collect();
                    operators::rotary(x, rotations, &waves, out);
                });
                (Matrix::new(rows, columns, out), vec![])
            }
            (Operator::Attention { groups, .. }, action @ Action::Attention { .. }) => {
                self.attention::<T>(at, inputs, groups, action)
            }
            (Operator::Activation { .. }, Action::Activation { table }) => {
                let index = |x: T| (x.into() + rules::TABLE as i128 / 2) as usize;
                let entry = |x: &T| T::from(table.get(index(*x)).copied().unwrap_or(0));
                let entries = read(0).par_iter().map(entry).collect();
                (Matrix::new(rows, columns, entries), vec![])
            }
            (Operator::Product { .. }, _) => {
                let (x, y) = (read(0), read(1));
                let product = x.par_iter().zip(y.par_iter()).map(|(x, y)| *x * *y).collect();
                (Matrix::new(rows, columns, product), vec![])
            }
            // `Program::new` makes no other pairs.
            _ => (Matrix::new::<T>(0, 0, vec![]), vec![]),
        }
    }

    fn round(&mut self, at: usize, x: &Matrix, shift: i32, range: u32) -> Matrix {
        let rounded = match &x.integers {
            // What is shifted up may need more bits before its range is checked.
            Integers::Small(values) if shift >= 0 => {
                self.rounded(at, x.columns, range, values, |x| operators::rounded(*x, shift))
            }
            Integers::Wide(values) => {
                let rounded = |x: &I256| operators::rounded_wide(*x, shift);
                self.rounded(at, x.columns, range, values, rounded)
            }
            _ => {
                let values = x.values();
                self.rounded(at, x.columns, range, &values, |x| operators::rounded(*x, shift))
            }
        };
        Matrix { rows: x.rows, columns: x.columns, integers: rounded }
    }

    /// Rounds every number, and checks the range of every row.
    fn rounded<X: Sync, T: Cell>(
        &mut self,
        at: usize,
        columns: usize,
        range: u32,
        x: &[X],
        rounded: impl Fn(&X) -> T + Sync,
    ) -> Integers {
        let end = (1i128 << (range - 1)) as f64;
        let mut out = vec![T::default(); x.len()];
        let rows: Vec<(T, Result<(), Beyond>)> = out
            .par_chunks_mut(columns)
            .zip(x.par_chunks(columns))
            .map(|(out, x)| {
                out.iter_mut().zip(x).for_each(|(out, x)| *out = rounded(x));
                let (place, most) = operators::outermost(out);
                let outcome = operators::in_range(place, most.into(), range);
                if outcome.is_err() {
                    out.fill(T::default());
                }
                (most, outcome)
            })
            .collect();
        for (row, (most, outcome)) in rows.into_iter().enumerate() {
            self.note(at, row, most.into().unsigned_abs() as f64 / end, outcome);
        }
        T::integers(out)
    }

    fn norm<T: Cell>(
        &mut self,
        at: usize,
        x: &[T],
        columns: usize,
        kind: NormKind,
        action: &Action,
    ) -> (Matrix, Vec<i64>) {
        let Action::Norm { epsilon, root, shift, first } = *action else {
            return (Matrix::new::<T>(0, 0, vec![]), vec![]);
        };
        let mut out = vec![0i64; x.len()];
        let roots: Vec<(i64, f64, Result<(), Beyond>)> = out
            .par_chunks_mut(columns)
            .zip(x.par_chunks(columns))
            .zip(&self.rows)
            .map(|((out, x), (_, position))| {
                let first = if *position == 0 { first } else { 0 };
                let y = operators::norm_input(x, kind);
                let found = operators::norm_root(&y, epsilon, root + first);
                let factor = i128::from(found.unwrap_or(0));
                let shift = (shift + first) as i32;
                // By construction, results keep to their range wherever there is a root.
                match y.iter().map(|y| i64::try_from(*y).ok()).collect::<Option<Vec<i64>>>() {
                    // Products of 64-bit numbers are quicker.
                    Some(y) => out.iter_mut().zip(&y).for_each(|(out, y)| {
                        *out = operators::rounded(i128::from(*y) * factor, shift) as i64;
                    }),
                    None => out.iter_mut().zip(&y).for_each(|(out, y)| {
                        *out = operators::rounded(y * factor, shift) as i64;
                    }),
                }
                let (place, most) = operators::outermost(out);
                let used = rules::LEAST_ROOT as f64 / found.unwrap_or(0) as f64;
                let outcome = match found {
                    Some(found) if found >= rules::LEAST_ROOT => {
                        operators::in_range(place, most.into(), rules::NARROW)
                    }
                    _ => Err(Beyond { place: 0, times: used }),
                };
                // What follows counts on the range.
                if outcome.is_err() {
                    out.fill(0);
                }
                (found.unwrap_or(0) as i64, used, outcome)
            })
            .collect();
        for (row, (_, used, outcome)) in roots.iter().enumerate() {
            // By construction a norm's results keep to their range; only roots have headroom.
            self.note(at, row, *used, *outcome);
        }
        let rows = roots.len();
        let roots = roots.into_iter().map(|(root, ..)| root).collect();
        (Matrix::new(rows, columns, out), roots)
    }

    fn attention<T: Cell>(
        &mut self,
        at: usize,
        inputs: &[Arc<Matrix>],
        groups: &[usize],
        action: &Action,
    ) -> (Matrix, Vec<i64>) {
        let Action::Attention { shift, table, limit } = action else {
            return (Matrix::new::<T>(0, 0, vec![]), vec![]);
        };
        let [q_width, k_width, v_width] = [0, 1, 2].map(|input: usize| inputs[input].columns);
        let [q, k, v] = [0, 1, 2].map(|input: usize| T::read(&inputs[input].integers));
        let head = q_width / groups.len().max(1);
        let value = v_width / key_heads(groups);
        let (rows, columns) = (self.rows.len(), groups.len() * value);
        let units = self.starts.windows(2).map(|pair| (pair[0], pair[1] - pair[0]));
        let jobs: Vec<(usize, usize, usize)> = units
            .flat_map(|(start, length)| (0..groups.len()).map(move |h| (start, length, h)))
            .collect();
        let results: Vec<Vec<(Vec<f64>, i64, Beyond)>> = jobs
            .par_iter()
            .map(|(start, length, h)| {
                let part = |x: &[T], columns: usize, first: usize, width: usize| {
                    let rows = x[start * columns..].chunks(columns).take(*length);
                    let cells = rows.flat_map(|row| &row[first..first + width]);
                    let floats = cells.map(|cell| cell.float()).collect();
                    Array2::from_shape_vec((*length, width), floats).unwrap_or_default()
                };
                let group = groups[*h];
                let queries = part(&q, q_width, h * head, head);
                let keys = part(&k, k_width, group * head, head);
                let values = part(&v, v_width, group * value, value);
                attention_head(&queries, &keys, &values, *shift, table, *limit)
            })
            .collect();
        let mut out = vec![T::default(); rows * columns];
        let mut advice = vec![0i64; rows * groups.len()];
        for ((start, _, h), result) in jobs.iter().zip(&results) {
            for (token, (context, normaliser, beyond)) in result.iter().enumerate() {
                let row = start + token;
                let first = row * columns + h * value;
                let cells = &mut out[first..first + value];
                let each = cells.iter_mut().zip(context);
                each.for_each(|(out, x)| *out = T::of(i128::from(*x as i64)));
                advice[row * groups.len() + h] = *normaliser;
                let outcome = if beyond.times >= 1.0 { Err(*beyond) } else { Ok(()) };
                self.note(at, row, beyond.times, outcome);
            }
        }
        (Matrix::new(rows, columns, out), advice)
    }
}

/// Attention of one head over one unit: for each query the context, the normaliser, and how much of
/// the table it used. All numbers stay below 2^53, so `f64` is exact.
fn attention_head(
    queries: &Array2<f64>,
    keys: &Array2<f64>,
    values: &Array2<f64>,
    shift: i32,
    table: &[u64],
    limit: u64,
) -> Vec<(Vec<f64>, i64, Beyond)> {
    let length = queries.nrows();
    let mut scores = Array2::zeros((length, length));
    general_mat_mul(1.0, queries, &keys.t(), 0.0, &mut scores);
    let mut weights = Array2::<f64>::zeros((length, length));
    let mut found = Vec::with_capacity(length);
    for (query, (scores, mut weights)) in
        scores.outer_iter().zip(weights.outer_iter_mut()).enumerate()
    {
        let scores: Vec<i64> = scores
            .iter()
            .take(query + 1)
            .map(|score| operators::ceiling(*score as i128, shift) as i64)
            .collect();
        let normaliser = operators::normaliser(&scores, table, limit);
        let mut most = (0, 0i64);
        for (key, (score, weight)) in scores.iter().zip(weights.iter_mut()).enumerate() {
            let index = normaliser - score;
            if index > most.1 {
                most = (key, index);
            }
            let entry = usize::try_from(index).ok().and_then(|index| table.get(index));
            *weight = entry.copied().unwrap_or(0) as f64;
        }
        let times = most.1 as f64 / rules::TABLE as f64;
        found.push((normaliser, Beyond { place: most.0, times }));
    }
    let mut context = Array2::zeros((length, values.ncols()));
    general_mat_mul(1.0, &weights, values, 0.0, &mut context);
    context
        .outer_iter()
        .zip(found)
        .map(|(row, (normaliser, beyond))| (row.to_vec(), normaliser, beyond))
        .collect()
}

fn read_rows<T: Cell>(program: &Program, table: usize, bits: i32, of: &[usize]) -> Matrix {
    let table = &program.graph.weights[table];
    let scale = power_of_two(bits);
    let rows: Vec<Vec<T>> = of
        .par_iter()
        .map(|row| {
            let row = table.row(*row);
            row.iter().map(|x| T::of(nearest(f64::from(*x) * scale) as i128)).collect()
        })
        .collect();
    Matrix::new(of.len(), table.inputs(), rows.concat())
}

fn sum<T: Cell>(inputs: &[Arc<Matrix>], shifts: &[u32]) -> Matrix {
    let (rows, columns) = (inputs[0].rows, inputs[0].columns);
    let mut sum = vec![T::default(); rows * columns];
    for (x, shift) in inputs.iter().zip(shifts) {
        let x = T::read(&x.integers);
        sum.par_iter_mut().zip(x.par_iter()).for_each(|(sum, x)| *sum = *sum + (*x << *shift));
    }
    Matrix::new(rows, columns, sum)
}

fn wide_sum(inputs: &[Arc<Matrix>], shifts: &[u32]) -> Matrix {
    let (rows, columns) = (inputs[0].rows, inputs[0].columns);
    let mut sum = vec![I256::ZERO; rows * columns];
    for (x, shift) in inputs.iter().zip(shifts) {
        match &x.integers {
            Integers::Wide(values) => {
                sum.iter_mut().zip(values).for_each(|(sum, x)| *sum += *x << shift);
            }
            _ => {
                let values = x.values();
                let each = sum.iter_mut().zip(values.iter());
                each.for_each(|(sum, x)| *sum += I256::from(*x) << shift);
            }
        }
    }
    Matrix { rows, columns, integers: Integers::Wide(sum) }
}

/// The result of a linear operator before it is rounded, if it is: what a proof of the rounding
/// starts from.
pub fn accumulator(step: &Step, program: &Program, x: &Matrix) -> Matrix {
    linear(program, step, x)
}

/// The rows `of` of the table of an operator that reads one, as integers at `bits` fractional bits.
pub fn table_rows(program: &Program, table: usize, bits: i32, of: &[usize]) -> Matrix {
    read_rows::<i128>(program, table, bits, of)
}

/// A linear layer with the adapter's part.
fn linear(program: &Program, step: &Step, x: &Matrix) -> Matrix {
    let Action::Linear { small, .. } = step.action else {
        return Matrix::new::<i64>(0, 0, vec![]);
    };
    match &x.integers {
        Integers::Small(values) if small => linear_in::<i64, i64>(program, step, values),
        Integers::Small(values) => linear_in::<i64, i128>(program, step, values),
        _ => linear_in::<i128, i128>(program, step, &x.values()),
    }
}

/// The same, whose own sums the type `S` holds.
fn linear_in<X: Cell, S: Cell>(program: &Program, step: &Step, x: &[X]) -> Matrix {
    let (Operator::Linear { affine, weight, .. }, action) = (&step.operator, &step.action) else {
        return Matrix::new::<S>(0, 0, vec![]);
    };
    let Action::Linear { weight_bits, largest_sum, bias, lift, low_rank, .. } = action else {
        return Matrix::new::<S>(0, 0, vec![]);
    };
    let weight = &program.graph.weights[*weight];
    let scaled = Scaled { weight, gain: affine.gain.as_deref(), bits: *weight_bits };
    let mut out: Vec<S> = scaled.integers(x, *largest_sum);
    let (inputs, columns) = (weight.inputs(), weight.outputs());
    let rows = x.len() / inputs;
    if let Some(bias) = bias {
        out.par_chunks_mut(columns).for_each(|row| {
            row.iter_mut().zip(bias).for_each(|(out, bias)| *out = *out + S::of(*bias));
        });
    }
    let Some(low_rank) = low_rank else { return Matrix::new(rows, columns, out) };
    let each = out.par_chunks(columns).zip(x.par_chunks(inputs));
    if low_rank.narrow {
        let mut sums = vec![0i128; out.len()];
        sums.par_chunks_mut(columns).zip(each).for_each(|(sums, (out, x))| {
            let parts = low_rank_row(program, low_rank, x).narrow();
            for ((sum, out), part) in sums.iter_mut().zip(out).zip(parts) {
                *sum = ((*out).into() << lift) + (part << low_rank.lift);
            }
        });
        return Matrix::new(rows, columns, sums);
    }
    let wide: Vec<Vec<I256>> = each
        .map(|(out, x)| {
            let parts = low_rank_row(program, low_rank, x);
            let each = out.iter().zip(parts.wide());
            each.map(|(out, part)| (I256::from((*out).into()) << lift) + (part << low_rank.lift))
                .collect()
        })
        .collect();
    Matrix { rows, columns, integers: Integers::Wide(wide.concat()) }
}

/// The adapter's part of one row, before it is shifted up.
struct LowRankRow<'a> {
    inner: Vec<i128>,
    pairs: &'a [(Vec<i32>, Vec<i32>)],
    /// The integer that stands for 1, and the bias.
    bias: Option<(i128, &'a [i32])>,
    factor: i64,
    outputs: usize,
}

fn low_rank_row<'a, X: Cell>(
    program: &'a Program,
    low_rank: &'a LowRank,
    x: &[X],
) -> LowRankRow<'a> {
    let module = &program.adapter.modules[low_rank.module];
    let narrow = low_rank.inner_bound < U256::ONE << 62;
    let inner = match &low_rank.gain {
        None => operators::inner(x, &module.pairs, narrow),
        Some(gain) => {
            let shift = |at: usize| low_rank.shift.as_ref().map_or(0, |shift| shift[at]);
            let scaled = x.iter().zip(gain).enumerate();
            let scaled: Vec<i128> =
                scaled.map(|(at, (x, gain))| (*x).into() * gain + shift(at)).collect();
            operators::inner(&scaled, &module.pairs, narrow)
        }
    };
    let bias = module.bias.as_ref();
    LowRankRow {
        inner,
        pairs: &module.pairs,
        bias: bias.map(|(shift, bias)| (low_rank.one << shift, bias.as_slice())),
        factor: low_rank.factor,
        outputs: module.outputs,
    }
}

impl Drop for LowRankRow<'_> {
    fn drop(&mut self) {
        self.inner.zeroize();
    }
}

impl LowRankRow<'_> {
    /// For results that the program's bounds keep within 128 bits.
    fn narrow(&self) -> Vec<i128> {
        let mut out = vec![0i128; self.outputs];
        let factor = i128::from(self.factor);
        for (inner, (_, b)) in self.inner.iter().zip(self.pairs) {
            let inner = inner * factor;
            match i64::try_from(inner) {
                // Products of 64-bit numbers are quicker.
                Ok(inner) => out.iter_mut().zip(b).for_each(|(out, b)| {
                    *out += i128::from(inner) * i128::from(*b);
                }),
                Err(_) => {
                    out.iter_mut().zip(b).for_each(|(out, b)| *out += inner * i128::from(*b));
                }
            }
        }
        if let Some((one, bias)) = self.bias {
            let one = one * factor;
            out.iter_mut().zip(bias).for_each(|(out, b)| *out += one * i128::from(*b));
        }
        out
    }

    fn wide(&self) -> Vec<I256> {
        let mut out = vec![I256::ZERO; self.outputs];
        for (inner, (_, b)) in self.inner.iter().zip(self.pairs) {
            let inner = I256::from(*inner);
            out.iter_mut().zip(b).for_each(|(out, b)| *out += inner * I256::from(*b));
        }
        if let Some((one, bias)) = self.bias {
            let one = I256::from(one);
            out.iter_mut().zip(bias).for_each(|(out, b)| *out += one * I256::from(*b));
        }
        out.iter_mut().for_each(|out| *out *= I256::from(self.factor));
        out
    }
}
