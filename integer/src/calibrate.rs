//! Runs a graph on texts to see how large its values get. The same bits on every machine.
//!
//! The figures decide scales, and scales are part of the integer model's digest, so two machines
//! must see the same figures. Matrix products are therefore computed on integers ([`Scaled`]):
//! rows and matrices are rounded to as many bits as keep sums exact. All else uses only
//! operations that IEEE 754 defines to the last bit, in a fixed order; exponentials are made of
//! those.

use ndarray::Array2;
use rayon::prelude::*;

use crate::{
    graph::{Function, Graph, NormKind, Operator, key_heads},
    products::Scaled,
    weight::{nearest, power_of_two},
};

/// Rows of logits that are computed at once.
const LOGIT_ROWS: usize = 64;

/// What the calibration saw of a value.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Seen {
    /// Largest absolute value.
    pub largest: f64,
    /// Median absolute value, the first token of every text left out.
    pub median: f64,
    /// For what norms read: the median over tokens of `√mean x²`.
    pub spread: f64,
    /// The same over the first tokens of the texts: the least of them.
    pub first_spread: f64,
    /// For attention: the largest difference between scores of a query, in nats. For logits: the
    /// same.
    pub nats: f64,
}

/// Runs the graph on units of tokens.
pub fn calibrate(graph: &Graph, units: &[Vec<u32>]) -> Vec<Seen> {
    run(graph, units, &mut |_| {})
}

/// The logits of one unit, row by row, to about six digits.
pub fn logits(graph: &Graph, unit: &[u32]) -> Vec<f64> {
    let mut all = Vec::new();
    run(graph, &[unit.to_vec()], &mut |rows| all.extend(rows.iter()));
    all
}

/// Runs the graph; `each` gets blocks of logits.
fn run(graph: &Graph, units: &[Vec<u32>], each: &mut dyn FnMut(&Array2<f64>)) -> Vec<Seen> {
    let rows: Vec<(u32, usize)> = units
        .iter()
        .flat_map(|unit| unit.iter().enumerate().map(|(position, id)| (*id, position)))
        .collect();
    let lengths: Vec<usize> = units.iter().map(Vec::len).collect();
    let last_uses = graph.last_uses();
    let mut values: Vec<Option<Array2<f64>>> = vec![None; graph.operators.len()];
    let mut seen = vec![Seen::default(); graph.operators.len()];
    // What norms read, whatever made it.
    let mut of_norms = vec![false; graph.operators.len()];
    for operator in &graph.operators {
        if let Operator::Norm { x, .. } = operator {
            of_norms[*x] = true;
        }
    }
    for (at, operator) in graph.operators.iter().enumerate() {
        let missing = Array2::zeros((0, 0));
        let of = |x: usize| values[x].as_ref().unwrap_or(&missing);
        let mut nats = 0.0;
        let value = match operator {
            Operator::Embedding { table } => {
                rows_of(graph, *table, rows.iter().map(|row| row.0 as usize))
            }
            Operator::Positions { table } => rows_of(graph, *table, rows.iter().map(|row| row.1)),
            Operator::Sum { terms } => {
                let mut sum = of(terms[0]).clone();
                terms[1..].iter().for_each(|term| sum += of(*term));
                sum
            }
            Operator::Round { x, .. } => of(*x).clone(),
            Operator::Norm { x, kind, epsilon } => norm(of(*x), *kind, *epsilon),
            Operator::Linear { x, .. } if at == graph.logits => {
                // Logits are wide, and only their range is needed: a few rows at a time.
                for first in (0..of(*x).nrows()).step_by(LOGIT_ROWS) {
                    let last = (first + LOGIT_ROWS).min(of(*x).nrows());
                    let part = of(*x).slice(ndarray::s![first..last, ..]).to_owned();
                    let logits = layer(graph, operator, part);
                    let rows = logits.outer_iter().map(|row| range(row.iter().copied()));
                    nats = rows.fold(nats, f64::max);
                    each(&logits);
                }
                Array2::zeros((0, 0))
            }
            Operator::Linear { x, .. } => layer(graph, operator, of(*x).clone()),
            Operator::Select { x, from, count } => {
                of(*x).slice(ndarray::s![.., *from..*from + *count]).to_owned()
            }
            Operator::Rotary { x, rotations } => {
                let mut out = of(*x).clone();
                let size = rotations.len();
                for ((mut out, x), (_, position)) in
                    out.rows_mut().into_iter().zip(of(*x).rows()).zip(&rows)
                {
                    for (feature, out) in out.iter_mut().enumerate() {
                        let rotation = rotations[feature % size];
                        let first = feature - feature % size;
                        if rotation.partner == feature % size {
                            continue;
                        }
                        let (sine, cosine) =
                            sin_cos(f64::from(rotation.frequency) * *position as f64);
                        let sine = if rotation.negative { -sine } else { sine };
                        *out = x[feature] * cosine + x[first + rotation.partner] * sine;
                    }
                }
                out
            }
            Operator::Attention { q, k, v, groups, scale } => {
                let (out, spread) = attention(of(*q), of(*k), of(*v), groups, *scale, &lengths);
                nats = spread;
                out
            }
            Operator::Activation { x, function } => {
                let mut out = of(*x).clone();
                let function = *function;
                let rows: Vec<_> = out.rows_mut().into_iter().collect();
                rows.into_par_iter().for_each(|mut row| {
                    row.iter_mut().for_each(|x| *x = activation(function, *x));
                });
                out
            }
            Operator::Product { x, y } => of(*x) * of(*y),
        };
        let with_median = matches!(
            operator,
            Operator::Embedding { .. }
                | Operator::Positions { .. }
                | Operator::Sum { .. }
                | Operator::Round { .. }
        ) || of_norms[at];
        seen[at] = figures(&value, &rows, with_median);
        seen[at].nats = nats;
        values[at] = Some(value);
        for x in operator.inputs() {
            if last_uses[x] == at {
                values[x] = None;
            }
        }
    }
    seen
}

