//! What a proof commits to and looks up, from public shapes alone (docs/inference-proof.md,
//! "Operators"). Both sides make it; nothing of it comes with a proof.

use std::sync::Arc;

use ethnum::{I256, U256};
use zklora_integer::{
    evaluate::check_unit,
    graph::{NormKind, Operator},
    program::{Action, Program},
    rules,
    unit::Sequence,
};
use zklora_proof::{checked_manifest::CheckedManifest, layout::data_rows, manifest::TermKind};

use crate::{
    Error,
    answers::Answers,
    axis::{Axis, bits_for},
    integers::power,
    lookups::{Block, Entries, INDEX_BITS, Input, Live, Lookup, PerRow, blocks},
    schedule::{LIMB, Schedule, Score, bits},
    statement::Claimed,
    tensors::{AxisId, Source, Tensor, TensorId, View},
    values::Value,
};

/// All numbers of an equation stay below 2^this, so none holds modulo p only.
const FIELD_BITS: u32 = 251;
/// The least root of a norm, less one half of which it is twice: `R = 2ρ + 257`.
pub const ROOT_OFFSET: i64 = rules::LEAST_ROOT as i64 + 1;
/// `2^31 − 129 − ρ ≥ 0` exactly for R below 2^32.
const LARGEST_RHO: i64 = (1 << 31) - 129;
/// Most sequences, tokens and leaves of a proof.
const MAX_LEAVES: usize = 1 << 28;

/// How the result of an operator is known.
#[derive(Debug, Clone, PartialEq)]
pub enum Defined {
    /// From the tokens alone.
    Public,
    /// By claims on what it reads.
    Virtual,
    /// As a combination of committed tensors.
    Committed(Vec<(TensorId, I256)>, I256),
}

/// The tensors of an operator, besides limbs of remainders.
#[derive(Debug, Clone)]
pub enum Committed {
    /// None.
    None,
    /// A result of up to 16 bits.
    Result(TensorId),
    /// A result plus 2^(bits − 1), in limbs.
    Limbs {
        /// The limbs, lowest first.
        limbs: Vec<TensorId>,
        /// Bits of the result, with the sign.
        bits: u32,
    },
    /// A norm.
    Norm {
        /// The result.
        result: TensorId,
        /// Limbs of ρ.
        rho: [TensorId; 2],
    },
    /// Attention, or the scores.
    Softmax(Softmax),
}

/// The tensors of a softmax.
#[derive(Debug, Clone)]
pub struct Softmax {
    /// Indices d.
    pub index: TensorId,
    /// `T[d]`.
    pub weight: TensorId,
    /// `T[d − 1] − T[d]`.
    pub step: TensorId,
    /// Limbs of c + 2^(16ℓ − 1).
    pub normaliser: Vec<TensorId>,
}

/// The tensors of a module of the adapter.
#[derive(Debug, Clone, Copy)]
pub struct ModuleTensors {
    /// A, an element for each pair; none without pairs.
    pub pairs: Option<[TensorId; 2]>,
    /// The bias.
    pub bias: Option<TensorId>,
}

/// The schedule of a proof.
pub struct Plan {
    /// Tensors, tables and lookups.
    pub schedule: Schedule,
    /// The axis of tokens.
    pub tokens: AxisId,
    /// Places of a sequence on the axis of tokens.
    pub length: usize,
    /// The axis of scored positions, and the token that each points at.
    pub scored: (AxisId, Vec<usize>),
    /// For each operator, how its result is known.
    pub defined: Vec<Defined>,
    /// For each operator, its tensors; the scores at the end.
    pub committed: Vec<Committed>,
    /// For each module of the program's adapter, its tensors.
    pub modules: Vec<ModuleTensors>,
    /// The answers to questions, if there are any.
    pub answers: Option<Answers>,
    /// The results: scores of the sequences, or answers to the questions.
    pub results: Vec<Score>,
    /// A tensor of one element with the results, if the proof commits to them.
    pub sums: Option<TensorId>,
}

impl std::ops::Deref for Plan {
    type Target = Schedule;

