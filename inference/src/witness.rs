//! The hidden integers of a proof: runs the integer model and cuts what it computed into tensors
//! (docs/inference-proof.md, "Operators").

use std::borrow::Cow;

use ethnum::I256;
use rayon::prelude::*;
use zklora_integer::{
    evaluate::{Evaluation, accumulator, evaluate},
    graph::{NormKind, Operator, key_heads},
    matrix::{Integers, Matrix},
    operators,
    program::{Action, Program},
    rules,
};

use crate::{
    Error,
    integers::Grid,
    lookups::{Entries, Indices},
    plan::{Committed, Plan, ROOT_OFFSET, Softmax},
    schedule::{LIMB, limb, narrow_limb},
    statement::Claimed,
    tensors::View,
    values::{Value, Values},
};

/// Everything that is hidden.
pub(crate) struct Witness {
    /// The tensors, those of the manifest included.
    pub tensors: Vec<Grid>,
    /// Virtual values, and all results.
    pub values: Values,
    /// The indices of each lookup.
    pub indices: Vec<Indices>,
}

impl Witness {
    /// Runs the model.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]: a value leaves its range. Those of the evaluation.
    pub fn new(program: &Program, plan: &Plan, claimed: &Claimed) -> Result<Witness, Error> {
        let mut witness = Witness::of_evaluation(program, plan, claimed)?;
        witness.finish(plan)?;
        Ok(witness)
    }

    /// Without limbs, indices and multiplicities, which follow from the rest.
    pub fn of_evaluation(
        program: &Program,
        plan: &Plan,
        claimed: &Claimed,
    ) -> Result<Witness, Error> {
        let units: Vec<&[u32]> =
            claimed.sequences.iter().map(|sequence| sequence.tokens.as_slice()).collect();
        let mut results: Vec<Matrix> = Vec::new();
        let mut advice: Vec<Vec<i64>> = Vec::new();
        let evaluation = evaluate(program, &units, &mut |seen| {
            results.push(seen.result.clone());
            advice.push(seen.advice.to_vec());
        })?;
        if evaluation.failures.iter().any(Option::is_some) {
            return Err(Error::OutOfRange);
        }
        let none = || Grid::small(0, vec![]);
        let tensors = plan.catalog.tensors.iter().map(|_| none()).collect();
        let mut filling = Filling {
            program,
            plan,
            witness: Witness { tensors, values: Values::default(), indices: vec![] },
        };
        for (at, result) in results.iter().enumerate() {
            filling.operator(at, &results, &advice[at], result)?;
        }
        filling.scores(&evaluation, claimed)?;
        filling.modules();
        filling.results(claimed);
        let mut witness = filling.witness;
        for (at, result) in results.into_iter().enumerate() {
            witness.values.insert(Value::Result(at), Grid::new(result));
        }
        Ok(witness)
    }

    /// Fills in limbs, indices and multiplicities.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]
    pub fn finish(&mut self, plan: &Plan) -> Result<(), Error> {
        self.indices = plan.fill(&mut self.tensors, &self.values)?;
        Ok(())
    }
}

/// The integers of a matrix, which have at most 127 bits.
fn numbers(matrix: &Matrix) -> Cow<'_, [i128]> {
    match &matrix.integers {
        Integers::Wide(values) => values.iter().map(|x| x.as_i128()).collect(),
        _ => matrix.values(),
    }
}

struct Filling<'a> {
    program: &'a Program,
    plan: &'a Plan,
    witness: Witness,
}

