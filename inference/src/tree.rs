//! The tree of fractions: all lookups at once (docs/inference-proof.md, "Lookups").

use ff::Field;
use zklora_proof::field::F;

use crate::{
    Error,
    cells::Expression,
    channel::Channel,
    fe::{Fe, elements},
    fractions::{Halves, Leaves, Level, Nodes, Source},
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
    /// From level depth − 2 to level 2.
    levels: Vec<Level<N>>,
}

impl<N: Number> Levels<N> {
    fn new(depth: usize, leaves: Leaves) -> Levels<N> {
        let source = Source::new(leaves);
        let mut levels = vec![source.two_above()];
        for _ in 2..depth - 2 {
            levels.extend(levels.last().map(Level::above));
        }
        Levels { depth, source, levels }
    }

    /// p₀, p₁, q₀, q₁ of level 1.
    fn top(&self) -> [Fe; 4] {
        self.levels.last().map(Level::top).unwrap_or_default()
    }

    /// Takes a level, from level 2 to the leaves.
    fn take(&mut self, level: usize, lambda: Fe, point: &[Fe]) -> Halves<'_, N> {
        let nodes = match (self.depth - level, self.levels.pop()) {
            (0, _) => Nodes::Leaves(&self.source),
            (_, Some(level)) => Nodes::Level(level),
            (_, None) => Nodes::Joined(&self.source),
        };
        Halves::new(nodes, lambda, point)
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
    run_with::<lanes::Plain>(channel, relations, depth, leaves)
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
    let ends = levels.as_ref().map(|levels| levels.top().map(F::from).to_vec());
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
        point = below(rest, rho);
    }
    Ok(End { point, p, q })
}

/// How many of the lowest bits of a parent's index are those of its children, of those of an index
/// with `bits`.
fn split(bits: usize) -> usize {
    bits.min(2)
}

/// The variables of a parent's index, in the order in which they are bound: those above the split
/// from the least significant one on, and then the others from the most significant one on.
fn order(bits: usize) -> impl Iterator<Item = usize> {
    let high = bits - split(bits);
    (0..high).rev().chain(high..bits)
}

