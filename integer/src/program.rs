//! A graph with scales and an adapter: what is computed on integers, and why nothing overflows.
//!
//! For every value the program knows its fractional bits and a bound on its absolute value, which
//! holds for all tokens and all adapters of the same public shape. Bounds above what the types and
//! the field can hold are refused here, so that the evaluation needs no checks but those of ranges.

use std::sync::Arc;

use ethnum::U256;

use crate::{
    Error,
    adapter::{Adapter, Module},
    fixed,
    graph::{Affine, Graph, NormKind, Operator, Purpose, ValueId, key_heads},
    products::{EXACT, Scaled, is_computable},
    rules,
    scaled_graph::ScaledGraph,
    scales::Scale,
    tables::Wave,
    weight::{nearest, power_of_two},
};

/// Bounds of 128-bit values stay below `2^126`, so that sums of two and roundings do not overflow.
const I128_BITS: u32 = 126;
/// The same for 64-bit values.
const I64_BITS: u32 = 62;
/// Bounds of 256-bit values, which are those of the proof's field: no sum wraps modulo its prime,
/// which is above `2^254`.
const FIELD_BITS: u32 = 250;

/// Bits of a limb in a proof, and of the integers of an adapter that a proof is sure of.
const LIMB_BITS: u32 = 16;

/// A value: fractional bits, and a bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    /// Fractional bits.
    pub bits: i32,
    /// Largest absolute value.
    pub bound: U256,
}

impl Size {
    /// Whether an `i64` holds it.
    pub fn is_small(&self) -> bool {
        self.bound < U256::ONE << I64_BITS
    }

    /// Whether an `i128` holds it.
    pub fn is_narrow(&self) -> bool {
        self.bound < U256::ONE << I128_BITS
    }
}

/// One operator with numbers.
#[derive(Debug)]
pub struct Step {
    /// The operator.
    pub operator: Operator,
    /// Its result.
    pub size: Size,
    /// What it needs besides.
    pub action: Action,
}

/// The numbers of an operator.
#[derive(Debug)]
pub enum Action {
    /// A table whose rows are read.
    Table {
        /// Fractional bits.
        bits: i32,
    },
    /// A sum: how far each summand is shifted up.
    Sum {
        /// One for each summand.
        shifts: Vec<u32>,
    },
    /// A rounding.
    Round {
        /// How far it is shifted down, or up if it is negative.
        shift: i32,
        /// Bits of the result, with the sign.
        range: u32,
    },
    /// A norm.
    Norm {
        /// ε at the scale of the sum of squares, at least 1.
        epsilon: U256,
        /// `R²·(S + ε) ≤ width·4^root`
        root: u32,
        /// Fractional bits that are rounded away.
        shift: u32,
        /// Additional bits of both at position 0.
        first: u32,
    },
    /// A linear layer.
    Linear {
        /// Fractional bits of the matrix.
        weight_bits: i32,
        /// Largest `Σ|w|` of an output.
        largest_sum: u64,
        /// One number for each output, at the scale of the sum.
        bias: Option<Vec<i128>>,
        /// Whether 64 bits hold the sum with the bias.
        small: bool,
        /// How far the sum is shifted up.
        lift: u32,
        /// The adapter's part.
        low_rank: Option<LowRank>,
        /// How far the result is shifted down, if it is rounded to [`rules::PART`] bits.
        part: Option<i32>,
    },
    /// Cosines and sines: for each rotated feature of a head, those of every position.
    Rotary {
        /// One for each feature of a head; none if it is not rotated.
        waves: Vec<Option<Wave>>,
    },
    /// Attention.
    Attention {
        /// Scores are divided by `2^shift`.
        shift: i32,
        /// `T[d] = 2^18·e^(−unit·d)`
        table: Arc<Vec<u64>>,
        /// The weights of a query sum to at most this.
        limit: u64,
    },
    /// A table of a function, for −32,768 to 32,767.
    Activation {
        /// The table.
        table: Arc<Vec<i32>>,
    },
    /// No more numbers.
    Plain,
}

