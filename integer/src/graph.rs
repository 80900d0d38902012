//! A language model as a list of operators: what is computed, without scales.
//!
//! The lowering makes a [`Graph`] of real numbers from an ONNX file. `rounding` then says where
//! integers are rounded, `rules` at which scales, and `program` how. Operators are in the order of
//! computation: each reads only values before it.

use crate::weight::Weight;

/// Most tokens of a unit: masks are compared up to this length.
pub const MAX_TOKENS: usize = 2048;

/// Index of an operator, whose result is the value with the same index.
pub type ValueId = usize;

/// A language model.
#[derive(Debug, Clone)]
pub struct Graph {
    /// The operators.
    pub operators: Vec<Operator>,
    /// The operator that gives the logits: a [`Operator::Linear`].
    pub logits: ValueId,
    /// Public weights.
    pub weights: Vec<Weight>,
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// Entries of the table of positions, if there is one.
    pub positions: Option<usize>,
    /// For each layer of the ONNX file, in its order: its name in messages.
    pub layers: Vec<String>,
}

/// One operator. All values are `[tokens, features]`.
#[derive(Debug, Clone, PartialEq)]
pub enum Operator {
    /// The rows of a table that the tokens name.
    Embedding {
        /// Index of the table, `[vocabulary, features]`.
        table: usize,
    },
    /// The first rows of a table, one for each position.
    Positions {
        /// Index of the table, `[positions, features]`.
        table: usize,
    },
    /// A sum of values.
    Sum {
        /// The summands, at least two.
        terms: Vec<ValueId>,
    },
    /// A value rounded to fewer fractional bits.
    Round {
        /// The value.
        x: ValueId,
        /// What it is rounded for, which decides its bits.
        purpose: Purpose,
    },
    /// `(x − μ)/√(σ² + ε)`, or `x/√(mean x² + ε)`, without gains.
    Norm {
        /// The value.
        x: ValueId,
        /// Which of the two.
        kind: NormKind,
        /// ε.
        epsilon: f64,
    },
    /// `W·(gain ∘ x + shift) + bias`, and the adapter's delta of that layer.
    Linear {
        /// The value.
        x: ValueId,
        /// The gain and shift of the norm that made `x`.
        affine: Affine,
        /// Index of the matrix.
        weight: usize,
        /// One number for each output, or none.
        bias: Option<Vec<f32>>,
        /// Index of the layer in the ONNX file, where adapters find it.
        layer: Option<usize>,
    },
    /// Consecutive features of a value.
    Select {
        /// The value.
        x: ValueId,
        /// The first feature.
        from: usize,
        /// How many.
        count: usize,
    },
    /// Rotary position embedding of every head.
    Rotary {
        /// The value: heads of `rotations.len()` features.
        x: ValueId,
        /// For each feature of a head, how it is rotated.
        rotations: Vec<Rotation>,
    },
    /// Causal attention.
    Attention {
        /// Queries, `[tokens, heads · head]`.
        q: ValueId,
        /// Keys, `[tokens, key heads · head]`.
        k: ValueId,
        /// Values, `[tokens, key heads · value]`.
        v: ValueId,
        /// The key head of each query head.
        groups: Vec<usize>,
        /// The factor of the scores.
        scale: f64,
    },
    /// A function of every feature.
    Activation {
        /// The value.
        x: ValueId,
        /// The function.
        function: Function,
    },
    /// The product of two values, feature by feature.
    Product {
        /// One factor: the result of an activation.
        x: ValueId,
        /// The other.
        y: ValueId,
    },
}

/// Gain and shift of a norm, applied where its result is read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Affine {
    /// One factor for each feature; none is 1.
    pub gain: Option<Vec<f32>>,
    /// One summand for each feature; none is 0.
    pub shift: Option<Vec<f32>>,
}

/// The kinds of norms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// RMSNorm.
    Rms,
    /// LayerNorm.
    Layer,
}

/// What a value is rounded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The residual stream: 32 bits.
    Residual,
    /// Queries, keys and values of attention: 16 bits.
    Attention,
    /// The index of a table: 16 bits.
    Index,
}

/// How one feature of a head is rotated by position `t`:
/// `out[d] = cos(t·frequency)·x[d] + sign·sin(t·frequency)·x[partner]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotation {
    /// The other feature of the pair; the feature itself if it is not rotated.
    pub partner: usize,
    /// Radians per position; 0 if it is not rotated.
    pub frequency: f32,
    /// Whether the sine is subtracted.
    pub negative: bool,
}

impl Rotation {
    /// A feature that stays as it is.
    pub fn none(feature: usize) -> Rotation {
        Rotation { partner: feature, frequency: 0.0, negative: false }
    }
}

/// The activation functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// `x/(1 + e⁻ˣ)`
    Silu,
    /// `x·Φ(x)`, with the error function.
    Gelu,
    /// `x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`
    GeluTanh,
    /// `x/(1 + e^(−1.702·x))`
    QuickGelu,
    /// `max(x, 0)`
    Relu,
}

impl Operator {
    /// The values that the operator reads, in order.
    pub fn inputs(&self) -> Vec<ValueId> {
        match self {
            Operator::Embedding { .. } | Operator::Positions { .. } => vec![],
            Operator::Sum { terms } => terms.clone(),
            Operator::Round { x, .. }
            | Operator::Norm { x, .. }
            | Operator::Linear { x, .. }
            | Operator::Select { x, .. }
            | Operator::Rotary { x, .. }
            | Operator::Activation { x, .. } => vec![*x],
            Operator::Attention { q, k, v, .. } => vec![*q, *k, *v],
            Operator::Product { x, y } => vec![*x, *y],
        }
    }

