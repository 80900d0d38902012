//! What the tests of the integer model share: models of the fixtures, graphs of our own, random
//! adapters, and the same functions on big integers.
#![allow(dead_code)]

pub mod reference;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ethnum::U256;
use num_bigint::BigInt;
use tract_onnx::prelude::Tensor;
use zklora_integer::{
    adapter::{Adapter, Module},
    evaluate::{Integers, Matrix},
    graph::{Affine, Graph, Operator, Rotation},
    lower,
    model::{Calibration, IntegerModel},
    products::Scaled,
    program::Program,
    scales::Scale,
    weight::Weight,
};

pub const MODELS: [&str; 4] = ["tiny-llama", "tiny-gpt2", "tiny-qwen2", "tiny-mistral"];

pub fn base(model: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/base").join(model).join(file)
}

pub fn fixture_graph(model: &str, file: &str) -> Graph {
    lower::lower(&base(model, file), &[]).unwrap().graph
}

pub fn fixture(model: &str) -> IntegerModel {
    IntegerModel::of_graph(&fixture_graph(model, "dynamo.onnx"), Calibration::Tokens).unwrap()
}

/// Random numbers of a seed: what a test needs is that they are the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// From `0` to `end − 1`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }

    pub fn between(&mut self, from: i32, to: i32) -> i32 {
        from + self.below((to - from + 1) as usize) as i32
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// A float of up to `bits` bits, with fractional bits.
    pub fn float(&mut self, bits: i32) -> f32 {
        let mantissa = self.between(-(1 << 12), 1 << 12) as f32;
        mantissa * ((self.between(-14, bits) - 12) as f32).exp2()
    }

    pub fn floats(&mut self, count: usize, bits: i32) -> Vec<f32> {
        (0..count).map(|_| self.float(bits)).collect()
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub fn units(&mut self, vocabulary: usize, lengths: &[usize]) -> Vec<Vec<u32>> {
        let mut unit = |length: &usize| -> Vec<u32> {
            (0..*length).map(|_| self.below(vocabulary) as u32).collect()
        };
        lengths.iter().map(&mut unit).collect()
    }
}

pub fn weight(outputs: usize, inputs: usize, values: &[f32]) -> Weight {
    let tensor = Tensor::from_shape(&[outputs, inputs], values).unwrap();
    Weight::new(Arc::new(tensor), false).unwrap()
}

/// The same matrix, as a file has it that stores `[inputs, outputs]`.
pub fn transposed(outputs: usize, inputs: usize, values: &[f32]) -> Weight {
    let turned: Vec<f32> = (0..inputs)
        .flat_map(|input| (0..outputs).map(move |output| values[output * inputs + input]))
        .collect();
    let tensor = Tensor::from_shape(&[inputs, outputs], &turned).unwrap();
    Weight::new(Arc::new(tensor), true).unwrap()
}

pub fn linear(x: usize, weight: usize, layer: Option<usize>) -> Operator {
    Operator::Linear { x, affine: Affine::default(), weight, bias: None, layer }
}

/// A table and the logits' matrix: the least that is a model.
pub fn least() -> Graph {
    Graph {
        operators: vec![Operator::Embedding { table: 0 }, linear(0, 0, None)],
        logits: 1,
        weights: vec![weight(2, 1, &[1.0, -0.5])],
        vocabulary: 2,
        positions: Some(4),
        layers: vec![],
    }
}

/// A model with scales of our own: a graph with its roundings as it is.
pub fn model(graph: Graph, scales: Vec<Scale>, score_bits: i32, tokens: usize) -> IntegerModel {
    let mut model = IntegerModel::of_graph(&least(), Calibration::Tokens).unwrap();
    model.scaled.graph = Arc::new(graph);
    rescale(&mut model, scales);
    (model.scaled.score_bits, model.scaled.tokens) = (score_bits, tokens);
    model
}

/// Gives a model other scales.
pub fn rescale(model: &mut IntegerModel, scales: Vec<Scale>) {
    let graph = &model.graph;
    let each = graph.operators.iter().zip(&scales);
    model.scaled.largest_sums = each
        .map(|(operator, scale)| match (operator, scale) {
            (Operator::Linear { affine, weight, .. }, Scale::Linear { weight_bits, .. }) => {
                let weight = &graph.weights[*weight];
                let gain = affine.gain.as_deref();
                Scaled { weight, gain, bits: *weight_bits }.largest_sum()
            }
            _ => 0,
        })
        .collect();
    model.scaled.scales = scales;
}

/// What an adapter is made of at random.
#[derive(Clone, Copy)]
pub struct Shape {
    pub rank: usize,
    pub a_bits: u32,
    pub b_bits: u32,
    pub scaling: f64,
    pub scale_log2: i32,
    pub bias: Option<u32>,
    /// Whether all integers are at their largest absolute value.
    pub extreme: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            rank: 4,
            a_bits: 8,
            b_bits: 8,
            scaling: 0.5,
            scale_log2: -18,
            bias: None,
            extreme: false,
        }
    }
}