/// An adapter's part of a linear layer.
#[derive(Debug)]
pub struct LowRank {
    /// Index of the module in the adapter.
    pub module: usize,
    /// Gains of the inputs as integers; none is 1.
    pub gain: Option<Vec<i128>>,
    /// Summands of the inputs as integers.
    pub shift: Option<Vec<i128>>,
    /// `|x·A|` is at most this.
    pub inner_bound: U256,
    /// The public scaling's odd factor.
    pub factor: i64,
    /// How far the product is shifted up.
    pub lift: u32,
    /// The integer that stands for 1, for a bias.
    pub one: i128,
    /// Whether the exact result fits 128 bits.
    pub narrow: bool,
}

/// A graph with scales and an adapter, ready to run.
#[derive(Debug)]
pub struct Program {
    /// The graph, with roundings.
    pub graph: Arc<Graph>,
    /// Its operators.
    pub steps: Vec<Step>,
    /// The adapter.
    pub adapter: Adapter,
    /// Fractional bits of scores.
    pub score_bits: i32,
    /// Most tokens of a unit.
    pub tokens: usize,
    /// `2^32·e^(−d·2^−score_bits)`
    pub score_table: Arc<Vec<u64>>,
}

impl Program {
    /// The program of a model with an adapter.
    ///
    /// # Errors
    /// [`Error::Adapter`]: a module fits no layer. [`Error::Bound`]: a value could overflow.
    pub fn new(model: &ScaledGraph, adapter: Adapter) -> Result<Program, Error> {
        let graph = Arc::clone(&model.graph);
        let mut steps: Vec<Step> = Vec::with_capacity(graph.operators.len());
        let widths = graph.widths();
        let mut used = vec![false; adapter.modules.len()];
        for (at, operator) in graph.operators.iter().enumerate() {
            let builder = Builder { model, graph: &graph, steps: &steps, widths: &widths };
            let (size, action) = builder.build(at, operator, &adapter, &mut used)?;
            let too_large = |limit: u32| size.bound >= U256::ONE << limit;
            if too_large(FIELD_BITS) {
                return Err(Error::bound(at, operator, "the proof's field"));
            }
            // Only a linear layer and a sum can give what no `i128` holds, and only a sum and a
            // rounding can read it.
            let wide = matches!(operator, Operator::Linear { .. } | Operator::Sum { .. });
            if !size.is_narrow() && !wide {
                return Err(Error::bound(at, operator, "128 bits"));
            }
            for x in operator.inputs() {
                let wide = matches!(operator, Operator::Sum { .. } | Operator::Round { .. });
                if !steps[x].size.is_narrow() && !wide {
                    return Err(Error::bound(at, operator, "128 bits"));
                }
            }
            steps.push(Step { operator: operator.clone(), size, action });
        }
        if let Some(module) = used.iter().position(|used| !used) {
            let module = &adapter.modules[module];
            return Err(Error::Adapter {
                module: module.name.clone(),
                why: "it adapts no linear layer; adapters of embeddings have no integer model"
                    .into(),
            });
        }
        // Scores are logits with other fractional bits.
        let logits = steps[graph.logits].size;
        let up = model.score_bits.saturating_sub(logits.bits).max(0);
        if lifted(logits.bound, up.unsigned_abs()) >= U256::ONE << I128_BITS {
            return Err(Error::bound(graph.logits, &graph.operators[graph.logits], "128 bits"));
        }
        let unit = power_of_two(-model.score_bits);
        let score_table = model.tables.exponentials(unit, rules::SCORE_EXPONENTIAL_BITS);
        Ok(Program {
            steps,
            adapter,
            score_bits: model.score_bits,
            tokens: model.tokens,
            score_table,
            graph,
        })
    }