    fn deref(&self) -> &Schedule {
        &self.schedule
    }
}

impl std::ops::DerefMut for Plan {
    fn deref_mut(&mut self) -> &mut Schedule {
        &mut self.schedule
    }
}

/// Builds a plan.
pub(crate) struct Builder<'a> {
    program: &'a Program,
    plan: Plan,
    positions: Vec<usize>,
}

/// The least positive multiple of 16 that is no less than `shift`.
fn whole_limbs(shift: i32) -> u32 {
    u32::try_from(shift).unwrap_or(0).max(1).next_multiple_of(LIMB)
}

impl Plan {
    /// The plan for these sequences and bounds.
    ///
    /// # Errors
    /// [`Error::Statement`]: they fit neither the model nor each other. [`Error::Unsupported`]: the
    /// model, the adapter or the sizes are beyond what a proof can show.
    pub fn new(
        program: &Program,
        manifest: &CheckedManifest,
        claimed: &Claimed,
    ) -> Result<Plan, Error> {
        let Claimed { sequences, questions, bounds, commits, .. } = claimed;
        if bounds.is_empty() && !commits {
            return Err(Error::Statement("it says nothing: it has no bounds".into()));
        }
        check_sequences(program, sequences)?;
        let longest = sequences.iter().map(|sequence| sequence.tokens.len()).max().unwrap_or(1);
        let length = longest.next_power_of_two();
        let mut schedule = Schedule::new(manifest.contents().k);
        let catalog = &mut schedule.catalog;
        let places = sequences.iter().enumerate();
        let places: Vec<usize> = places
            .flat_map(|(at, sequence)| (0..sequence.tokens.len()).map(move |t| at * length + t))
            .collect();
        let positions = places.iter().map(|place| place % length).collect();
        let tokens = catalog.axis(Axis { bits: bits_for(sequences.len() * length), places });
        let mut scored = Vec::new();
        let mut first = 0;
        for sequence in sequences {
            scored.extend((sequence.from - 1..sequence.tokens.len() - 1).map(|t| first + t));
            first += sequence.tokens.len();
        }
        let scored = (catalog.axis(Axis::dense(scored.len())), scored);
        let plan = Plan {
            schedule,
            tokens,
            length,
            scored,
            defined: vec![],
            committed: vec![],
            modules: vec![],
            answers: None,
            results: vec![],
            sums: None,
        };
        let mut builder = Builder { program, plan, positions };
        builder.modules(manifest)?;
        for at in 0..program.steps.len() {
            let (defined, committed) = builder.operator(at)?;
            builder.plan.defined.push(defined);
            builder.plan.committed.push(committed);
        }
        let mut results = builder.scores(sequences)?;
        let mut plan = builder.plan;
        if !questions.is_empty() {
            let (answers, of_questions) = plan.answers(&results, questions)?;
            (plan.answers, results) = (Some(answers), of_questions);
        }
        plan.bounds(&results, bounds)?;
        if *commits {
            let count = results.len();
            if count > data_rows(plan.catalog.k) {
                let why = format!("{count} results, which do not fit one column");
                return Err(Error::Unsupported(why));
            }
            let axis = plan.catalog.axis(Axis::dense(1));
            plan.sums = Some(plan.tensor(axis, count));
        }
        plan.results = results;
        let (_, depth) = blocks(&plan.catalog, &plan.lookups, plan.tables.len());
        if 1usize << depth > MAX_LEAVES {
            return Err(Error::Unsupported(format!(
                "these sequences need 2^{depth} lookups, more than {MAX_LEAVES}; prove fewer or \
                 shorter sequences at once"
            )));
        }
        Ok(plan)
    }
}

/// How large a proof is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanSize {
    /// Committed integers.
    pub values: usize,
    /// Looked up integers.
    pub lookups: usize,
    /// Leaves of the tree of lookups.
    pub leaves: usize,
    /// Committed columns.
    pub columns: usize,
    /// Tables.
    pub tables: usize,
}