fn integers(random: &mut Random, count: usize, bits: u32, extreme: bool) -> Vec<i32> {
    let end = 1i64 << (bits - 1);
    let mut integer = || {
        if extreme {
            return if random.one_in(2) { end - 1 } else { 1 - end };
        }
        (random.word() % (2 * end - 1) as u64) as i64 - (end - 1)
    };
    (0..count).map(|_| integer() as i32).collect()
}

pub fn module(random: &mut Random, layer: usize, size: (usize, usize), shape: Shape) -> Module {
    let Shape { rank, a_bits, b_bits, scaling, scale_log2, bias, extreme } = shape;
    let (inputs, outputs) = size;
    let pairs = (0..rank)
        .map(|_| {
            let a = integers(random, inputs, a_bits, extreme);
            (a, integers(random, outputs, b_bits, extreme))
        })
        .collect();
    let bias = bias.map(|power| (power, integers(random, outputs, b_bits, extreme)));
    let name = format!("layer {layer}");
    Module { name, layer, inputs, outputs, a_bits, b_bits, scaling, scale_log2, pairs, bias }
}

/// For every linear layer that an adapter can have: its index, and its features.
pub fn layers(graph: &Graph) -> Vec<(usize, (usize, usize))> {
    let mut found = Vec::new();
    for operator in &graph.operators {
        if let Operator::Linear { weight, layer: Some(layer), .. } = operator {
            let weight = &graph.weights[*weight];
            found.push((*layer, (weight.inputs(), weight.outputs())));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// An adapter on every layer.
pub fn adapter(random: &mut Random, graph: &Graph, shape: Shape) -> Adapter {
    let modules = layers(graph);
    let modules = modules.into_iter().map(|(layer, size)| module(random, layer, size, shape));
    Adapter { modules: modules.collect() }
}

pub fn big(x: impl Into<BigInt>) -> BigInt {
    x.into()
}

pub fn big_u256(x: U256) -> BigInt {
    (BigInt::from(*x.high()) << 128) + BigInt::from(*x.low())
}

/// One row of a matrix.
pub fn big_row(matrix: &Matrix, row: usize) -> Vec<BigInt> {
    let range = row * matrix.columns..(row + 1) * matrix.columns;
    match &matrix.integers {
        Integers::Small(values) => values[range].iter().map(|x| BigInt::from(*x)).collect(),
        Integers::Narrow(values) => values[range].iter().map(|x| BigInt::from(*x)).collect(),
        Integers::Wide(values) => values[range]
            .iter()
            .map(|x| (BigInt::from(*x.high()) << 128) + BigInt::from(*x.low() as u128))
            .collect(),
    }
}

/// How a random graph and its scales are.
#[derive(Clone, Copy)]
pub struct Wildness {
    /// Most operators besides.
    pub operators: usize,
    /// Fractional bits lie within this.
    pub bits: (i32, i32),
    /// Weights have up to so many bits before the point.
    pub weights: i32,
}

struct Built {
    graph: Graph,
    scales: Vec<Scale>,
    widths: Vec<usize>,
}

impl Built {
    fn push(&mut self, operator: Operator, scale: Scale, width: usize) -> usize {
        self.graph.operators.push(operator);
        self.scales.push(scale);
        self.widths.push(width);
        self.widths.len() - 1
    }
}

/// A random graph with roundings where they must be, and random scales.
pub fn random_model(random: &mut Random, wild: Wildness) -> IntegerModel {
    use zklora_integer::graph::{Function, NormKind, Purpose};
    let vocabulary = 2 + random.below(12);
    let tokens = 1 + random.below(8);
    let width = *random.pick(&[1usize, 2, 4, 6, 8]);
    let graph = Graph {
        operators: vec![],
        logits: 0,
        weights: vec![],
        vocabulary,
        positions: Some(tokens),
        layers: vec![],
    };
    let mut built = Built { graph, scales: vec![], widths: vec![] };
    let bits = |random: &mut Random| random.between(wild.bits.0, wild.bits.1);
    let matrix = |random: &mut Random, built: &mut Built, outputs: usize, inputs: usize| {
        let mut values = random.floats(outputs * inputs, wild.weights);
        if random.one_in(12) {
            values.fill(0.0);
        }
        let make = if random.one_in(2) { weight } else { transposed };
        built.graph.weights.push(make(outputs, inputs, &values));
        built.graph.weights.len() - 1
    };
    let table = matrix(random, &mut built, vocabulary, width);
    built.push(Operator::Embedding { table }, Scale::Bits { bits: bits(random) }, width);
    if random.one_in(2) {
        let table = matrix(random, &mut built, tokens, width);
        built.push(Operator::Positions { table }, Scale::Bits { bits: bits(random) }, width);
    }
    let round = |random: &mut Random, x: usize, purpose: Purpose| {
        (Operator::Round { x, purpose }, Scale::Bits { bits: bits(random) })
    };
    let count = 1 + random.below(wild.operators);
    for _ in 0..count {
        // Mostly of the last values, so that chains get long.
        let recent = built.widths.len().saturating_sub(3);
        let x = if random.one_in(4) {
            random.below(built.widths.len())
        } else {
            recent + random.below(built.widths.len() - recent)
        };
        let width = built.widths[x];
        let same: Vec<usize> =
            (0..built.widths.len()).filter(|y| built.widths[*y] == width).collect();
        match random.below(10) {
            0 => {
                let count = 1 + random.below(2);
                let mut terms = vec![x];
                terms.extend((0..count).map(|_| *random.pick(&same)));
                built.push(Operator::Sum { terms }, Scale::None {}, width);
            }
            1 => {
                let purpose =
                    *random.pick(&[Purpose::Residual, Purpose::Attention, Purpose::Index]);
                let (operator, scale) = round(random, x, purpose);
                built.push(operator, scale, width);
            }
            2 => {
                let kind = *random.pick(&[NormKind::Rms, NormKind::Layer]);
                let epsilon = *random.pick(&[1e-5, 1e-6, 0.0, 1.0, 1e-12]);
                let scale = Scale::Norm {
                    bits: bits(random),
                    root_bits: bits(random),
                    first_bits: random.below(25) as u32,
                };
                built.push(Operator::Norm { x, kind, epsilon }, scale, width);
            }
            3..=5 => {
                let outputs = *random.pick(&[1usize, 2, 4, 6, 8]);
                let weight = matrix(random, &mut built, outputs, width);
                let some = |random: &mut Random, count: usize| {
                    random.one_in(2).then(|| random.floats(count, wild.weights.min(4)))
                };
                let affine = Affine { gain: some(random, width), shift: some(random, width) };
                let bias = some(random, outputs);
                let layer = Some(built.graph.layers.len());
                built.graph.layers.push(format!("layer {}", built.graph.layers.len()));
                let scale = Scale::Linear {
                    gain_bits: bits(random),
                    part_bits: (random.below(2) == 0).then(|| bits(random)),
                    weight_bits: bits(random),
                };
                built.push(Operator::Linear { x, affine, weight, bias, layer }, scale, outputs);
            }
            6 => {
                let from = random.below(width);
                let count = 1 + random.below(width - from);
                built.push(Operator::Select { x, from, count }, Scale::None {}, count);
            }
            7 => {
                let head = if width.is_multiple_of(2) { 2 } else { 1 };
                let frequency = random.float(3).abs();
                let rotations = if head == 1 {
                    vec![Rotation::none(0)]
                } else {
                    let half = |partner, negative| Rotation { partner, frequency, negative };
                    vec![half(1, true), half(0, false)]
                };
                built.push(Operator::Rotary { x, rotations }, Scale::None {}, width);
            }
            8 => {
                let mut parts = [x, *random.pick(&same), *random.pick(&same)];
                for part in &mut parts {
                    let (operator, scale) = round(random, *part, Purpose::Attention);
                    *part = built.push(operator, scale, width);
                }
                let groups = match width % 2 {
                    0 => random.pick(&[vec![0, 1], vec![0]]).clone(),
                    _ => vec![0],
                };
                let scale = random.float(1).abs().into();
                let [q, k, v] = parts;
                let of = |x: usize| match built.scales[x] {
                    Scale::Bits { bits } => bits,
                    _ => 0,
                };
                // Near what the rules choose, or anything.
                let score_shift = match random.one_in(4) {
                    true => bits(random),
                    false => of(q) + of(k) - random.between(4, 14),
                };
                let operator = Operator::Attention { q, k, v, groups, scale };
                built.push(operator, Scale::Attention { score_shift }, width);
            }
            _ => {
                let (operator, scale) = round(random, x, Purpose::Index);
                let x = built.push(operator, scale, width);
                let function = *random.pick(&[
                    Function::Silu,
                    Function::Gelu,
                    Function::GeluTanh,
                    Function::QuickGelu,
                    Function::Relu,
                ]);
                let scale = Scale::Activation { entry_bits: bits(random).clamp(-40, 40) };
                let x = built.push(Operator::Activation { x, function }, scale, width);
                if random.one_in(2) {
                    let y = *random.pick(&same);
                    built.push(Operator::Product { x, y }, Scale::None {}, width);
                }
            }
        }
    }
    let last = built.widths.len() - 1;
    let features = built.widths[last];
    let head = matrix(random, &mut built, vocabulary, features);
    let layer = Some(built.graph.layers.len());
    built.graph.layers.push("head".into());
    let scale =
        Scale::Linear { gain_bits: bits(random), part_bits: None, weight_bits: bits(random) };
    built.graph.logits = built.push(linear(last, head, layer), scale, vocabulary);
    model(built.graph, built.scales, random.between(0, 10), tokens)
}

pub fn program(model: &IntegerModel) -> Program {
    model.program(Adapter::default()).unwrap()
}