    /// All tables of the program, once each: a name and the entries.
    pub fn tables(&self) -> Vec<(String, Vec<i64>)> {
        let mut tables: Vec<(String, Vec<i64>)> = Vec::new();
        let mut seen: Vec<usize> = Vec::new();
        let mut add = |name: String, address: usize, entries: Vec<i64>| {
            if !seen.contains(&address) {
                seen.push(address);
                tables.push((name, entries));
            }
        };
        for (at, step) in self.steps.iter().enumerate() {
            match &step.action {
                Action::Attention { table, .. } => add(
                    format!("{at}.exponentials"),
                    Arc::as_ptr(table) as usize,
                    table.iter().map(|entry| *entry as i64).collect(),
                ),
                Action::Activation { table } => add(
                    format!("{at}.activation"),
                    Arc::as_ptr(table) as usize,
                    table.iter().map(|entry| i64::from(*entry)).collect(),
                ),
                Action::Rotary { waves } => {
                    for (feature, wave) in waves.iter().enumerate() {
                        if let Some(wave) = wave {
                            add(
                                format!("{at}.waves.{feature}"),
                                Arc::as_ptr(wave) as usize,
                                wave.iter()
                                    .flat_map(|(cosine, sine)| [*cosine, *sine])
                                    .map(i64::from)
                                    .collect(),
                            );
                        }
                    }
                }
                _ => {}
            }
        }
        let scores = self.score_table.iter().map(|entry| *entry as i64).collect();
        add("scores".into(), Arc::as_ptr(&self.score_table) as usize, scores);
        tables
    }
}

/// Works out one operator.
struct Builder<'a> {
    model: &'a ScaledGraph,
    graph: &'a Graph,
    steps: &'a [Step],
    widths: &'a [usize],
}

fn u256(value: u128) -> U256 {
    U256::from(value)
}

/// `value·2^shift`, or the largest number if that is too large.
fn lifted(value: U256, shift: u32) -> U256 {
    let value = value.max(U256::ONE);
    if shift > value.leading_zeros() { U256::MAX } else { value << shift }
}