impl Filling<'_> {
    fn operator(
        &mut self,
        at: usize,
        results: &[Matrix],
        advice: &[i64],
        result: &Matrix,
    ) -> Result<(), Error> {
        let step = &self.program.steps[at];
        let columns = result.columns;
        let small = || Grid::small(columns, numbers(result).iter().map(|x| *x as i64).collect());
        match &self.plan.committed[at] {
            Committed::None => {}
            Committed::Result(tensor) => self.witness.tensors[*tensor] = small(),
            Committed::Limbs { limbs, bits } => {
                let numbers = numbers(result);
                for (tensor, j) in limbs.iter().zip(0..) {
                    let limb = |x: &i128| narrow_limb(*x + (1 << (bits - 1)), j);
                    let limbs = numbers.iter().map(limb).collect();
                    self.witness.tensors[*tensor] = Grid::small(columns, limbs);
                }
            }
            Committed::Norm { result: tensor, rho } => {
                self.witness.tensors[*tensor] = small();
                for (tensor, j) in rho.iter().zip(0..) {
                    let rho = |root: &i64| i128::from((root - ROOT_OFFSET) / 2);
                    let limbs = advice.iter().map(|root| narrow_limb(rho(root), j)).collect();
                    self.witness.tensors[*tensor] = Grid::small(1, limbs);
                }
                self.norm(at, results, advice);
            }
            Committed::Softmax(softmax) => {
                let softmax = softmax.clone();
                self.attention(at, results, advice, &softmax);
            }
        }
        if let (Operator::Linear { x, .. }, Action::Linear { part: Some(_), .. }) =
            (&step.operator, &step.action)
        {
            let exact = accumulator(step, self.program, &results[*x]);
            self.witness.values.insert(Value::Accumulator(at), Grid::new(exact));
        }
        Ok(())
    }

    fn norm(&mut self, at: usize, results: &[Matrix], roots: &[i64]) {
        let (Operator::Norm { x, kind, .. }, Action::Norm { epsilon, .. }) =
            (&self.program.steps[at].operator, &self.program.steps[at].action)
        else {
            return;
        };
        let (kind, epsilon): (NormKind, I256) = (*kind, epsilon.as_i256());
        let x = &results[*x];
        let values = x.values();
        let rows = values.par_chunks(x.columns.max(1)).zip(roots).map(|(row, root)| {
            let y = operators::norm_input(row, kind);
            let root = I256::from(*root);
            let v = y.iter().map(|y| I256::from(*y) * I256::from(*y)).sum::<I256>() + epsilon;
            let scaled: Vec<I256> = y.iter().map(|y| I256::from(*y) * root).collect();
            (scaled, root * root * v, (root + 2) * (root + 2) * v)
        });
        let rows: Vec<(Vec<I256>, I256, I256)> = rows.collect();
        let lower = rows.iter().map(|(_, lower, _)| *lower).collect();
        let upper = rows.iter().map(|(_, _, upper)| *upper).collect();
        let scaled = || rows.iter().flat_map(|(scaled, _, _)| scaled);
        let is_narrow = scaled().all(|x| x.unsigned_abs() >> 126u32 == 0);
        let scaled = match is_narrow {
            true => Grid::of(x.columns, scaled().map(|x| x.as_i128()).collect()),
            false => Grid::wide(x.columns, scaled().copied().collect()),
        };
        let values = &mut self.witness.values;
        values.insert(Value::Scaled(at), scaled);
        values.insert(Value::Lower(at), Grid::wide(1, lower));
        values.insert(Value::Upper(at), Grid::wide(1, upper));
    }

    fn attention(&mut self, at: usize, results: &[Matrix], advice: &[i64], softmax: &Softmax) {
        let (Operator::Attention { q, k, groups, .. }, Action::Attention { shift, table, limit }) =
            (&self.program.steps[at].operator, &self.program.steps[at].action)
        else {
            return;
        };
        let keys = self.plan.length;
        let heads = groups.len();
        let (q, k) = (&results[*q], &results[*k]);
        let size = q.columns / heads;
        debug_assert_eq!(k.columns, key_heads(groups) * size);
        let (of_q, of_k) = (q.values(), k.values());
        let places = &self.plan.catalog.axes[self.plan.tokens].places;
        // The first row of each sequence, and its tokens.
        let mut scores = vec![0i128; places.len() * heads * keys];
        scores.par_chunks_mut(heads * keys).zip(places).enumerate().for_each(
            |(row, (scores, place))| {
                let first = row - place % keys;
                let others = places[first..].iter().take_while(|p| **p / keys == place / keys);
                let count = others.count();
                for h in 0..heads {
                    let q = &of_q[row * q.columns + h * size..][..size];
                    for j in 0..count {
                        let at = (first + j) * k.columns + groups[h] * size;
                        let k = &of_k[at..][..size];
                        scores[h * keys + j] = q.iter().zip(k).map(|(q, k)| q * k).sum();
                    }
                }
            },
        );
        let entries = Entries::Exponentials { table: table.clone(), limit: *limit };
        let count = places.len() * heads * keys;
        let (mut index, mut weight, mut step) = (vec![0; count], vec![0; count], vec![0; count]);
        let (mut sums, mut before) = (Vec::new(), Vec::new());
        for (row, place) in places.iter().enumerate() {
            for h in 0..heads {
                let (mut sum, mut sum_before) = (0i64, 0i64);
                for j in 0..=place % keys {
                    let cell = (row * heads + h) * keys + j;
                    let score = operators::ceiling(scores[cell], *shift) as i64;
                    let d = advice[row * heads + h] - score;
                    let [out, out2] = entries.outs(usize::try_from(d).unwrap_or(usize::MAX));
                    (index[cell], weight[cell], step[cell]) = (d, out, out2);
                    sum += out;
                    sum_before += out + out2;
                }
                sums.push(sum);
                before.push(sum_before);
            }
        }
        let columns = heads * keys;
        let tensors = &mut self.witness.tensors;
        for (tensor, cells) in
            [(softmax.index, index), (softmax.weight, weight), (softmax.step, step)]
        {
            tensors[tensor] = Grid::small(columns, cells);
        }
        self.normaliser(softmax, advice, heads);
        let values = &mut self.witness.values;
        values.insert(Value::Scores(at), Grid::of(columns, scores));
        values.insert(Value::Weights(at), Grid::small(heads, sums));
        values.insert(Value::WeightsBefore(at), Grid::small(heads, before));
    }

    fn normaliser(&mut self, softmax: &Softmax, normalisers: &[i64], columns: usize) {
        let raised = I256::ONE << (LIMB * softmax.normaliser.len() as u32 - 1);
        for (j, tensor) in softmax.normaliser.iter().enumerate() {
            let limb = |c: &i64| limb(I256::from(*c) + raised, j as u32);
            let limbs = normalisers.iter().map(limb).collect();
            self.witness.tensors[*tensor] = Grid::small(columns, limbs);
        }
    }

    fn scores(&mut self, evaluation: &Evaluation<'_>, claimed: &Claimed) -> Result<(), Error> {
        let program = self.program;
        let mut wanted = Vec::new();
        for (unit, sequence) in claimed.sequences.iter().enumerate() {
            let positions = sequence.from - 1..sequence.tokens.len() - 1;
            wanted.extend(positions.map(|position| (unit, position)));
        }
        let vocabulary = program.graph.vocabulary;
        let logits = std::sync::Mutex::new(vec![0i128; wanted.len() * vocabulary]);
        evaluation.logits(&wanted, |row, values| {
            if let Ok(mut logits) = logits.lock() {
                logits[row * vocabulary..][..vocabulary].copy_from_slice(values);
            }
        });
        let logits = logits.into_inner().map_err(|e| Error::Internal(e.to_string()))?;
        let at = program.graph.logits;
        let shift = program.steps[at].size.bits - program.score_bits;
        let Some(Committed::Softmax(softmax)) = self.plan.committed.last().cloned() else {
            return Err(Error::Internal("the scores have no tensors".into()));
        };
        let Some(Entries::Exponentials { table, limit }) = self.score_table(&softmax) else {
            return Err(Error::Internal("the scores have no table".into()));
        };
        let entries = Entries::Exponentials { table: table.clone(), limit };
        let rows: Vec<Option<(i64, Vec<[i64; 3]>)>> = logits
            .par_chunks(vocabulary)
            .map(|row| {
                let ceiling = |x: &i128| operators::ceiling(*x, shift) as i64;
                let scores: Vec<i64> = row.iter().map(ceiling).collect();
                let c = operators::normaliser(&scores, &table, limit);
                let cells = scores.iter().map(|score| {
                    let d = usize::try_from(c - score).ok().filter(|d| *d < rules::TABLE)?;
                    let [out, out2] = entries.outs(d);
                    Some([d as i64, out, out2])
                });
                Some((c, cells.collect::<Option<Vec<_>>>()?))
            })
            .collect();
        let rows: Vec<(i64, Vec<[i64; 3]>)> =
            rows.into_iter().collect::<Option<_>>().ok_or(Error::OutOfRange)?;
        let tensors = [softmax.index, softmax.weight, softmax.step];
        for (part, tensor) in tensors.into_iter().enumerate() {
            let cells = rows.iter().flat_map(|(_, cells)| cells.iter().map(|cell| cell[part]));
            self.witness.tensors[tensor] = Grid::small(vocabulary, cells.collect());
        }
        let normalisers: Vec<i64> = rows.iter().map(|(c, _)| *c).collect();
        self.normaliser(&softmax, &normalisers, 1);
        self.witness.values.insert(Value::Result(at), Grid::of(vocabulary, logits));
        Ok(())
    }

    /// The table that the scores are looked up in.
    fn score_table(&self, softmax: &Softmax) -> Option<Entries> {
        let lookup = self.plan.lookups.iter().find(|lookup| {
            lookup.input.tensors.first().is_some_and(|(tensor, view, _)| {
                *tensor == softmax.index && *view == View::Same && lookup.outs[0].is_some()
            })
        })?;
        Some(self.plan.tables[lookup.table].entries.clone())
    }

    /// The answers to questions, and the results.
    fn results(&mut self, claimed: &Claimed) {
        let plan = self.plan;
        if let Some(answers) = &plan.answers {
            answers.fill(&mut self.witness.tensors, claimed.questions.len());
        }
        let Some(tensor) = plan.sums else { return };
        let results = plan.results.iter().map(|result| {
            let grid = &self.witness.tensors[result.tensor];
            let cells = result.cells.iter().map(|(row, at)| grid.get(*row, *at).as_i64());
            result.sign * cells.sum::<i64>()
        });
        let results: Vec<i64> = results.collect();
        self.witness.tensors[tensor] = Grid::small(results.len(), results);
    }

    fn modules(&mut self) {
        for (tensors, module) in self.plan.modules.iter().zip(&self.program.adapter.modules) {
            let wide = |values: &[i32]| values.iter().map(|x| i64::from(*x)).collect::<Vec<_>>();
            if let Some([a, b]) = tensors.pairs {
                let of_a = module.pairs.iter().flat_map(|(a, _)| wide(a)).collect();
                let of_b = module.pairs.iter().flat_map(|(_, b)| wide(b)).collect();
                self.witness.tensors[a] = Grid::small(module.inputs, of_a);
                self.witness.tensors[b] = Grid::small(module.outputs, of_b);
            }
            if let (Some(tensor), Some((_, bias))) = (tensors.bias, &module.bias) {
                self.witness.tensors[tensor] = Grid::small(module.outputs, wide(bias));
            }
        }
    }
}
