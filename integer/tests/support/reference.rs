//! The functions of docs/integer-model.md on big integers, written from their formulas and without
//! anything of the crate but its tables and its list of operators.

use num_bigint::BigInt;
use zklora_integer::{
    adapter::{Adapter, Module},
    fixed,
    graph::{Affine, NormKind, Operator, Purpose},
    model::IntegerModel,
    scales::Scale,
    weight::Weight,
};

pub fn two(power: u32) -> BigInt {
    BigInt::from(1) << power
}

/// `⌊x/2^shift + 1/2⌋`, or `x·2^−shift`.
pub fn rounded(x: &BigInt, shift: i32) -> BigInt {
    if shift <= 0 {
        return x << shift.unsigned_abs();
    }
    (x + two(shift.unsigned_abs() - 1)) >> shift
}

/// `⌈x/2^shift⌉`
pub fn ceiling(x: &BigInt, shift: i32) -> BigInt {
    if shift <= 0 {
        return x << shift.unsigned_abs();
    }
    let whole: BigInt = x >> shift;
    if (&whole << shift) == *x { whole } else { whole + 1 }
}

/// `(m, e)` with `x = m·2^e`.
pub fn decoded(x: f64) -> (BigInt, i32) {
    let bits = x.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32;
    let mantissa = (bits & ((1 << 52) - 1)) | if exponent > 0 { 1 << 52 } else { 0 };
    let mantissa = BigInt::from(mantissa);
    (if x.is_sign_negative() { -mantissa } else { mantissa }, exponent.max(1) - 1075)
}

/// The nearest integer to `m·2^e`, ties to even.
pub fn nearest(m: &BigInt, e: i32) -> BigInt {
    if e >= 0 {
        return m << e;
    }
    let down = e.unsigned_abs();
    let whole: BigInt = m >> down;
    let rest = m - (&whole << down);
    let half = two(down - 1);
    let odd = (&whole & BigInt::from(1)) == BigInt::from(1);
    if rest > half || (rest == half && odd) { whole + 1 } else { whole }
}

/// The integers of `Σ bits` of a matrix, row by row.
pub fn matrix(weight: &Weight, gain: Option<&[f32]>, bits: i32) -> Vec<Vec<BigInt>> {
    let row = |output: usize| {
        let row = weight.row(output).into_iter().enumerate();
        row.map(|(input, w)| {
            let (m, e) = decoded(w.into());
            let (gain, f) = decoded(gain.map_or(1.0, |gain| gain[input]).into());
            nearest(&(m * gain), e + f + bits)
        })
        .collect()
    };
    (0..weight.outputs()).map(row).collect()
}