impl Builder<'_> {
    fn size(&self, x: ValueId) -> Size {
        self.steps[x].size
    }

    fn build(
        &self,
        at: usize,
        operator: &Operator,
        adapter: &Adapter,
        used: &mut [bool],
    ) -> Result<(Size, Action), Error> {
        let wrong = || Error::Internal(format!("operator {at} has the scales of another kind"));
        let scale = self.model.scales[at];
        let tables = &self.model.tables;
        Ok(match (operator, scale) {
            (
                Operator::Embedding { table } | Operator::Positions { table },
                Scale::Bits { bits },
            ) => {
                let largest = self.graph.weights[*table].largest() * power_of_two(bits) + 1.0;
                let bound = u256(largest as u128);
                (Size { bits, bound }, Action::Table { bits })
            }
            (Operator::Sum { terms }, Scale::None {}) => {
                let sizes = terms.iter().map(|term| self.size(*term));
                let bits = sizes.clone().map(|size| size.bits).max().unwrap_or(0);
                let shifts: Vec<u32> = sizes.clone().map(|size| bits.abs_diff(size.bits)).collect();
                let bound = sizes.zip(&shifts).fold(U256::ZERO, |sum, (size, shift)| {
                    sum.saturating_add(lifted(size.bound, *shift))
                });
                (Size { bits, bound }, Action::Sum { shifts })
            }
            (Operator::Round { x, purpose }, Scale::Bits { bits }) => {
                let range = match purpose {
                    Purpose::Residual => rules::WIDE,
                    Purpose::Attention | Purpose::Index => rules::NARROW,
                };
                let of = self.size(*x);
                let shift = of.bits - bits;
                let up = shift.min(0).unsigned_abs();
                if up > 0 && lifted(of.bound, up) >= U256::ONE << I128_BITS {
                    return Err(Error::bound(at, operator, "128 bits"));
                }
                // A proof may shift up first, to whole limbs.
                if of.bound >= U256::ONE << (FIELD_BITS - LIMB_BITS) {
                    return Err(Error::bound(at, operator, "the proof's field"));
                }
                let bound = u256(1 << (range - 1));
                (Size { bits, bound }, Action::Round { shift, range })
            }
            (Operator::Norm { x, kind, epsilon }, Scale::Norm { .. }) => {
                self.norm(at, *x, *kind, *epsilon, scale)?
            }
            (
                Operator::Linear { x, affine, weight, bias, layer },
                Scale::Linear { gain_bits, part_bits, weight_bits },
            ) => {
                let modules = adapter.modules.iter().enumerate();
                let module = modules.clone().find(|(_, module)| Some(module.layer) == *layer);
                if let Some((index, _)) = module {
                    used[index] = true;
                }
                let linear = Linear {
                    at,
                    x: *x,
                    affine,
                    weight: *weight,
                    bias,
                    gain_bits,
                    part_bits,
                    weight_bits,
                };
                self.linear(&linear, module)?
            }
            (Operator::Select { x, .. }, Scale::None {}) => (self.size(*x), Action::Plain),
            (Operator::Rotary { x, rotations }, Scale::None {}) => {
                let of = self.size(*x);
                let waves: Vec<_> = rotations
                    .iter()
                    .enumerate()
                    .map(|(feature, rotation)| {
                        (rotation.partner != feature)
                            .then(|| tables.wave(rotation, self.model.tokens))
                    })
                    .collect();
                let all = |wave: &Wave| wave.len() == self.model.tokens;
                if !waves.iter().flatten().all(all) {
                    return Err(Error::bound(at, operator, "the angles of its rotation"));
                }
                // |cos| + |sin| ≤ √2 < 2, and their roundings.
                let bound = lifted(of.bound, rules::WAVE_BITS + 1);
                let bits = of.bits + rules::WAVE_BITS as i32;
                (Size { bits, bound }, Action::Rotary { waves })
            }
            (
                Operator::Attention { q, k, v, groups, scale },
                Scale::Attention { score_shift: shift },
            ) => {
                let unit = scale * power_of_two(shift - self.size(*q).bits - self.size(*k).bits);
                // Half a step of the table above 1: what remains after the least normaliser.
                let rest = (unit * power_of_two(rules::PROBABILITY_BITS as i32 - 1) + 0.5).floor();
                // At 2, T[−1] is above the limit.
                if !(rest >= 2.0 && unit < 0.25) {
                    return Err(Error::bound(at, operator, "the table of exponentials"));
                }
                let limit = (1u64 << rules::PROBABILITY_BITS) + rest as u64;
                let head = self.widths[*q] / groups.len().max(1);
                let score = self
                    .size(*q)
                    .bound
                    .saturating_mul(self.size(*k).bound)
                    .saturating_mul(u256(head as u128));
                if self.widths[*k] != key_heads(groups) * head
                    || score >= U256::ONE << EXACT
                    || lifted(score, shift.min(0).unsigned_abs()) >= U256::ONE << 62
                {
                    return Err(Error::bound(at, operator, "64 bits of scores"));
                }
                let of = self.size(*v);
                let bound = of.bound.saturating_mul(u256(u128::from(limit)));
                let bits = of.bits + rules::PROBABILITY_BITS as i32;
                let table = tables.exponentials(unit, rules::PROBABILITY_BITS);
                (Size { bits, bound }, Action::Attention { shift, table, limit })
            }
            (Operator::Activation { x, function }, Scale::Activation { entry_bits: bits }) => {
                let x_bits = self.size(*x).bits;
                if !fixed::ACTIVATION_BITS.contains(&x_bits)
                    || bits.unsigned_abs() > rules::MAX_BITS.unsigned_abs()
                {
                    return Err(Error::bound(at, operator, "the bits of its table"));
                }
                let table = tables.activation(*function, x_bits, bits);
                let largest = table.iter().map(|entry| entry.unsigned_abs()).max().unwrap_or(0);
                let bound = u256(u128::from(largest));
                (Size { bits, bound }, Action::Activation { table })
            }
            (Operator::Product { x, y }, Scale::None {}) => {
                let (x, y) = (self.size(*x), self.size(*y));
                let bound = x.bound.saturating_mul(y.bound);
                (Size { bits: x.bits + y.bits, bound }, Action::Plain)
            }
            _ => return Err(wrong()),
        })
    }

    fn norm(
        &self,
        at: usize,
        x: ValueId,
        kind: NormKind,
        epsilon: f64,
        scale: Scale,
    ) -> Result<(Size, Action), Error> {
        let operator = &self.graph.operators[at];
        let Scale::Norm { bits, root_bits, first_bits: first } = scale else {
            return Err(Error::Internal("a norm has the scales of another kind".into()));
        };
        let of = self.size(x);
        let width = self.widths[at] as u128;
        let refuse = |what| Error::bound(at, operator, what);
        let root = u32::try_from(of.bits + root_bits).map_err(|_| refuse("roots"))?;
        let shift = of.bits + root_bits - bits;
        let shift = u32::try_from(shift).ok().filter(|shift| *shift > 0);
        let shift = shift.ok_or_else(|| refuse("roots"))?;
        // Of LayerNorm, the integers are `n·x − Σx`, and their squares sum to `n³σ²`.
        let (largest, factor) = match kind {
            NormKind::Rms => (of.bound, width),
            NormKind::Layer => (of.bound.saturating_mul(u256(2 * width)), width.saturating_pow(3)),
        };
        if largest >= U256::ONE << I128_BITS {
            return Err(refuse("128 bits"));
        }
        let squares = largest.saturating_mul(largest).saturating_mul(u256(width));
        let limit = lifted(u256(width), 2 * (root + first));
        let epsilon = scaled_epsilon(epsilon, factor, 2 * of.bits).unwrap_or(U256::MAX);
        // Roots times values stay below √(width·4^root), which is far below.
        // A proof multiplies the sum with any R² of its range.
        let most = U256::ONE << (FIELD_BITS - 2 * rules::MAX_ROOT_BITS - 1);
        let fits = squares.saturating_add(epsilon) < most
            && limit < U256::ONE << FIELD_BITS
            && root + first + 16 < I128_BITS;
        if !fits {
            return Err(refuse("the proof's field"));
        }
        let size = Size { bits, bound: u256(1 << (rules::NARROW - 1)) };
        Ok((size, Action::Norm { epsilon, root, shift, first }))
    }

    fn linear(
        &self,
        linear: &Linear<'_>,
        module: Option<(usize, &Module)>,
    ) -> Result<(Size, Action), Error> {
        let Linear { at, x, affine, weight, bias, weight_bits, .. } = *linear;
        let operator = &self.graph.operators[at];
        let of = self.size(x);
        let weight = &self.graph.weights[weight];
        let scaled = Scaled { weight, gain: affine.gain.as_deref(), bits: weight_bits };
        let largest_sum = self.model.largest_sums[at];
        if !is_computable(largest_sum) {
            return Err(Error::bound(at, operator, "exact floats"));
        }
        let own_bits = of.bits + weight_bits;
        let bias = biases(scaled, affine, bias.as_deref(), own_bits)
            .ok_or_else(|| Error::bound(at, operator, "128 bits"))?;
        let mut bound = of.bound.saturating_mul(u256(u128::from(largest_sum)));
        let most = bias.iter().flatten().map(|bias| bias.unsigned_abs()).max().unwrap_or(0);
        // At least 1, as a shift can also be too far for a zero.
        bound = bound.saturating_add(u256(most)).max(U256::ONE);
        // The sum itself is computed in 128 bits; only the adapter's part may need more.
        if bound >= U256::ONE << I128_BITS {
            return Err(Error::bound(at, operator, "128 bits"));
        }
        let own = Size { bits: own_bits, bound };
        let small = own.is_small();
        let Some((index, module)) = module else {
            let (lift, low_rank, part) = (0, None, None);
            let action =
                Action::Linear { weight_bits, largest_sum, bias, small, lift, low_rank, part };
            return Ok((own, action));
        };
        let (mut low_rank, low_bits, low_bound) = self.low_rank(linear, index, module)?;
        let bits = own_bits.max(low_bits);
        let (lift, low_lift) = (bits.abs_diff(own_bits), bits.abs_diff(low_bits));
        low_rank.lift = low_lift;
        let bound = lifted(bound, lift).saturating_add(lifted(low_bound, low_lift));
        let mut size = Size { bits, bound };
        low_rank.narrow = size.is_narrow();
        let part = linear.part_bits.map(|part_bits| (bits - part_bits).max(0));
        if let Some(shift) = part {
            if bound >= U256::ONE << (FIELD_BITS - LIMB_BITS) {
                return Err(Error::bound(at, operator, "the proof's field"));
            }
            size = Size { bits: bits - shift, bound: u256(1 << (rules::PART - 1)) };
        }
        let low_rank = Some(low_rank);
        let action = Action::Linear { weight_bits, largest_sum, bias, small, lift, low_rank, part };
        Ok((size, action))
    }

    /// The adapter's part, its fractional bits and its bound.
    fn low_rank(
        &self,
        linear: &Linear<'_>,
        index: usize,
        module: &Module,
    ) -> Result<(LowRank, i32, U256), Error> {
        let Linear { at, x, affine, weight, gain_bits, .. } = *linear;
        let operator = &self.graph.operators[at];
        let weight = &self.graph.weights[weight];
        let refuse = |why: String| Error::Adapter { module: module.name.clone(), why };
        if (module.inputs, module.outputs) != (weight.inputs(), weight.outputs()) {
            return Err(refuse(format!(
                "it maps {} features to {}, the layer {} to {}",
                module.inputs,
                module.outputs,
                weight.inputs(),
                weight.outputs()
            )));
        }
        if !module.is_within_its_bits() {
            return Err(refuse("its integers are not those that its bits and features say".into()));
        }
        let of = self.size(x);
        let plain = affine.gain.is_none() && affine.shift.is_none();
        let in_bits = if plain { of.bits } else { of.bits + gain_bits };
        let integers = |floats: &[f32], bits: i32| {
            let scale = power_of_two(bits);
            let each = floats.iter().map(|x| nearest_integer(f64::from(*x) * scale));
            each.collect::<Option<Vec<i128>>>()
                .ok_or_else(|| Error::bound(at, operator, "128 bits before A"))
        };
        let gain = match (&affine.gain, plain) {
            (_, true) => None,
            (None, false) => Some(integers(&vec![1.0; module.inputs], gain_bits)?),
            (Some(gain), false) => Some(integers(gain, gain_bits)?),
        };
        let shift = affine.shift.as_ref().map(|shift| integers(shift, in_bits)).transpose()?;
        let most_gain = gain.iter().flatten().map(|gain| gain.unsigned_abs()).max().unwrap_or(1);
        let most_shift =
            shift.iter().flatten().map(|shift| shift.unsigned_abs()).max().unwrap_or(0);
        let input = of.bound.saturating_mul(u256(most_gain)).saturating_add(u256(most_shift));
        let [a_bits, b_bits] = [module.a_bits, module.b_bits].map(|bits| bits.max(LIMB_BITS));
        let inner_bound = lifted(input, a_bits - 1).saturating_mul(u256(module.inputs as u128));
        if inner_bound >= U256::ONE << I128_BITS {
            return Err(Error::bound(at, operator, "128 bits between A and B"));
        }
        let (factor, exponent) = odd_factor(module.scaling)
            .ok_or_else(|| refuse(format!("its scaling {} is no normal number", module.scaling)))?;
        let one = u32::try_from(in_bits).ok().filter(|bits| *bits < I128_BITS);
        let bias_shift = module.bias.as_ref().map_or(0, |(shift, _)| *shift);
        let one = match one {
            Some(bits) if bits.saturating_add(bias_shift).saturating_add(b_bits) < I128_BITS => {
                1i128 << bits
            }
            _ if module.bias.is_none() => 0,
            _ => return Err(Error::bound(at, operator, "128 bits of an adapter's bias")),
        };
        let mut bound =
            lifted(inner_bound, b_bits - 1).saturating_mul(u256(module.pairs.len() as u128));
        if module.bias.is_some() {
            bound = bound.saturating_add(lifted(u256(one.unsigned_abs()), bias_shift + b_bits - 1));
        }
        bound = bound.saturating_mul(u256(u128::from(factor.unsigned_abs()))).max(U256::ONE);
        let bits = (in_bits - exponent).saturating_sub(module.scale_log2);
        let low_rank = LowRank {
            module: index,
            gain,
            shift,
            inner_bound,
            factor,
            lift: 0,
            one,
            narrow: false,
        };
        Ok((low_rank, bits, bound))
    }
}