/// The point of a level from that of its parents: ρ stands where the children differ.
fn below<T>(mut parents: Vec<T>, rho: T) -> Vec<T> {
    parents.insert(parents.len() - split(parents.len()), rho);
    parents
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
        mut halves: Option<Halves<'_, N>>,
    ) -> Result<(Vec<F>, Vec<Expression>), Error> {
        let lambda = self.lambda;
        let mut bound = F::ONE;
        let mut rest = vec![F::ZERO; self.point.len()];
        for variable in order(self.point.len()) {
            let w = &self.point[variable];
            let round = halves.as_ref().map(|halves| halves.round().map(F::from).to_vec());
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
            if let Some(halves) = &mut halves {
                halves.bind(Fe::from(r));
            }
            rest[variable] = r;
        }
        let ends = halves.map(|halves| halves.ends().map(F::from).to_vec());
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
    use crate::{
        fe::{Wiped, eq_table},
        testing::integer,
    };

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
            // The first 300 are linear in their place; most leaves have one of them.
            codes: (0..count)
                .map(|i| (at(i + count, 499) as u32 % 500) % [300, 500][i / 1500 % 4 / 3])
                .collect(),
            denominators: Wiped(
                (0..500)
                    .map(|i| match i {
                        0..300 => Fe::of(i64::MAX) * Fe::of(i as i64 * 9 + 1),
                        _ => Fe::of(at(i, i64::MAX / 4)) * Fe::of(7),
                    })
                    .collect(),
            ),
            linear: 300,
        }
    }

    /// All rounds and ends of all levels, and the last point.
    fn all<N: Number>(depth: usize, leaves: Leaves) -> (Vec<Vec<Fe>>, Vec<Fe>) {
        let mut levels = Levels::<N>::new(depth, leaves);
        let mut said: Vec<Vec<Fe>> = vec![levels.top().to_vec()];
        let mut point = vec![Fe::of(77)];
        for level in 2..=depth {
            let lambda = Fe::of(level as i64 + 1000);
            let mut halves = levels.take(level, lambda, &point);
            let mut rest = point.clone();
            for (round, variable) in order(point.len()).enumerate() {
                said.push(halves.round().to_vec());
                let r = Fe::of((round * depth + level) as i64) * Fe::of(i64::MAX);
                halves.bind(r);
                rest[variable] = r;
            }
            said.push(halves.ends().to_vec());
            point = below(rest, Fe::of(level as i64));
        }
        (said, point)
    }

    #[test]
    fn four_elements_at_once_give_what_one_gives() {
        #[cfg(target_arch = "x86_64")]
        for count in [40_001, 65_536, 20_000, 1] {
            if lanes::available() {
                let (of_lanes, of_one) = (
                    all::<lanes::Lanes>(16, leaves(count)),
                    all::<lanes::Plain>(16, leaves(count)),
                );
                assert!(of_lanes == of_one, "{count}");
            }
        }
    }

    /// Ends of rows of attention: of 64 leaves 32 count in part, and the others are fractions 0/0.
    /// No denominator is linear.
    fn ends_of_rows() -> Leaves {
        let code = |i: u32| if i % 64 < 32 { 1 + (i * i + i / 64) % 498 } else { 0 };
        let denominator = |i| if i == 0 { Fe::ZERO } else { random(i) };
        Leaves {
            numerators: (0..1 << 16).map(|i| i32::from(i % 64 < 17)).collect(),
            codes: (0..1 << 16).map(code).collect(),
            denominators: Wiped((0..499).map(denominator).collect()),
            linear: 0,
        }
    }

    fn random(seed: u64) -> Fe {
        let word = |at| Fe::of(integer((seed << 1) | at, i64::MAX / 4));
        word(0) * word(1)
    }

    /// The rounds of leaves of which one, two and four are bound to one.
    fn rounds_of_leaves<N: Number>(source: &Source<N>) -> Vec<[Fe; 2]> {
        let point: Vec<Fe> = (1000..1015).map(random).collect();
        let mut halves = Halves::new(Nodes::Leaves(source), random(1015), &point);
        let mut said = vec![halves.round()];
        for at in [1016, 1017] {
            halves.bind(random(at));
            said.push(halves.round());
        }
        said
    }

    /// Sums of four products and a numerator beside nothing are the largest that are extrapolated.
    #[test]
    fn ends_of_rows_are_summed_right() {
        #[cfg(target_arch = "x86_64")]
        if lanes::available() {
            let of_lanes = rounds_of_leaves(&Source::<lanes::Lanes>::new(ends_of_rows()));
            let of_one = rounds_of_leaves(&Source::<lanes::Plain>::new(ends_of_rows()));
            assert!(of_lanes == of_one);
        }
    }

    /// The same from the definition.
    fn plainly(depth: usize, leaves: &Leaves) -> Vec<Vec<Fe>> {
        let mut nodes = vec![[Fe::ZERO, Fe::ONE]; 1 << depth];
        for (i, (n, code)) in leaves.numerators.iter().zip(&leaves.codes).enumerate() {
            nodes[i] = [Fe::of(i64::from(*n)), leaves.denominators[*code as usize]];
        }
        let mut levels = vec![nodes];
        for bits in (1..depth).rev() {
            let nodes = &levels[levels.len() - 1];
            let (above, split) = (1 << bits, split(bits));
            let parent = |i: usize| {
                let first = (i >> split << (split + 1)) | (i & ((1 << split) - 1));
                let ([p0, q0], [p1, q1]) = (nodes[first], nodes[first + (1 << split)]);
                [p0 * q1 + p1 * q0, q0 * q1]
            };
            levels.push((0..above).map(parent).collect());
        }
        let top = &levels[depth - 1];
        let mut said = vec![vec![top[0][0], top[1][0], top[0][1], top[1][1]]];
        let mut point = vec![Fe::of(77)];
        for level in 2..=depth {
            let (nodes, bits) = (&levels[depth - level], level - 1);
            let lambda = Fe::of(level as i64 + 1000);
            let split = split(bits);
            // p₀, p₁, q₀, q₁ and eq of each parent, with the index.
            let eq = eq_table(&point, Fe::ONE);
            let mut tables: Vec<(usize, [Fe; 5])> = (0..1usize << bits)
                .map(|i| {
                    let first = (i >> split << (split + 1)) | (i & ((1 << split) - 1));
                    let ([p0, q0], [p1, q1]) = (nodes[first], nodes[first + (1 << split)]);
                    (i, [p0, p1, q0, q1, eq[i]])
                })
                .collect();
            let mut rest = point.clone();
            let mut factor = Fe::ONE;
            for (round, variable) in order(bits).enumerate() {
                let bit = 1 << (bits - 1 - variable);
                let w = point[variable];
                let (low, high): (Vec<_>, Vec<_>) =
                    tables.into_iter().partition(|x| x.0 & bit == 0);
                // t is the summand without this variable's factor of eq: the sum over both is 1.
                let mut sums = [Fe::ZERO; 2];
                for ((_, low), (_, high)) in low.iter().zip(&high) {
                    for (at, sum) in sums.iter_mut().enumerate() {
                        let x = |k: usize| match at {
                            0 => low[k],
                            _ => high[k].double() - low[k],
                        };
                        let summand = x(0) * x(3) + x(1) * x(2) + lambda * x(2) * x(3);
                        *sum += (low[4] + high[4]) * summand;
                    }
                }
                let unbound = F::from(factor).invert().unwrap();
                said.push(sums.map(|sum| sum * Fe::from(unbound)).to_vec());
                let r = Fe::of((round * depth + level) as i64) * Fe::of(i64::MAX);
                factor *= (Fe::ONE - w) * (Fe::ONE - r) + w * r;
                tables = low
                    .into_iter()
                    .zip(high)
                    .map(|((i, low), (_, high))| {
                        (i, std::array::from_fn(|k| low[k] + r * (high[k] - low[k])))
                    })
                    .collect();
                rest[variable] = r;
            }
            let [p0, p1, q0, q1, _] = tables[0].1;
            said.push(vec![p0, p1, q0, q1]);
            point = below(rest, Fe::of(level as i64));
        }
        said
    }

    #[test]
    fn rounds_are_those_of_the_definition() {
        // The last chunk of 32,960 leaves has ones only.
        for count in [40_001, 9_999, 32_960] {
            assert!(all::<lanes::Plain>(16, leaves(count)).0 == plainly(16, &leaves(count)));
        }
    }

    /// The leaves at the last point are what the last level's ends say.
    #[test]
    fn the_last_point_is_one_of_the_leaves() {
        let leaves_of = leaves(40_001);
        let (said, point) = all::<lanes::Plain>(16, leaves(40_001));
        let eq = eq_table(&point, Fe::ONE);
        let (mut p, mut q) = (Fe::ZERO, Fe::ZERO);
        for (i, weight) in eq.iter().enumerate() {
            match (leaves_of.numerators.get(i), leaves_of.codes.get(i)) {
                (Some(n), Some(code)) => {
                    p += *weight * Fe::of(i64::from(*n));
                    q += *weight * leaves_of.denominators[*code as usize];
                }
                _ => q += *weight,
            }
        }
        let ends = &said[said.len() - 1];
        let rho = Fe::of(16);
        let between = |low: Fe, high: Fe| low + rho * (high - low);
        assert_eq!((between(ends[0], ends[1]), between(ends[2], ends[3])), (p, q));
    }
}
