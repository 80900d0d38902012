//! Answers to questions: whether the likeliest choice is the right one, as cells that lookups bind
//! (docs/inference-proof.md, "Operators").

use std::sync::Arc;

use ethnum::{I256, U256};

use crate::{
    Error,
    axis::Axis,
    integers::{Grid, power},
    lookups::{INDEX_BITS, Input, Live, PerRow},
    schedule::{LIMB, Schedule, Score, bits},
    statement::Question,
    tensors::{Picks, TensorId, View},
};

/// Most choices of a question: so many fit a limb.
const MAX_CHOICES: usize = 1 << 10;

/// The right choice of a question beside another one.
#[derive(Debug, Clone, Copy)]
struct Pair {
    question: usize,
    /// The score of the right choice and its length, and those of the other one.
    right: (usize, u32),
    other: (usize, u32),
}

/// The pairs whose other choice stands on one side of the right one.
#[derive(Debug, Clone)]
struct SidePairs {
    pairs: Vec<Pair>,
    /// 1 if the right choice loses.
    loses: TensorId,
    /// 1 if the other choice wins a draw.
    handicap: i64,
}

/// The tensors of answers, and what they say.
#[derive(Debug, Clone)]
pub struct Answers {
    sides: Vec<SidePairs>,
    right: TensorId,
    scores: Vec<Score>,
}

/// The pairs of questions on both sides of their right choices.
fn pairs(questions: &[Question], scores: &[Score]) -> Result<[Vec<Pair>; 2], Error> {
    let refuse = |at: usize, why: String| Err(Error::Statement(format!("question {at} {why}")));
    let mut sides = [Vec::new(), Vec::new()];
    let mut first = 0;
    for (question, Question { answer, lengths }) in questions.iter().enumerate() {
        if *answer >= lengths.len() || lengths.len() > MAX_CHOICES {
            return refuse(
                question,
                format!(
                    "has {} choices, and choice {answer} is right; there may be {MAX_CHOICES}",
                    lengths.len()
                ),
            );
        }
        if lengths.contains(&0) {
            return refuse(question, "has a choice of length 0".into());
        }
        let choice = |at: usize| (first + at, lengths[at]);
        for at in (0..lengths.len()).filter(|at| at != answer) {
            let pair = Pair { question, right: choice(*answer), other: choice(at) };
            sides[usize::from(at > *answer)].push(pair);
        }
        first += lengths.len();
    }
    match first == scores.len() {
        true => Ok(sides),
        false => Err(Error::Statement(format!(
            "the questions have {first} choices, and there are {} sequences",
            scores.len()
        ))),
    }
}

impl Pair {
    /// The largest magnitude of [`Self::difference`].
    fn bound(&self, scores: &[Score]) -> U256 {
        let side = |(score, _): (usize, u32), (_, length): (usize, u32)| {
            U256::from(length) * (U256::from(scores[score].tokens) << INDEX_BITS)
        };
        side(self.right, self.other) + side(self.other, self.right) + 1
    }

    /// How much likelier by length the right choice is: of each score's cells, the factor.
    fn difference(&self, scores: &[Score]) -> Picks {
        let (right, other) = (self.right, self.other);
        let of = |(score, _): (usize, u32), factor: i64| {
            let Score { cells, sign, .. } = &scores[score];
            let factor = I256::from(factor) * I256::from(*sign);
            cells.iter().map(move |(row, at)| (*row, *at, factor))
        };
        of(right, i64::from(other.1)).chain(of(other, -i64::from(right.1))).collect()
    }
}

impl Schedule {
    /// Binds whether the likeliest choices are right to the scores of the choices. Returns the
    /// tensors, and the result of each question.
    ///
    /// # Errors
    /// [`Error::Statement`]: the questions are none of these scores.
    pub fn answers(
        &mut self,
        scores: &[Score],
        questions: &[Question],
    ) -> Result<(Answers, Vec<Score>), Error> {
        let pairs = pairs(questions, scores)?;
        let axis = self.catalog.axis(Axis::dense(1));
        let largest = pairs.iter().flatten().map(|pair| pair.bound(scores)).max();
        // 2^(16·count) is above it, and far below the field's order.
        let count = bits(largest.unwrap_or(U256::ONE)).div_ceil(LIMB);
        let mut sides = Vec::new();
        for (pairs, handicap) in pairs.into_iter().zip([1, 0]).filter(|(of, _)| !of.is_empty()) {
            let features = pairs.len();
            let loses = self.tensor(axis, features);
            self.look_up(axis, features, Live::All, Input::tensor(loses, 0));
            let picks = pairs.iter().map(|pair| pair.difference(scores)).collect();
            let differences = View::Picked(Arc::new(picks));
            let input = Input {
                tensors: vec![(scores[0].tensor, differences, I256::ONE)],
                value: None,
                constant: PerRow::Same(I256::from(-handicap)),
            };
            let input = input.plus(loses, View::Same, power(LIMB * count));
            self.ranged(axis, features, Live::All, input, count);
            sides.push(SidePairs { pairs, loses, handicap });
        }
        let right = self.tensor(axis, questions.len());
        self.look_up(axis, questions.len(), Live::All, Input::tensor(right, 0));
        // Σ u + r − 1 and 65535·(1 − r) − Σ u.
        let most = power(LIMB) - 1;
        for (sign, of_right, constant) in [(1, I256::ONE, -I256::ONE), (-1, -most, most)] {
            let mut input = Input::tensor(right, 0);
            input.tensors[0].2 = of_right;
            input.constant = PerRow::Same(constant);
            for side in &sides {
                let mut picks: Vec<Picks> = vec![Vec::new(); questions.len()];
                for (at, pair) in side.pairs.iter().enumerate() {
                    picks[pair.question].push((0, at, I256::ONE));
                }
                input = input.plus(side.loses, View::Picked(Arc::new(picks)), I256::from(sign));
            }
            self.look_up(axis, questions.len(), Live::All, input);
        }
        let results = (0..questions.len())
            .map(|at| Score { tensor: right, cells: vec![(0, at)], sign: 1, tokens: 1 })
            .collect();
        Ok((Answers { sides, right, scores: scores.to_vec() }, results))
    }
}

impl Answers {
    /// Fills in the tensors, which follow from the scores.
    pub fn fill(&self, tensors: &mut [Grid], questions: usize) {
        let mut right = vec![1; questions];
        for SidePairs { pairs, loses, handicap } in &self.sides {
            let each = pairs.iter().map(|pair| {
                let grid = &tensors[self.scores[pair.right.0].tensor];
                let picks = pair.difference(&self.scores);
                let terms = picks.iter().map(|(row, at, factor)| grid.get(*row, *at) * factor);
                let lost = terms.sum::<I256>() - I256::from(*handicap) < I256::ZERO;
                if lost {
                    right[pair.question] = 0;
                }
                i64::from(lost)
            });
            let cells: Vec<i64> = each.collect();
            tensors[*loses] = Grid::small(cells.len(), cells);
        }
        tensors[self.right] = Grid::small(questions, right);
    }
}