/// The parts of a linear operator.
#[derive(Clone, Copy)]
struct Linear<'a> {
    at: usize,
    x: ValueId,
    affine: &'a Affine,
    weight: usize,
    bias: &'a Option<Vec<f32>>,
    gain_bits: i32,
    part_bits: Option<i32>,
    weight_bits: i32,
}

/// The integers nearest to `(bias + W·shift)·2^bits`, in binary64, summed in the order of the
/// inputs. None if a number is too large.
fn biases(
    scaled: Scaled<'_>,
    affine: &Affine,
    bias: Option<&[f32]>,
    bits: i32,
) -> Option<Option<Vec<i128>>> {
    if bias.is_none() && affine.shift.is_none() {
        return Some(None);
    }
    let scale = power_of_two(bits);
    let outputs = 0..scaled.weight.outputs();
    let numbers = outputs.map(|output| {
        let mut sum = bias.map_or(0.0, |bias| f64::from(bias[output]));
        if let Some(shift) = &affine.shift {
            let row = scaled.weight.row(output);
            for (weight, shift) in row.iter().zip(shift) {
                sum += f64::from(*weight) * f64::from(*shift);
            }
        }
        nearest_integer(sum * scale)
    });
    numbers.collect::<Option<Vec<_>>>().map(Some)
}