fn rows_of(graph: &Graph, table: usize, which: impl Iterator<Item = usize>) -> Array2<f64> {
    let table = &graph.weights[table];
    let rows: Vec<f64> = which.flat_map(|row| table.row(row)).map(f64::from).collect();
    let count = rows.len() / table.inputs().max(1);
    Array2::from_shape_vec((count, table.inputs()), rows).unwrap_or_default()
}

/// A linear layer with its gain, shift and bias.
fn layer(graph: &Graph, operator: &Operator, mut x: Array2<f64>) -> Array2<f64> {
    let Operator::Linear { affine, weight, bias, .. } = operator else { return x };
    let (gain, shift) = (affine.gain.as_deref(), affine.shift.as_deref());
    if gain.is_some() || shift.is_some() {
        for mut row in x.rows_mut() {
            for (at, x) in row.iter_mut().enumerate() {
                *x *= gain.map_or(1.0, |gain| f64::from(gain[at]));
                *x += shift.map_or(0.0, |shift| f64::from(shift[at]));
            }
        }
    }
    let mut out = linear(x, &graph.weights[*weight]);
    if let Some(bias) = bias {
        for mut row in out.rows_mut() {
            row.iter_mut().zip(bias).for_each(|(out, bias)| *out += f64::from(*bias));
        }
    }
    out
}

/// `W·x` with rows and matrix rounded to as many bits as keep every sum below 2^53.
fn linear(mut scaled: Array2<f64>, weight: &crate::weight::Weight) -> Array2<f64> {
    // A logarithm of floats has other last bits on other systems.
    let of_inputs = weight.inputs().next_power_of_two().trailing_zeros() as i32;
    let bits = ((52 - of_inputs) / 2).clamp(8, 22);
    let largest = weight.largest();
    let of_matrix = bits - 1 - exponent(largest);
    let mut scales = Vec::with_capacity(scaled.nrows());
    for mut row in scaled.rows_mut() {
        let largest = row.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        let of_row = bits - 1 - exponent(largest);
        let scale = power_of_two(of_row);
        row.iter_mut().for_each(|x| *x = nearest(*x * scale));
        scales.push(power_of_two(-of_row - of_matrix));
    }
    let mut out = Scaled { weight, gain: None, bits: of_matrix }.floats(&scaled);
    for (mut row, scale) in out.rows_mut().into_iter().zip(scales) {
        row.iter_mut().for_each(|out| *out *= scale);
    }
    out
}

/// The least integer `e` with `x < 2^e`; 0 for 0.
pub fn exponent(x: f64) -> i32 {
    if x <= 0.0 || !x.is_finite() {
        return 0;
    }
    let bits = ((x.to_bits() >> 52) & 0x7ff) as i32;
    bits - 1022
}

fn norm(x: &Array2<f64>, kind: NormKind, epsilon: f64) -> Array2<f64> {
    let mut out = x.clone();
    for mut row in out.rows_mut() {
        let count = row.len() as f64;
        if kind == NormKind::Layer {
            let mean = row.iter().sum::<f64>() / count;
            row.iter_mut().for_each(|x| *x -= mean);
        }
        let mean_square = row.iter().map(|x| x * x).sum::<f64>() / count;
        let root = (mean_square + epsilon).sqrt();
        row.iter_mut().for_each(|x| *x /= root);
    }
    out
}