impl Plan {
    /// How large the proof is.
    pub fn size(&self) -> PlanSize {
        let elements = |axis: AxisId| self.catalog.axes[axis].len();
        let own = |tensor: &&Tensor| {
            tensor.pieces.iter().all(|piece| self.catalog.packs[piece.pack].source == Source::Proof)
        };
        let tensors = self.catalog.tensors.iter().filter(own);
        let (blocks, _) = blocks(&self.catalog, &self.lookups, self.tables.len());
        PlanSize {
            values: tensors.map(|tensor| elements(tensor.axis) * tensor.features).sum(),
            lookups: self.lookups.iter().map(|of| elements(of.axis) * of.features).sum(),
            leaves: blocks.iter().map(Block::leaves).sum(),
            columns: self.catalog.columns(),
            tables: self.tables.len(),
        }
    }
}

fn check_sequences(program: &Program, sequences: &[Sequence]) -> Result<(), Error> {
    if sequences.is_empty() {
        return Err(Error::Statement("it has no sequences".into()));
    }
    for (at, sequence) in sequences.iter().enumerate() {
        check_unit(program, at, &sequence.tokens)?;
        if sequence.from == 0 || sequence.from >= sequence.tokens.len() {
            return Err(Error::Statement(format!(
                "sequence {at} is scored from token {} on, but has {} tokens",
                sequence.from,
                sequence.tokens.len()
            )));
        }
    }
    Ok(())
}

