//! What a graph of operators computes, in `f64` and without any care for speed: to compare with
//! what the ONNX file computes.

use zklora_integer::graph::{Affine, Function, Graph, NormKind, Operator, key_heads};

/// One row for each token.
type Rows = Vec<Vec<f64>>;

/// The logits of a sequence.
pub fn logits(graph: &Graph, ids: &[u32]) -> Rows {
    let mut values: Vec<Rows> = Vec::new();
    for operator in &graph.operators {
        let value = result(graph, &values, operator, ids);
        values.push(value);
    }
    values.swap_remove(graph.logits)
}

fn result(graph: &Graph, values: &[Rows], operator: &Operator, ids: &[u32]) -> Rows {
    let row = |table: usize, at: usize| -> Vec<f64> {
        graph.weights[table].row(at).into_iter().map(f64::from).collect()
    };
    match operator {
        Operator::Embedding { table } => ids.iter().map(|id| row(*table, *id as usize)).collect(),
        Operator::Positions { table } => (0..ids.len()).map(|at| row(*table, at)).collect(),
        Operator::Sum { terms } => {
            let rows = 0..ids.len();
            rows.map(|at| {
                let mut sum = values[terms[0]][at].clone();
                for term in &terms[1..] {
                    assert_eq!(sum.len(), values[*term][at].len());
                    sum.iter_mut().zip(&values[*term][at]).for_each(|(sum, term)| *sum += term);
                }
                sum
            })
            .collect()
        }
        Operator::Round { x, .. } => values[*x].clone(),
        Operator::Norm { x, kind, epsilon } => {
            values[*x].iter().map(|row| norm(row, *kind, *epsilon)).collect()
        }
        Operator::Linear { x, affine, weight, bias, .. } => {
            let weight = &graph.weights[*weight];
            let matrix: Vec<Vec<f32>> = (0..weight.outputs()).map(|at| weight.row(at)).collect();
            let one = |row: &Vec<f64>| -> Vec<f64> {
                let input = shifted(row, affine);
                assert_eq!(input.len(), weight.inputs());
                let outputs = matrix.iter().enumerate().map(|(at, weights)| {
                    let bias = bias.as_ref().map_or(0.0, |bias| f64::from(bias[at]));
                    let products = weights.iter().zip(&input).map(|(w, x)| f64::from(*w) * x);
                    products.sum::<f64>() + bias
                });
                outputs.collect()
            };
            values[*x].iter().map(one).collect()
        }
        Operator::Select { x, from, count } => {
            values[*x].iter().map(|row| row[*from..from + count].to_vec()).collect()
        }
        Operator::Rotary { x, rotations } => {
            let turned = |(at, row): (usize, &Vec<f64>)| {
                let heads = row.chunks(rotations.len());
                heads
                    .flat_map(|head| {
                        rotations.iter().enumerate().map(move |(d, rotation)| {
                            let angle = at as f64 * f64::from(rotation.frequency);
                            let sign = if rotation.negative { -1.0 } else { 1.0 };
                            angle.cos() * head[d] + sign * angle.sin() * head[rotation.partner]
                        })
                    })
                    .collect()
            };
            values[*x].iter().enumerate().map(turned).collect()
        }
        Operator::Attention { q, k, v, groups, scale } => {
            attention([&values[*q], &values[*k], &values[*v]], groups, *scale)
        }
        Operator::Activation { x, function } => values[*x]
            .iter()
            .map(|row| row.iter().map(|x| activation(*function, *x)).collect())
            .collect(),
        Operator::Product { x, y } => values[*x]
            .iter()
            .zip(&values[*y])
            .map(|(x, y)| {
                assert_eq!(x.len(), y.len());
                x.iter().zip(y).map(|(x, y)| x * y).collect()
            })
            .collect(),
    }
}

fn shifted(row: &[f64], affine: &Affine) -> Vec<f64> {
    let at = |values: &Option<Vec<f32>>, at: usize, plain: f64| {
        values.as_ref().map_or(plain, |values| f64::from(values[at]))
    };
    let shifted = row
        .iter()
        .enumerate()
        .map(|(d, x)| x * at(&affine.gain, d, 1.0) + at(&affine.shift, d, 0.0));
    shifted.collect()
}

fn norm(row: &[f64], kind: NormKind, epsilon: f64) -> Vec<f64> {
    let count = row.len() as f64;
    let mean = match kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => row.iter().sum::<f64>() / count,
    };
    let squares = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
    row.iter().map(|x| (x - mean) / (squares / count + epsilon).sqrt()).collect()
}

fn attention([q, k, v]: [&Rows; 3], groups: &[usize], scale: f64) -> Rows {
    let size = q[0].len() / groups.len();
    let value_size = v[0].len() / key_heads(groups);
    assert_eq!(k[0].len(), size * key_heads(groups));
    let one = |at: usize| {
        let mut row = Vec::new();
        for (head, group) in groups.iter().enumerate() {
            let query = &q[at][head * size..][..size];
            let scores: Vec<f64> = k[..=at]
                .iter()
                .map(|key| {
                    let key = &key[group * size..][..size];
                    query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() * scale
                })
                .collect();
            let largest = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            row.extend((0..value_size).map(|d| {
                let values = v.iter().map(|value| value[group * value_size + d]);
                weights.iter().zip(values).map(|(w, value)| w * value).sum::<f64>() / total
            }));
        }
        row
    };
    (0..q.len()).map(one).collect()
}

fn activation(function: Function, x: f64) -> f64 {
    match function {
        Function::Silu => x / (1.0 + (-x).exp()),
        Function::Gelu => x / 2.0 * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Function::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            x / 2.0 * (1.0 + inner.tanh())
        }
        Function::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Function::Relu => x.max(0.0),
    }
}

/// The error function as an integral, by the trapezoidal rule.
fn erf(x: f64) -> f64 {
    let x = x.clamp(-6.0, 6.0);
    let steps = 4000;
    let width = x / f64::from(steps);
    let inner: f64 = (1..steps).map(|at| (-(f64::from(at) * width).powi(2)).exp()).sum();
    let ends = (1.0 + (-x * x).exp()) / 2.0;
    2.0 / std::f64::consts::PI.sqrt() * width * (inner + ends)
}
