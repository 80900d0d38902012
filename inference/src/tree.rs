//! The tree of fractions: all lookups at once (docs/inference-proof.md, "Lookups").

use ff::Field;
use zklora_proof::field::F;

use crate::{
    Error,
    cells::Expression,
    channel::Channel,
    fe::{Fe, elements},
    fractions::{FEW, Halves, Leaves, Level, Nodes, Source},
    lanes::{self, Number},
    relations::{Relations, Rule},
    sumcheck::lagrange,
};

/// The leaves at one point.
pub struct End {
    /// The point.
    pub point: Vec<F>,
    /// The numerators there.
    pub p: Expression,
    /// The denominators there.
    pub q: Expression,
}

/// The prover's levels.
struct Levels<N: Number> {
    depth: usize,
    source: Source<N>,
    /// From level depth − 3 up, as far as they have many nodes.
    large: Vec<Level<N>>,
    /// The levels above.
    small: Vec<Level<Fe>>,
}

impl<N: Number> Levels<N> {
    fn new(depth: usize, leaves: Leaves) -> Levels<N> {
        let source = Source::new(leaves);
        let mut large = vec![source.level(depth, 3)];
        while let Some(last) = large.last()
            && last.half() >= 4 * FEW
        {
            large.push(last.above());
        }
        let mut small: Vec<Level<Fe>> = large.pop().iter().map(Level::plain).collect();
        while let Some(last) = small.last()
            && last.half() > 1
        {
            small.push(last.above());
        }
        Levels { depth, source, large, small }
    }

    /// Takes a level, from the highest to the leaves.
    fn take(&mut self, level: usize, lambda: Fe, point: &[Fe]) -> AnyHalves<'_, N> {
        if let Some(small) = self.small.pop() {
            return AnyHalves::Small(Halves::new(Nodes::Level(small), lambda, point));
        }
        let nodes = match self.depth - level {
            0 => Nodes::Leaves(&self.source),
            1 => Nodes::Joined(&self.source),
            2 => Nodes::Level(self.source.level(self.depth, 2)),
            _ => match self.large.pop() {
                Some(level) => Nodes::Level(level),
                None => Nodes::Joined(&self.source),
            },
        };
        AnyHalves::Large(Halves::new(nodes, lambda, point))
    }
}

/// The two halves of a level.
enum AnyHalves<'a, N: Number> {
    Large(Halves<'a, N>),
    Small(Halves<'static, Fe>),
}

impl<N: Number> AnyHalves<'_, N> {
    fn round(&self) -> Vec<F> {
        let round = match self {
            AnyHalves::Large(halves) => halves.round(),
            AnyHalves::Small(halves) => halves.round(),
        };
        round.map(F::from).to_vec()
    }

    fn bind(self, r: F) -> Self {
        match self {
            AnyHalves::Large(mut halves) => {
                halves.bind(Fe::from(r));
                match halves.is_small() {
                    true => AnyHalves::Small(halves.plain()),
                    false => AnyHalves::Large(halves),
                }
            }
            AnyHalves::Small(mut halves) => {
                halves.bind(Fe::from(r));
                AnyHalves::Small(halves)
            }
        }
    }

    fn ends(self) -> Vec<F> {
        let ends = match self {
            AnyHalves::Large(halves) => halves.ends(),
            AnyHalves::Small(halves) => halves.ends(),
        };
        ends.map(F::from).to_vec()
    }
}

/// Shows that the fractions of `2^depth` leaves sum to zero, up to the leaves at one point.
///
/// # Errors
/// Those of [`Channel::message`].
pub fn run(
    channel: &mut Channel<'_>,
    relations: &mut Relations,
    depth: usize,
    leaves: Option<Leaves>,
) -> Result<End, Error> {
    #[cfg(target_arch = "x86_64")]
    if lanes::available() {
        return run_with::<lanes::Lanes>(channel, relations, depth, leaves);
    }
    run_with::<Fe>(channel, relations, depth, leaves)
}

fn run_with<N: Number>(
    channel: &mut Channel<'_>,
    relations: &mut Relations,
    depth: usize,
    leaves: Option<Leaves>,
) -> Result<End, Error> {
    // A table alone has 2^16 leaves.
    if depth < 16 {
        return Err(Error::Internal(format!("a tree of depth {depth}")));
    }
    let mut levels = leaves.map(|leaves| Levels::<N>::new(depth, leaves));
    // Level 1: two nodes.
    let top = levels.as_mut().and_then(|levels| levels.small.pop());
    let ends = top.map(|level| level.first().map(F::from).to_vec());
    let ends = channel.message("nodes", 4, ends)?;
    let (p0, p1, q0, q1) = (&ends[0], &ends[1], &ends[2], &ends[3]);
    let across =
        [(p0, q1), (p1, q0)].map(|(x, y)| (F::ONE, relations.product(x.clone(), y.clone())));
    relations.require(Rule::LookupSum, Expression::default(), across.to_vec());
    let rho = channel.challenge("rho");
    let (mut p, mut q) = (between(p0, p1, rho), between(q0, q1, rho));
    let mut point = vec![rho];
    for level in 2..=depth {
        let lambda = channel.challenge("lambda");
        let claim = p.plus(&q, lambda);
        let halves =
            levels.as_mut().map(|levels| levels.take(level, Fe::from(lambda), &elements(&point)));
        let step = Step { lambda, point: &point };
        let (rest, ends) = step.run(channel, relations, claim, halves)?;
        let rho = channel.challenge("rho");
        (p, q) = (between(&ends[0], &ends[1], rho), between(&ends[2], &ends[3], rho));
        point = std::iter::once(rho).chain(rest).collect();
    }
    Ok(End { point, p, q })
}