impl Builder<'_> {
    fn unsupported<T>(&self, at: usize, what: &str) -> Result<T, Error> {
        let name = self.program.graph.operators[at].name();
        Err(Error::Unsupported(format!("operator {at} ({name}): {what}")))
    }

    /// The result of an operator, times a number for each element, as an input.
    fn result(&self, x: usize, scale: PerRow) -> Input {
        let (tensors, constant, value) = match (&self.plan.defined[x], &scale) {
            (Defined::Committed(parts, constant), PerRow::Same(factor)) => {
                let parts = parts.iter().map(|(t, c)| (*t, View::Same, *c * *factor));
                (parts.collect(), PerRow::Same(*constant * *factor), None)
            }
            _ => (vec![], PerRow::Same(I256::ZERO), Some((Value::Result(x), scale))),
        };
        Input { tensors, value, constant }
    }

    /// The modules' tensors.
    fn modules(&mut self, manifest: &CheckedManifest) -> Result<(), Error> {
        let modules = manifest.modules();
        for module in &self.program.adapter.modules {
            let Some(at) = modules.iter().position(|known| known.name == module.name) else {
                return Err(Error::Statement(format!(
                    "the manifest has no module `{}`",
                    module.name
                )));
            };
            let mut of = [TermKind::LowRank, TermKind::Bias].map(|_| Vec::new());
            let pairs = manifest.pairs().iter().enumerate();
            let mut pairs = pairs.filter(|(_, pair)| pair.module == at).map(|(pair, _)| pair);
            for term in &modules[at].terms {
                let pairs = pairs.by_ref().take(term.rank);
                match term.kind {
                    TermKind::LowRank => of[0].extend(pairs),
                    TermKind::Bias => of[1].extend(pairs),
                    TermKind::Scale => {
                        return Err(Error::Unsupported(format!(
                            "module `{}` scales its layer's output (DoRA, IA3)",
                            module.name
                        )));
                    }
                }
            }
            let [low_rank, bias] = of;
            let known = &modules[at];
            if known.a_bits > LIMB || known.b_bits > LIMB {
                return Err(Error::Unsupported(format!(
                    "module `{}` has integers of {} bits: compile with --registered",
                    module.name,
                    known.a_bits.max(known.b_bits)
                )));
            }
            let shift = |(shift, _): &(u32, Vec<i32>)| *shift;
            let biases = known.terms.iter().filter(|term| term.kind == TermKind::Bias);
            let low = known.terms.iter().filter(|term| term.kind == TermKind::LowRank);
            let same = known.d_out == module.outputs
                && (known.a_bits, known.b_bits) == (module.a_bits, module.b_bits)
                && known.scaling.to_bits() == module.scaling.to_bits()
                && known.scale_log2 == module.scale_log2
                && biases.map(|term| term.shift).eq(module.bias.as_ref().map(shift))
                && low.map(|term| term.input).all(|input| input == Some(0))
                && known.inputs.len() <= 1
                && low_rank.len() == module.pairs.len()
                && bias.len() == usize::from(module.bias.is_some())
                && known.inputs.first().map_or(module.inputs, |input| input.dim) == module.inputs;
            if !same {
                return Err(Error::Statement(format!(
                    "module `{}` is another one than the manifest's",
                    module.name
                )));
            }
            let catalog = &mut self.plan.catalog;
            let pairs = (!low_rank.is_empty()).then(|| {
                let axis = catalog.axis(Axis::dense(low_rank.len()));
                [(module.inputs, false), (module.outputs, true)]
                    .map(|(features, is_b)| catalog.published(axis, features, &low_rank, is_b))
            });
            let bias = (!bias.is_empty()).then(|| {
                let axis = catalog.axis(Axis::dense(1));
                catalog.published(axis, module.outputs, &bias, true)
            });
            self.plan.modules.push(ModuleTensors { pairs, bias });
        }
        Ok(())
    }

    fn operator(&mut self, at: usize) -> Result<(Defined, Committed), Error> {
        let program = self.program;
        let step = &program.steps[at];
        let axis = self.plan.tokens;
        let widths = program.graph.widths();
        let width = widths[at];
        Ok(match (&step.operator, &step.action) {
            (Operator::Embedding { .. } | Operator::Positions { .. }, _) => {
                (Defined::Public, Committed::None)
            }
            (Operator::Round { x, .. }, Action::Round { shift, range }) => {
                let indexed = program
                    .graph
                    .operators
                    .iter()
                    .any(|other| matches!(other, Operator::Activation { x, .. } if *x == at));
                let input = self.result(*x, PerRow::Same(I256::ONE));
                self.rounding(at, input, program.steps[*x].size.bound, *shift, *range, !indexed)?
            }
            (Operator::Linear { .. }, Action::Linear { part: Some(shift), .. }) => {
                let input = Input {
                    tensors: vec![],
                    value: Some((Value::Accumulator(at), PerRow::Same(I256::ONE))),
                    constant: PerRow::Same(I256::ZERO),
                };
                // `Program` bounds the unrounded result by this: it leaves room for a whole limb.
                let bound = (U256::ONE << (FIELD_BITS - 1 - LIMB)) - 1;
                self.rounding(at, input, bound, *shift, rules::PART, true)?
            }
            (Operator::Norm { x, kind, .. }, action @ Action::Norm { .. }) => {
                self.norm(at, *x, *kind, width, action)?
            }
            (
                Operator::Attention { q, k, groups, .. },
                Action::Attention { shift, table, limit },
            ) => {
                let head = widths[*q] / groups.len();
                let (q, k) = (program.steps[*q].size.bound, program.steps[*k].size.bound);
                let bound = q.saturating_mul(k).saturating_mul(U256::from(head as u64));
                let entries = Entries::Exponentials { table: Arc::clone(table), limit: *limit };
                let keys = self.plan.length;
                let softmax = self.softmax(&SoftmaxShape {
                    at,
                    axis,
                    rows: groups.len(),
                    keys,
                    live: Live::Causal { keys },
                    value: Value::Scores(at),
                    bound,
                    shift: *shift,
                    entries,
                    limit: *limit,
                    sum_limbs: 2,
                })?;
                (Defined::Virtual, Committed::Softmax(softmax))
            }
            (Operator::Activation { x, .. }, Action::Activation { table }) => {
                let out = self.plan.tensor(axis, width);
                let table = self.plan.table(Entries::Activation(Arc::clone(table)));
                let mut input = self.result(*x, PerRow::Same(I256::ONE));
                if input.value.is_some() {
                    return self.unsupported(at, "it reads what was not rounded");
                }
                input.constant = PerRow::Same(input.constant.get(0) + power(15));
                let (features, live) = (width, Live::All);
                let outs = [Some(out), None];
                self.plan.lookups.push(Lookup { table, axis, features, input, outs, live });
                (Defined::Committed(vec![(out, I256::ONE)], I256::ZERO), Committed::Result(out))
            }
            _ => (Defined::Virtual, Committed::None),
        })
    }

    /// `y = rnd(x, shift)` of `range` bits.
    fn rounding(
        &mut self,
        at: usize,
        input: Input,
        bound: U256,
        shift: i32,
        range: u32,
        is_ranged: bool,
    ) -> Result<(Defined, Committed), Error> {
        let axis = self.plan.tokens;
        let width = self.program.graph.widths()[at];
        let (defined, committed) = if range <= LIMB {
            let y = self.plan.tensor(axis, width);
            if is_ranged {
                self.plan.look_up(axis, width, Live::All, Input::tensor(y, 1 << 15));
            }
            (vec![(y, I256::ONE)], Committed::Result(y))
        } else {
            let count = range / LIMB;
            let limbs: Vec<TensorId> = (0..count).map(|_| self.plan.tensor(axis, width)).collect();
            for limb in &limbs {
                self.plan.look_up(axis, width, Live::All, Input::tensor(*limb, 0));
            }
            let parts = limbs.iter().zip(0..).map(|(limb, j)| (*limb, power(LIMB * j)));
            (parts.collect(), Committed::Limbs { limbs, bits: range })
        };
        let constant = if range <= LIMB { I256::ZERO } else { -power(range - 1) };
        let defined = Defined::Committed(defined, constant);
        self.remainder(at, input, bound, PerRow::Same(I256::from(shift)), &defined, range)?;
        Ok((defined, committed))
    }

    /// Ranges the remainder of a rounding: `x·2^(s'−s) + 2^(s'−1) − 2^s'·y`, with the shift s of
    /// each element.
    fn remainder(
        &mut self,
        at: usize,
        mut input: Input,
        bound: U256,
        shifts: PerRow,
        y: &Defined,
        range: u32,
    ) -> Result<(), Error> {
        let each = match &shifts {
            PerRow::Same(shift) => vec![shift.as_i32()],
            PerRow::Each(shifts) => shifts.iter().map(|shift| shift.as_i32()).collect(),
        };
        let most = whole_limbs(each.iter().copied().max().unwrap_or(0));
        let least = each.iter().copied().min().unwrap_or(0);
        let up = (most as i32 - least).unsigned_abs();
        if bits(bound) + up >= FIELD_BITS || most + range >= FIELD_BITS {
            return self.unsupported(at, "its remainder does not fit the proof's field");
        }
        let factor = |shift: i32| power((most as i32 - shift).unsigned_abs());
        let factors = match &shifts {
            PerRow::Same(shift) => PerRow::Same(factor(shift.as_i32())),
            PerRow::Each(shifts) => {
                PerRow::Each(shifts.iter().map(|shift| factor(shift.as_i32())).collect())
            }
        };
        if let Some((_, scale)) = &mut input.value {
            *scale = factors;
        } else {
            let factor = factors.get(0);
            input.tensors.iter_mut().for_each(|(_, _, coefficient)| *coefficient *= factor);
            input.constant = input.constant.times(factor);
        }
        let Defined::Committed(parts, constant) = y else {
            return Err(Error::Internal("a rounded result is not committed".into()));
        };
        for (tensor, coefficient) in parts {
            input.tensors.push((*tensor, View::Same, -(*coefficient * power(most))));
        }
        let constant = power(most - 1) - *constant * power(most);
        input.constant = PerRow::Same(input.constant.get(0) + constant);
        let width = self.program.graph.widths()[at];
        let axis = self.plan.tokens;
        self.plan.ranged(axis, width, Live::All, input, most / LIMB);
        Ok(())
    }

    fn norm(
        &mut self,
        at: usize,
        x: usize,
        kind: NormKind,
        width: usize,
        action: &Action,
    ) -> Result<(Defined, Committed), Error> {
        let Action::Norm { root, shift, first, .. } = action else {
            return Err(Error::Internal("a norm has the numbers of another kind".into()));
        };
        let axis = self.plan.tokens;
        let result = self.plan.tensor(axis, width);
        self.plan.look_up(axis, width, Live::All, Input::tensor(result, 1 << 15));
        let rho = [self.plan.tensor(axis, 1), self.plan.tensor(axis, 1)];
        for limb in rho {
            self.plan.look_up(axis, 1, Live::All, Input::tensor(limb, 0));
        }
        let mut largest = Input::tensor(rho[0], LARGEST_RHO);
        largest.tensors[0].2 = -I256::ONE;
        let largest = largest.plus(rho[1], View::Same, -power(LIMB));
        self.plan.ranged(axis, 1, Live::All, largest, 2);

        let extra = |position: &usize| if *position == 0 { *first } else { 0 };
        let limit = |position: &usize| I256::from(width as u64) << (2 * (root + extra(position)));
        let limits: Vec<I256> = self.positions.iter().map(limit).collect();
        let most = limits.iter().max().copied().unwrap_or(I256::ONE);
        let count = bits(most.unsigned_abs()).div_ceil(LIMB);
        // Negative numbers are above p − 2^250, which no number in limbs reaches.
        if count * LIMB > 240 {
            return self.unsupported(at, "its squares do not fit the proof's field");
        }
        let inequality = |value, sign: I256, constant: &dyn Fn(&I256) -> I256| Input {
            tensors: vec![],
            value: Some((value, PerRow::Same(sign))),
            constant: PerRow::Each(limits.iter().map(constant).collect()),
        };
        let lower = inequality(Value::Lower(at), -I256::ONE, &|limit| *limit);
        let upper = inequality(Value::Upper(at), I256::ONE, &|limit| -*limit - 1);
        self.plan.ranged(axis, 1, Live::All, lower, count);
        self.plan.ranged(axis, 1, Live::All, upper, count);

        let scaled = Input {
            tensors: vec![],
            value: Some((Value::Scaled(at), PerRow::Same(I256::ONE))),
            constant: PerRow::Same(I256::ZERO),
        };
        let of = self.program.steps[x].size.bound;
        let of = match kind {
            NormKind::Rms => of,
            NormKind::Layer => of.saturating_mul(U256::from(2 * width as u64)),
        };
        let bound = of.saturating_mul(U256::ONE << rules::MAX_ROOT_BITS);
        let shifts = self.positions.iter().map(|p| I256::from(shift + extra(p))).collect();
        let defined = Defined::Committed(vec![(result, I256::ONE)], I256::ZERO);
        self.remainder(at, scaled, bound, PerRow::Each(shifts), &defined, LIMB)?;
        Ok((defined, Committed::Norm { result, rho }))
    }

    fn softmax(&mut self, shape: &SoftmaxShape) -> Result<Softmax, Error> {
        let &SoftmaxShape { at, axis, rows, keys, live, value, bound, shift, .. } = shape;
        let features = rows * keys;
        let [index, weight, step] = [(); 3].map(|()| self.plan.tensor(axis, features));
        let table = self.plan.table(shape.entries.clone());
        self.plan.lookups.push(Lookup {
            table,
            axis,
            features,
            input: Input::tensor(index, 0),
            outs: [Some(weight), Some(step)],
            live,
        });
        // c is at most the largest score and the table's length above it.
        let down = u32::try_from(shift).unwrap_or(0);
        let up = shift.min(0).unsigned_abs();
        let scores = (bound >> down.min(255)).saturating_add(U256::ONE);
        let scores = if up > 126 { U256::MAX } else { scores << up };
        let most = scores.saturating_add(U256::from(1u64 << INDEX_BITS));
        let count = (bits(most) + 1).div_ceil(LIMB);
        let whole = whole_limbs(shift);
        if count * LIMB + whole >= FIELD_BITS || bits(bound) + whole + up + 1 >= FIELD_BITS {
            return self.unsupported(at, "its scores do not fit the proof's field");
        }
        let normaliser: Vec<TensorId> = (0..count).map(|_| self.plan.tensor(axis, rows)).collect();
        for limb in &normaliser {
            self.plan.look_up(axis, rows, Live::All, Input::tensor(*limb, 0));
        }
        // 2^s'·(c − d) − 2^(s'−s)·S
        let factor = power((whole as i32 - shift).unsigned_abs());
        let heads = |normaliser: &[TensorId]| -> Vec<(TensorId, View, I256)> {
            let limbs = normaliser.iter().zip(0..);
            limbs.map(|(limb, j)| (*limb, View::Heads(keys), power(whole + LIMB * j))).collect()
        };
        let mut remainder = Input {
            tensors: heads(&normaliser),
            value: Some((value, PerRow::Same(-factor))),
            constant: PerRow::Same(-power(whole + LIMB * count - 1)),
        };
        remainder = remainder.plus(index, View::Same, -power(whole));
        self.plan.ranged(axis, features, live, remainder, whole / LIMB);
        // Z − Σ P and Σ (P + Δ) − Z − 1.
        let limit = I256::from(shape.limit);
        let (low, high) = match live {
            Live::All => {
                let sum = |tensors: &[TensorId], sign: I256, constant: I256| Input {
                    tensors: tensors.iter().map(|t| (*t, View::Sum, sign)).collect(),
                    value: None,
                    constant: PerRow::Same(constant),
                };
                (sum(&[weight], -I256::ONE, limit), sum(&[weight, step], I256::ONE, -limit - 1))
            }
            Live::Causal { .. } => {
                let sum = |value, sign: I256, constant: I256| Input {
                    tensors: vec![],
                    value: Some((value, PerRow::Same(sign))),
                    constant: PerRow::Same(constant),
                };
                (
                    sum(Value::Weights(at), -I256::ONE, limit),
                    sum(Value::WeightsBefore(at), I256::ONE, -limit - 1),
                )
            }
        };
        for input in [low, high] {
            self.plan.ranged(axis, rows, Live::All, input, shape.sum_limbs);
        }
        Ok(Softmax { index, weight, step, normaliser })
    }

    /// The scores of the sequences.
    fn scores(&mut self, sequences: &[Sequence]) -> Result<Vec<Score>, Error> {
        let program = self.program;
        let logits = program.graph.logits;
        let size = program.steps[logits].size;
        let table = Arc::clone(&program.score_table);
        let limit = (1u64 << rules::SCORE_EXPONENTIAL_BITS)
            + (1 << (rules::SCORE_EXPONENTIAL_BITS as i32 - 1 - program.score_bits));
        let vocabulary = program.graph.vocabulary;
        let (axis, _) = self.plan.scored;
        let softmax = self.softmax(&SoftmaxShape {
            at: logits,
            axis,
            rows: 1,
            keys: vocabulary,
            live: Live::All,
            value: Value::Result(logits),
            bound: size.bound,
            shift: size.bits - program.score_bits,
            entries: Entries::Exponentials { table, limit },
            limit,
            sum_limbs: 3,
        })?;
        let index = softmax.index;
        self.plan.committed.push(Committed::Softmax(softmax));
        // The log-probability of a scored token v is −d_v.
        let mut row = 0;
        let scores = sequences.iter().map(|sequence| {
            let scored = &sequence.tokens[sequence.from..];
            let cells = scored.iter().zip(row..).map(|(token, row)| (row, *token as usize));
            let (cells, tokens) = (cells.collect(), scored.len() as u64);
            row += scored.len();
            Score { tensor: index, cells, sign: -1, tokens }
        });
        Ok(scores.collect())
    }
}

/// The shape of a softmax.
struct SoftmaxShape {
    at: usize,
    axis: AxisId,
    /// Heads.
    rows: usize,
    keys: usize,
    live: Live,
    value: Value,
    bound: U256,
    shift: i32,
    entries: Entries,
    limit: u64,
    sum_limbs: u32,
}
