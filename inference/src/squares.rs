//! A bounded sum of squares: how much differences between scores and public numbers vary
//! (docs/inference-proof.md, "Sums").

use std::sync::Arc;

use ethnum::{I256, U256};
use ff::Field;
use zklora_proof::{
    field::{F, inner_product, powers},
    fold::eq_weights,
};

use crate::{
    Error,
    argument::State,
    axis::{Axis, bits_for},
    fe::Wiped,
    integers::{element, field},
    lookups::{INDEX_BITS, Input, Live, PerRow},
    openings::Opening,
    relations::Rule,
    schedule::{LIMB, Schedule, Score, bits},
    sumcheck::{Sumcheck, Tables, Term},
    tensors::{Catalog, TensorId},
    values::Value,
};

/// The sum is below 2^this.
const MAX_BITS: u32 = 240;

/// `least ≤ Σ_i y_i² ≤ most` for `y_i = n·(s_i − b_i) − n_i·Σ_j (s_j − b_j)` and `n = Σ n_i`, s_i
/// the scores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Squares {
    /// n_i: scored tokens.
    pub tokens: Vec<u32>,
    /// b_i: what a score is compared with.
    pub base: Vec<i64>,
    /// The least sum.
    pub least: U256,
    /// The largest. What no such scores reach allows all.
    pub most: U256,
}

impl Squares {
    /// n
    fn all_tokens(&self) -> u64 {
        self.tokens.iter().map(|tokens| u64::from(*tokens)).sum()
    }

    /// `c_i = n·b_i − n_i·Σ_j b_j`: `y_i = n·s_i − n_i·Σ_j s_j − c_i`.
    fn constants(&self) -> impl Iterator<Item = I256> {
        let n = I256::from(self.all_tokens());
        let base: I256 = self.base.iter().map(|b| I256::from(*b)).sum();
        let each = self.base.iter().zip(&self.tokens);
        each.map(move |(b, tokens)| n * I256::from(*b) - I256::from(*tokens) * base)
    }

    /// y_i, which are as secret as the scores.
    fn numbers(&self, scores: &[i64]) -> impl Iterator<Item = I256> {
        let n = I256::from(self.all_tokens());
        let all: I256 = scores.iter().map(|s| I256::from(*s)).sum();
        let each = self.constants().zip(scores).zip(&self.tokens);
        each.map(move |((c, score), tokens)| n * I256::from(*score) - I256::from(*tokens) * all - c)
    }

    /// The sum of squares.
    pub fn value(&self, scores: &[i64]) -> I256 {
        self.numbers(scores).map(|y| y * y).sum()
    }

    /// Above every sum of squares of such scores, if it is below the field's order by far.
    fn bound(&self, scores: &[Score]) -> Option<U256> {
        let score = scores.iter().map(|of| U256::from(of.tokens) << INDEX_BITS).max()?;
        let base = self.base.iter().map(|b| U256::from(b.unsigned_abs())).max()?;
        let count = U256::from(scores.len() as u64);
        // |y_i| ≤ n·D + n_i·N·D ≤ 2·n·N·D, with differences of at most D.
        let y = (score + base).checked_mul(count)?.checked_mul(U256::from(2u32))?;
        let y = y.checked_mul(U256::from(self.all_tokens()))?;
        let all = y.checked_mul(y)?.checked_mul(count)?;
        (bits(all) <= MAX_BITS).then_some(all)
    }