/// `low + r·(high − low)`
fn between(low: &Expression, high: &Expression, r: F) -> Expression {
    low.clone().times(F::ONE - r).plus(high, r)
}

/// From one level to the next.
struct Step<'a> {
    lambda: F,
    point: &'a [F],
}

impl Step<'_> {
    /// `Σ_i eq(point, i)·(p₀q₁ + p₁q₀ + λq₀q₁)(i)`, up to p₀, p₁, q₀, q₁ at one point.
    fn run<N: Number>(
        &self,
        channel: &mut Channel<'_>,
        relations: &mut Relations,
        mut claim: Expression,
        mut halves: Option<AnyHalves<'_, N>>,
    ) -> Result<(Vec<F>, Vec<Expression>), Error> {
        let lambda = self.lambda;
        let mut bound = F::ONE;
        let mut rest = Vec::with_capacity(self.point.len());
        for w in self.point {
            let round = halves.as_ref().map(AnyHalves::round);
            let cells = channel.message("round", 2, round)?;
            let r = channel.challenge("r");
            // l(0), l(1), and t(1) from the claim l(0)·t(0) + l(1)·t(1).
            let (l0, l1) = (bound * (F::ONE - w), bound * w);
            let inverse = Option::<F>::from(l1.invert()).unwrap_or(F::ZERO);
            let t1 = claim.plus(&cells[0], -l0).times(inverse);
            let weights = lagrange(r, 2);
            bound *= (F::ONE - w) * (F::ONE - r) + *w * r;
            claim = t1.times(weights[1]);
            claim.add(&cells[0], weights[0]);
            claim.add(&cells[1], weights[2]);
            claim = claim.times(bound);
            halves = halves.map(|halves| halves.bind(r));
            rest.push(r);
        }
        let ends = halves.map(AnyHalves::ends);
        let ends = channel.message("nodes", 4, ends)?;
        let (p0, p1, q0, q1) = (&ends[0], &ends[1], &ends[2], &ends[3]);
        let products = [(p0, q1, F::ONE), (p1, q0, F::ONE), (q0, q1, lambda)]
            .map(|(x, y, factor)| (-(bound * factor), relations.product(x.clone(), y.clone())));
        relations.require(Rule::Tree, claim, products.to_vec());
        Ok((rest, ends))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fe::Wiped, testing::integer};

    /// Leaves of every kind, that end in the middle of the second half.
    fn leaves(count: usize) -> Leaves {
        let at = |i: usize, limit: i64| integer(i as u64, limit);
        Leaves {
            numerators: (0..count)
                .map(|i| match i / 1000 % 4 {
                    0 => 1,
                    1 => i32::from(at(i, 9) > 0),
                    2 => 0,
                    _ => at(i, 1 << 24) as i32,
                })
                .collect(),
            codes: (0..count).map(|i| at(i + count, 499) as u32 % 500).collect(),
            denominators: Wiped(
                (0..500).map(|i| Fe::of(at(i, i64::MAX / 4)) * Fe::of(7)).collect(),
            ),
        }
    }

    /// All rounds and ends of all levels.
    fn all<N: Number>(depth: usize, count: usize) -> Vec<Vec<F>> {
        let mut levels = Levels::<N>::new(depth, leaves(count));
        let top = levels.small.pop();
        let mut said: Vec<Vec<F>> =
            top.iter().map(|top| top.first().map(F::from).to_vec()).collect();
        let mut point = vec![Fe::of(77)];
        for level in 2..=depth {
            let lambda = Fe::of(level as i64 + 1000);
            let mut halves = levels.take(level, lambda, &point);
            let mut rest = Vec::new();
            for round in 0..point.len() {
                said.push(halves.round());
                let r = Fe::of((round * depth + level) as i64) * Fe::of(i64::MAX);
                halves = halves.bind(F::from(r));
                rest.push(r);
            }
            said.push(halves.ends());
            point = std::iter::once(Fe::of(level as i64)).chain(rest).collect();
        }
        said
    }

    #[test]
    fn four_elements_at_once_give_what_one_gives() {
        #[cfg(target_arch = "x86_64")]
        for count in [40_001, 65_536, 20_000] {
            if lanes::available() {
                assert!(all::<lanes::Lanes>(16, count) == all::<Fe>(16, count), "{count}");
            }
        }
    }

    #[test]
    fn rounds_follow_from_each_other() {
        let depth = 16;
        let said = all::<Fe>(depth, 40_001);
        // The root of the whole tree, from its leaves.
        let leaves = leaves(40_001);
        let (mut p, mut q) = (F::ZERO, F::ONE);
        for (n, code) in leaves.numerators.iter().zip(&leaves.codes) {
            let denominator = F::from(leaves.denominators[*code as usize]);
            p = p * denominator + q * zklora_proof::field::from_i64(i64::from(*n));
            q *= denominator;
        }
        let [p0, p1, q0, q1] = [0, 1, 2, 3].map(|at| said[0][at]);
        assert_eq!((p0 * q1 + p1 * q0, q0 * q1), (p, q));
    }
}