fn attention(
    q: &Array2<f64>,
    k: &Array2<f64>,
    v: &Array2<f64>,
    groups: &[usize],
    scale: f64,
    lengths: &[usize],
) -> (Array2<f64>, f64) {
    let head = q.ncols() / groups.len().max(1);
    let value = v.ncols() / key_heads(groups);
    let mut units = Vec::new();
    let mut first = 0;
    for length in lengths {
        units.extend((0..*length).map(|token| (first, token)));
        first += length;
    }
    let rows: Vec<(Vec<f64>, f64)> = units
        .into_par_iter()
        .map(|(first, token)| {
            let mut out = vec![0.0; groups.len() * value];
            let mut largest: f64 = 0.0;
            for (h, group) in groups.iter().enumerate() {
                let query = q.slice(ndarray::s![first + token, h * head..(h + 1) * head]);
                let scores: Vec<f64> = (0..=token)
                    .map(|key| {
                        let key =
                            k.slice(ndarray::s![first + key, group * head..(group + 1) * head]);
                        query.iter().zip(&key).map(|(q, k)| q * k).sum::<f64>() * scale
                    })
                    .collect();
                largest = largest.max(range(scores.iter().copied()));
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| exp(score - most)).collect();
                let total: f64 = weights.iter().sum();
                for (key, weight) in weights.iter().enumerate() {
                    let row = v.slice(ndarray::s![first + key, group * value..(group + 1) * value]);
                    for (at, v) in row.iter().enumerate() {
                        out[h * value + at] += weight / total * v;
                    }
                }
            }
            (out, largest)
        })
        .collect();
    let spread = rows.iter().map(|row| row.1).fold(0.0, f64::max);
    let shape = (rows.len(), groups.len() * value);
    let cells = rows.into_iter().flat_map(|row| row.0).collect();
    (Array2::from_shape_vec(shape, cells).unwrap_or_default(), spread)
}

/// Largest minus least.
fn range(numbers: impl Iterator<Item = f64>) -> f64 {
    let (least, most) = numbers
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), x| (least.min(x), most.max(x)));
    most - least
}

/// The figures of a value; medians only where they are used, because they take a sorting.
fn figures(value: &Array2<f64>, rows: &[(u32, usize)], with_median: bool) -> Seen {
    let each: Vec<_> = value.outer_iter().collect();
    let of_rows: Vec<(f64, f64)> = each
        .into_par_iter()
        .map(|row| {
            let largest = row.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
            let square = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
            (largest, square.sqrt())
        })
        .collect();
    let largest = of_rows.iter().fold(0.0, |largest: f64, row| largest.max(row.0));
    if !with_median {
        return Seen { largest, ..Seen::default() };
    }
    let of_position = |first: bool| {
        let pairs = of_rows.iter().zip(rows);
        pairs.filter(move |(_, (_, position))| (*position == 0) == first).map(|(row, _)| row.1)
    };
    let each = value.rows().into_iter().zip(rows).filter(|(_, (_, position))| *position > 0);
    let all = each.flat_map(|(row, _)| row.to_vec()).map(f64::abs).collect();
    Seen {
        largest,
        median: median(all),
        spread: median(of_position(false).collect()),
        first_spread: of_position(true).fold(f64::INFINITY, f64::min),
        nats: 0.0,
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    let middle = numbers.len() / 2;
    if numbers.is_empty() {
        return 0.0;
    }
    *numbers.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// An activation, to about twelve digits. Gelu's range is that of its tanh form.
pub fn activation(function: Function, x: f64) -> f64 {
    match function {
        Function::Silu => x / (1.0 + exp(-x)),
        Function::QuickGelu => x / (1.0 + exp(-1.702 * x)),
        Function::Gelu | Function::GeluTanh => {
            let inner = 0.797_884_560_802_865_4 * (x + 0.044_715 * x * x * x);
            x / (1.0 + exp(-2.0 * inner))
        }
        Function::Relu => x.max(0.0),
    }
}

/// `eˣ` from additions, multiplications and powers of two.
fn exp(x: f64) -> f64 {
    const LN_2: f64 = std::f64::consts::LN_2;
    if x < -700.0 {
        return 0.0;
    }
    let x = x.min(700.0);
    let k = nearest(x / LN_2);
    let r = x - k * LN_2;
    let (mut term, mut sum) = (1.0, 1.0);
    for n in 1..18 {
        term *= r / f64::from(n);
        sum += term;
    }
    sum * power_of_two(k as i32)
}

/// `(sin x, cos x)` from additions and multiplications.
fn sin_cos(x: f64) -> (f64, f64) {
    let x = x - nearest(x / std::f64::consts::TAU) * std::f64::consts::TAU;
    let (mut term, mut sine, mut cosine) = (1.0, 0.0, 1.0);
    for n in 1..24u32 {
        term *= x / f64::from(n);
        match n % 4 {
            0 => cosine += term,
            1 => sine += term,
            2 => cosine -= term,
            _ => sine -= term,
        }
    }
    (sine, cosine)
}