fn dot(a: &[BigInt], b: &[BigInt]) -> BigInt {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The largest odd `R` with `R²·(S + ε) ≤ width·4^root`.
pub fn norm_root(y: &[BigInt], epsilon: &BigInt, root: u32) -> Option<BigInt> {
    let squares: BigInt = dot(y, y) + epsilon;
    let limit = BigInt::from(y.len()) << (2 * root);
    let fits = |r: &BigInt| r * r * &squares <= limit;
    let mut r: BigInt = (&limit / &squares).sqrt() + 3;
    while !fits(&r) || (&r & BigInt::from(1)) != BigInt::from(1) {
        r -= 1;
        if r <= BigInt::ZERO {
            return None;
        }
    }
    assert!(!fits(&(&r + 2)));
    (r < two(32)).then_some(r)
}

/// The least integer, no less than any score, with `Σ T[c − score] ≤ limit`. By bisection.
pub fn normaliser(scores: &[BigInt], table: &[u64], limit: u64) -> BigInt {
    let largest = scores.iter().max().unwrap().clone();
    let fits = |d: usize| {
        let c = &largest + d;
        let sum: u128 = scores
            .iter()
            .map(|score| usize::try_from(&c - score).ok())
            .map(|d| d.and_then(|d| table.get(d)).map_or(0, |entry| u128::from(*entry)))
            .sum();
        sum <= u128::from(limit)
    };
    let (mut from, mut to) = (0, table.len());
    while from < to {
        let middle = (from + to) / 2;
        if fits(middle) { to = middle } else { from = middle + 1 }
    }
    largest + to
}

/// A value of one unit: fractional bits, and rows.
#[derive(Clone, Debug)]
pub struct Value {
    pub bits: i32,
    pub rows: Vec<Vec<BigInt>>,
}

/// `(factor, exponent)` of an adapter's scaling.
pub fn odd_factor(scaling: f64) -> (BigInt, i32) {
    let (mut m, mut e) = decoded(scaling.abs());
    let extra = m.bits() as i32 - 16;
    if extra > 0 {
        m = rounded(&m, extra);
        e += extra;
    }
    let zeros = m.trailing_zeros().unwrap() as i32;
    m >>= zeros;
    (if scaling < 0.0 { -m } else { m }, e + zeros)
}

fn two_to(power: i32) -> f64 {
    f64::from(power).exp2()
}

/// The nearest integer to a float times `2^bits`.
fn of_float(x: f64, bits: i32) -> BigInt {
    let (m, e) = decoded(x);
    nearest(&m, e + bits)
}

#[allow(clippy::too_many_arguments)]
fn linear(
    x: &Value,
    affine: &Affine,
    weight: &Weight,
    bias: Option<&[f32]>,
    gain_bits: i32,
    weight_bits: i32,
    module: Option<&Module>,
) -> Value {
    let own_bits = x.bits + weight_bits;
    let matrix = matrix(weight, affine.gain.as_deref(), weight_bits);
    let constants: Vec<BigInt> = (0..weight.outputs())
        .map(|output| {
            let mut sum = bias.map_or(0.0, |bias| f64::from(bias[output]));
            for (w, shift) in weight.row(output).iter().zip(affine.shift.iter().flatten()) {
                sum += f64::from(*w) * f64::from(*shift);
            }
            of_float(sum * two_to(own_bits), 0)
        })
        .collect();
    let own = |row: &Vec<BigInt>| -> Vec<BigInt> {
        matrix.iter().zip(&constants).map(|(w, constant)| dot(w, row) + constant).collect()
    };
    let own = Value { bits: own_bits, rows: x.rows.iter().map(own).collect() };
    let Some(module) = module else { return own };
    let plain = affine.gain.is_none() && affine.shift.is_none();
    let in_bits = if plain { x.bits } else { x.bits + gain_bits };
    let read = |row: &Vec<BigInt>| -> Vec<BigInt> {
        if plain {
            return row.clone();
        }
        let each = row.iter().enumerate();
        each.map(|(at, x)| {
            let gain = affine.gain.as_ref().map_or(1.0, |gain| gain[at]);
            let shift = affine.shift.as_ref().map_or(0.0, |shift| shift[at]);
            x * of_float(gain.into(), gain_bits) + of_float(shift.into(), in_bits)
        })
        .collect()
    };
    let (factor, exponent) = odd_factor(module.scaling);
    let low_bits = in_bits - module.scale_log2 - exponent;
    let bits = own_bits.max(low_bits);
    let rows = x.rows.iter().zip(&own.rows).map(|(row, own)| {
        let row = read(row);
        let inner: Vec<BigInt> =
            module.pairs.iter().map(|(a, _)| row.iter().zip(a).map(|(x, a)| x * a).sum()).collect();
        let outputs = own.iter().enumerate();
        outputs
            .map(|(output, own)| {
                let mut low: BigInt =
                    inner.iter().zip(&module.pairs).map(|(inner, (_, b))| inner * b[output]).sum();
                if let Some((power, bias)) = &module.bias {
                    let one = two(u32::try_from(in_bits).unwrap());
                    low += (one << power) * bias[output];
                }
                (own << (bits - own_bits)) + ((low * &factor) << (bits - low_bits))
            })
            .collect()
    });
    Value { bits, rows: rows.collect() }
}

/// All values of a unit up to the one that leaves a range; the index of that operator, if any.
pub fn evaluate(
    model: &IntegerModel,
    adapter: &Adapter,
    unit: &[u32],
) -> (Vec<Value>, Option<usize>) {
    let graph = &model.graph;
    let mut values: Vec<Value> = Vec::new();
    for (at, operator) in graph.operators.iter().enumerate() {
        let mut failed = false;
        let value = match (operator, model.scales[at]) {
            (Operator::Embedding { table }, Scale::Bits { bits }) => {
                let table = &graph.weights[*table];
                let row = |id: &u32| {
                    table.row(*id as usize).iter().map(|x| of_float((*x).into(), bits)).collect()
                };
                Value { bits, rows: unit.iter().map(row).collect() }
            }
            (Operator::Positions { table }, Scale::Bits { bits }) => {
                let table = &graph.weights[*table];
                let row = |at| table.row(at).iter().map(|x| of_float((*x).into(), bits)).collect();
                Value { bits, rows: (0..unit.len()).map(row).collect() }
            }
            (Operator::Sum { terms }, _) => {
                let bits = terms.iter().map(|x| values[*x].bits).max().unwrap();
                let mut rows = vec![vec![BigInt::ZERO; values[terms[0]].rows[0].len()]; unit.len()];
                for term in terms {
                    let of = &values[*term];
                    for (row, of_row) in rows.iter_mut().zip(&of.rows) {
                        for (sum, x) in row.iter_mut().zip(of_row) {
                            *sum += x << (bits - of.bits);
                        }
                    }
                }
                Value { bits, rows }
            }
            (Operator::Round { x, purpose }, Scale::Bits { bits }) => {
                let of = &values[*x];
                let range = if *purpose == Purpose::Residual { 31 } else { 15 };
                let mut rows = of.rows.clone();
                for x in rows.iter_mut().flatten() {
                    *x = rounded(x, of.bits - bits);
                    failed |= *x < -two(range) || *x >= two(range);
                }
                Value { bits, rows }
            }
            (Operator::Norm { x, kind, epsilon }, Scale::Norm { bits, root_bits, first_bits }) => {
                let of = &values[*x];
                let width = of.rows[0].len();
                let factor = match kind {
                    NormKind::Rms => BigInt::from(width),
                    NormKind::Layer => BigInt::from(width).pow(3),
                };
                let (m, e) = decoded(*epsilon);
                let epsilon = rounded(&(m * factor), -(e + 2 * of.bits)).max(BigInt::from(1));
                let mut rows = Vec::new();
                for (position, row) in of.rows.iter().enumerate() {
                    let first = if position == 0 { first_bits } else { 0 };
                    let sum: BigInt = row.iter().sum();
                    let y: Vec<BigInt> = match kind {
                        NormKind::Rms => row.clone(),
                        NormKind::Layer => row.iter().map(|x| x * width - &sum).collect(),
                    };
                    let root = u32::try_from(of.bits + root_bits).unwrap() + first;
                    let found = norm_root(&y, &epsilon, root);
                    failed |= found.as_ref().is_none_or(|found| *found < two(8));
                    let r = found.unwrap_or_default();
                    let shift = of.bits + root_bits + first as i32 - bits;
                    let row: Vec<BigInt> = y.iter().map(|y| rounded(&(y * &r), shift)).collect();
                    failed |= row.iter().any(|x| *x < -two(15) || *x >= two(15));
                    rows.push(row);
                }
                Value { bits, rows }
            }
            (
                Operator::Linear { x, affine, weight, bias, layer },
                Scale::Linear { gain_bits, part_bits, weight_bits },
            ) => {
                let module = adapter.modules.iter().find(|module| Some(module.layer) == *layer);
                let weight = &graph.weights[*weight];
                let bias = bias.as_deref();
                let mut found =
                    linear(&values[*x], affine, weight, bias, gain_bits, weight_bits, module);
                if let (Some(_), Some(part_bits)) = (module, part_bits) {
                    let shift = (found.bits - part_bits).max(0);
                    for x in found.rows.iter_mut().flatten() {
                        *x = rounded(x, shift);
                        failed |= *x < -two(63) || *x >= two(63);
                    }
                    found.bits -= shift;
                }
                found
            }
            (Operator::Select { x, from, count }, _) => {
                let of = &values[*x];
                let rows = of.rows.iter().map(|row| row[*from..*from + *count].to_vec());
                Value { bits: of.bits, rows: rows.collect() }
            }
            (Operator::Rotary { x, rotations }, _) => {
                let of = &values[*x];
                let size = rotations.len();
                let waves: Vec<Vec<(i32, i32)>> = rotations
                    .iter()
                    .map(|rotation| fixed::rotations(rotation.frequency, unit.len(), 14))
                    .collect();
                let each = of.rows.iter().enumerate();
                let rows = each.map(|(position, row)| {
                    (0..row.len())
                        .map(|at| {
                            let (head, feature) = (at - at % size, at % size);
                            let rotation = &rotations[feature];
                            if rotation.partner == feature {
                                return &row[at] << 14;
                            }
                            let (cosine, sine) = waves[feature][position];
                            let other = &row[head + rotation.partner] * sine;
                            let other = if rotation.negative { -other } else { other };
                            &row[at] * cosine + other
                        })
                        .collect()
                });
                Value { bits: of.bits + 14, rows: rows.collect() }
            }
            (Operator::Attention { q, k, v, groups, scale }, Scale::Attention { score_shift }) => {
                let [q, k, v] = [q, k, v].map(|x| &values[*x]);
                let unit_of = scale * two_to(score_shift - q.bits - k.bits);
                let limit = two_to(18) + (unit_of * two_to(17) + 0.5).floor();
                let table = fixed::exponentials(unit_of, 18, 1 << 16);
                let head = q.rows[0].len() / groups.len();
                let key_heads = groups.iter().max().unwrap() + 1;
                let size = v.rows[0].len() / key_heads;
                let mut rows = vec![vec![BigInt::ZERO; size * groups.len()]; unit.len()];
                for (query, row) in rows.iter_mut().enumerate() {
                    for (h, group) in groups.iter().enumerate() {
                        let part = &q.rows[query][h * head..][..head];
                        let scores: Vec<BigInt> = (0..=query)
                            .map(|key| dot(part, &k.rows[key][group * head..][..head]))
                            .map(|score| ceiling(&score, score_shift))
                            .collect();
                        let c = normaliser(&scores, &table, limit as u64);
                        for (key, score) in scores.iter().enumerate() {
                            let index = usize::try_from(&c - score).unwrap_or(usize::MAX);
                            failed |= index >= 1 << 16;
                            let weight = table.get(index).copied().unwrap_or(0);
                            for (at, out) in row[h * size..][..size].iter_mut().enumerate() {
                                *out += &v.rows[key][group * size + at] * weight;
                            }
                        }
                    }
                }
                Value { bits: v.bits + 18, rows }
            }
            (Operator::Activation { x, function }, Scale::Activation { entry_bits }) => {
                let of = &values[*x];
                let table = fixed::activation(*function, of.bits, entry_bits);
                let entry = |x: &BigInt| table[usize::try_from(x + 32_768).unwrap()].into();
                let rows = of.rows.iter().map(|row| row.iter().map(entry).collect());
                Value { bits: entry_bits, rows: rows.collect() }
            }
            (Operator::Product { x, y }, _) => {
                let (x, y) = (&values[*x], &values[*y]);
                let rows = x.rows.iter().zip(&y.rows);
                let rows = rows.map(|(x, y)| x.iter().zip(y).map(|(x, y)| x * y).collect());
                Value { bits: x.bits + y.bits, rows: rows.collect() }
            }
            (operator, scale) => panic!("{operator:?} has the scales {scale:?}"),
        };
        values.push(value);
        if failed {
            return (values, Some(at));
        }
    }
    (values, None)
}

/// The log-probability of a token, or none if the scores leave the table.
pub fn log_probability(row: &[BigInt], bits: i32, score_bits: i32, token: u32) -> Option<BigInt> {
    let scores: Vec<BigInt> = row.iter().map(|x| ceiling(x, bits - score_bits)).collect();
    let table = fixed::exponentials(two_to(-score_bits), 32, 1 << 16);
    let c = normaliser(&scores, &table, (1 << 32) + (1 << (31 - score_bits)));
    let least = scores.iter().min().unwrap();
    (&c - least < BigInt::from(1 << 16)).then(|| &scores[token as usize] - c)
}