    /// The same operator, reading `new(x)` where it read `x`.
    pub fn renamed(&self, new: impl Fn(ValueId) -> ValueId) -> Operator {
        let mut operator = self.clone();
        match &mut operator {
            Operator::Embedding { .. } | Operator::Positions { .. } => {}
            Operator::Sum { terms } => terms.iter_mut().for_each(|x| *x = new(*x)),
            Operator::Round { x, .. }
            | Operator::Norm { x, .. }
            | Operator::Linear { x, .. }
            | Operator::Select { x, .. }
            | Operator::Rotary { x, .. }
            | Operator::Activation { x, .. } => *x = new(*x),
            Operator::Attention { q, k, v, .. } => {
                (*q, *k, *v) = (new(*q), new(*k), new(*v));
            }
            Operator::Product { x, y } => (*x, *y) = (new(*x), new(*y)),
        }
        operator
    }

    /// Features of the result; `widths` are those of the values before it.
    pub fn width(&self, widths: &[usize], weights: &[Weight]) -> usize {
        match self {
            Operator::Embedding { table } | Operator::Positions { table } => {
                weights[*table].inputs()
            }
            Operator::Sum { terms } => terms.first().map_or(0, |term| widths[*term]),
            Operator::Round { x, .. }
            | Operator::Norm { x, .. }
            | Operator::Rotary { x, .. }
            | Operator::Activation { x, .. }
            | Operator::Product { x, .. } => widths[*x],
            Operator::Linear { weight, .. } => weights[*weight].outputs(),
            Operator::Select { count, .. } => *count,
            Operator::Attention { v, groups, .. } => {
                groups.len() * (widths[*v] / key_heads(groups))
            }
        }
    }

    /// The operator's name in messages and files.
    pub fn name(&self) -> &'static str {
        match self {
            Operator::Embedding { .. } => "embedding",
            Operator::Positions { .. } => "positions",
            Operator::Sum { .. } => "sum",
            Operator::Round { .. } => "round",
            Operator::Norm { .. } => "norm",
            Operator::Linear { .. } => "linear",
            Operator::Select { .. } => "select",
            Operator::Rotary { .. } => "rotary",
            Operator::Attention { .. } => "attention",
            Operator::Activation { .. } => "activation",
            Operator::Product { .. } => "product",
        }
    }
}

/// Key heads of attention.
pub fn key_heads(groups: &[usize]) -> usize {
    groups.iter().max().map_or(1, |last| last + 1)
}

impl Graph {
    /// Features of every value.
    pub fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = Vec::with_capacity(self.operators.len());
        for operator in &self.operators {
            widths.push(operator.width(&widths, &self.weights));
        }
        widths
    }

    /// Most tokens of a unit.
    pub fn longest_unit(&self) -> usize {
        self.positions.map_or(MAX_TOKENS, |positions| positions.min(MAX_TOKENS))
    }

    /// The name of the layer that an operator is or follows, if it follows one.
    pub fn layer_of(&self, operator: ValueId) -> Option<&str> {
        let mut at = operator;
        loop {
            match &self.operators[at] {
                Operator::Linear { layer: Some(layer), .. } => {
                    return self.layers.get(*layer).map(String::as_str);
                }
                other => at = *other.inputs().first()?,
            }
        }
    }

    /// The index of the last operator that reads each value; the logits are read at the end.
    pub fn last_uses(&self) -> Vec<usize> {
        let mut last: Vec<usize> = (0..self.operators.len()).collect();
        for (at, operator) in self.operators.iter().enumerate() {
            operator.inputs().into_iter().for_each(|x| last[x] = at);
        }
        last[self.logits] = self.operators.len();
        last
    }

    /// Only the operators that the logits need, in the order in which a depth-first walk from the
    /// logits leaves them. So the order does not depend on the exporter's.
    pub fn canonical(self) -> Graph {
        let mut order: Vec<ValueId> = Vec::new();
        let mut place: Vec<Option<usize>> = vec![None; self.operators.len()];
        let mut stack = vec![(self.logits, false)];
        while let Some((value, seen)) = stack.pop() {
            if place[value].is_some() {
                continue;
            }
            if seen {
                place[value] = Some(order.len());
                order.push(value);
            } else {
                stack.push((value, true));
                stack.extend(self.operators[value].inputs().into_iter().rev().map(|x| (x, false)));
            }
        }
        let new = |value: ValueId| place[value].unwrap_or(0);
        let mut operators: Vec<Operator> =
            order.iter().map(|value| self.operators[*value].renamed(new)).collect();
        let weights = used_weights(&mut operators, &self.weights);
        Graph { operators, logits: new(self.logits), weights, ..self }
    }
}

/// The weights in the order of their first use.
fn used_weights(operators: &mut [Operator], all: &[Weight]) -> Vec<Weight> {
    let mut used: Vec<usize> = Vec::new();
    for operator in operators {
        let (Operator::Embedding { table: weight }
        | Operator::Positions { table: weight }
        | Operator::Linear { weight, .. }) = operator
        else {
            continue;
        };
        let at = used.iter().position(|known| known == weight).unwrap_or_else(|| {
            used.push(*weight);
            used.len() - 1
        });
        *weight = at;
    }
    used.iter().map(|weight| all[*weight].clone()).collect()
}