    /// What the transcript absorbs.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Squares { tokens, base, least, most } = self;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(tokens.len() as u64).to_le_bytes());
        tokens.iter().for_each(|n| bytes.extend_from_slice(&u64::from(*n).to_le_bytes()));
        bytes.extend_from_slice(&(base.len() as u64).to_le_bytes());
        base.iter().for_each(|b| bytes.extend_from_slice(&b.to_le_bytes()));
        bytes.extend_from_slice(&least.to_le_bytes());
        bytes.extend_from_slice(&most.to_le_bytes());
        bytes
    }

    /// Looks the sum up.
    ///
    /// # Errors
    /// [`Error::Statement`]: it is not about these scores, or allows nothing.
    /// [`Error::Unsupported`]: the numbers are too large.
    pub(crate) fn schedule(&self, schedule: &mut Schedule, scores: &[Score]) -> Result<(), Error> {
        let refuse = |why: &str| Err(Error::Statement(why.into()));
        if (self.tokens.len(), self.base.len()) != (scores.len(), scores.len()) {
            return refuse("the squares are of another number of scores");
        }
        let Some(bound) = self.bound(scores) else {
            return Err(Error::Unsupported("the squares do not fit the proof's field".into()));
        };
        let most = self.most.min(bound);
        if self.least > most {
            return refuse("the squares allow no sum");
        }
        let count = bits(bound).div_ceil(LIMB).max(1);
        let axis = schedule.catalog.axis(Axis::dense(1));
        let mut range = |sign: I256, constant: I256| {
            let value = Some((Value::Squares, PerRow::Same(sign)));
            let input = Input { tensors: vec![], value, constant: PerRow::Same(constant) };
            schedule.ranged(axis, 1, Live::All, input, count);
        };
        range(I256::ONE, -self.least.as_i256());
        range(-I256::ONE, most.as_i256());
        Ok(())
    }

    /// Reduces the claims on the sum to an opening of the scores, which are those of `tensors`.
    ///
    /// # Errors
    /// Those of the channel.
    pub(crate) fn reduce(
        &self,
        catalog: &Catalog,
        tensors: &[TensorId],
        scores: Option<&[i64]>,
        state: State<'_, '_>,
    ) -> Result<(), Error> {
        let State { channel, relations, openings, claims } = state;
        let claims = claims.take(Value::Squares);
        let lambda = channel.challenge("lambda");
        let (mut joined, mut value) = (F::ZERO, crate::cells::Expression::default());
        for (claim, lambda) in claims.iter().zip(&powers(lambda, claims.len() + 1)[1..]) {
            joined += *lambda * claim.weights[0] * claim.features[0];
            value.add(&claim.value, *lambda);
        }
        let variables = bits_for(self.tokens.len());
        let tables = scores.map(|scores| {
            // Allocated whole: a vector that grows leaves copies of its secrets in memory.
            let mut y = Wiped(Vec::with_capacity(1 << variables));
            y.extend(self.numbers(scores).map(element));
            y.resize_with(1 << variables, Default::default);
            Tables::dense(vec![y], vec![])
        });
        let terms = vec![Term { coefficient: joined, hidden: vec![0, 0], public: None }];
        let rule = Rule::Operator("squares");
        let sumcheck = Sumcheck { rule, variables, terms, hidden: 1 };
        let end = sumcheck.run(channel, relations, value, tables, |_| vec![])?;
        // ỹ(r) = Σ_j s_j·(n·eq_j − Σ_i eq_i·n_i) − Σ_i eq_i·c_i
        let eq = eq_weights(&end.point, self.tokens.len());
        let tokens: Vec<F> = self.tokens.iter().map(|n| F::from(u64::from(*n))).collect();
        let constants: Vec<F> = self.constants().map(field).collect();
        let (n, share) = (F::from(self.all_tokens()), inner_product(&eq, &tokens));
        let weights: Vec<F> = eq.iter().map(|eq| n * eq - share).collect();
        let mut opening = Opening { value: end.hidden[0].clone(), ..Opening::default() };
        opening.value.constant += inner_product(&eq, &constants);
        let one = Arc::new(vec![F::ONE]);
        let mut rest = weights.as_slice();
        for tensor in tensors {
            let (own, others) = rest.split_at(catalog.tensors[*tensor].features);
            opening.add(catalog, *tensor, &one, own, F::ONE);
            rest = others;
        }
        openings.push(opening);
        Ok(())
    }
}