/// The nearest integer, ties to even; none from `2^100` on. Numbers from `2^51` on that are no
/// integers have halves at most.
fn nearest_integer(x: f64) -> Option<i128> {
    if x.is_nan() || x.abs() >= power_of_two(100) {
        return None;
    }
    Some(if x.abs() < power_of_two(51) { nearest(x) } else { x.round_ties_even() } as i128)
}

/// `max(1, ⌊ε·factor·2^bits + 1/2⌋)` exactly. None if it is too large.
fn scaled_epsilon(epsilon: f64, factor: u128, bits: i32) -> Option<U256> {
    if epsilon <= 0.0 {
        return Some(U256::ONE);
    }
    let (mantissa, exponent) = decoded(epsilon);
    let product = U256::from(mantissa).checked_mul(U256::from(factor))?;
    let exponent = exponent + bits;
    let scaled = if exponent >= 0 {
        let exponent = exponent.unsigned_abs();
        if exponent > product.leading_zeros() {
            return None;
        }
        product << exponent
    } else {
        let down = exponent.unsigned_abs();
        match down {
            ..=255 => product.checked_add(U256::ONE << (down - 1))? >> down,
            _ => U256::ZERO,
        }
    };
    Some(scaled.max(U256::ONE))
}

/// `(m, e)` with `x = m·2^e` for a positive normal number.
fn decoded(x: f64) -> (u64, i32) {
    let bits = x.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32;
    let mantissa = (bits & ((1 << 52) - 1)) | if exponent > 0 { 1 << 52 } else { 0 };
    (mantissa, exponent.max(1) - 1075)
}

/// `(m, e)` with `scaling ≈ m·2^e`, `m` odd and of at most [`rules::SCALING_BITS`] bits.
fn odd_factor(scaling: f64) -> Option<(i64, i32)> {
    if !scaling.is_normal() {
        return None;
    }
    let (mut mantissa, mut exponent) = decoded(scaling.abs());
    let extra = (u64::BITS - mantissa.leading_zeros()).saturating_sub(rules::SCALING_BITS);
    if extra > 0 {
        mantissa = (mantissa + (1 << (extra - 1))) >> extra;
        exponent += extra as i32;
    }
    let zeros = mantissa.trailing_zeros();
    let factor = (mantissa >> zeros) as i64;
    Some((if scaling < 0.0 { -factor } else { factor }, exponent + zeros as i32))
}
