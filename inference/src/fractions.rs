//! The prover's side of the tree of fractions: levels, and the sums of their sumchecks
//! (docs/inference-proof.md, "Lookups").
//!
//! The leaves are integers and places in a list of denominators. Neither they nor the level above
//! are ever stored as field elements; the two levels above that are made twice. All loops are
//! [`Number`]s': one element at a time, or four.
#![allow(unsafe_code)]

use rayon::prelude::*;
use zeroize::Zeroize;

use crate::{
    fe::{Fe, Wiped, eq_table},
    lanes::Number,
};

/// Numbers that one task computes.
const TASK: usize = 1 << 10;
/// Variables of the low weights: a task's sums have at most as many summands as
/// [`Number::Sum`] takes.
const LOW: usize = 9;
/// Pairs of nodes below which one element at a time is fast enough.
pub const FEW: usize = 1 << (LOW + 1);

type Stored<N> = <N as Number>::Stored;

/// The fractions at the bottom of the tree. Behind the last are fractions 0/1.
#[derive(Default)]
pub struct Leaves {
    /// Numerators.
    pub numerators: Vec<i32>,
    /// For each leaf, the place of its denominator.
    pub codes: Vec<u32>,
    /// Denominators that occur.
    pub denominators: Wiped,
}

impl Leaves {
    /// Adds fractions 0/1, so that four leaves are always there together.
    fn whole(&mut self) {
        let count = self.codes.len().next_multiple_of(4);
        if count > self.codes.len() {
            let one = self.denominators.len() as u32;
            self.denominators.push(Fe::ONE);
            self.codes.resize(count, one);
            self.numerators.resize(count, 0);
        }
    }
}

impl Drop for Leaves {
    fn drop(&mut self) {
        self.numerators.zeroize();
        self.codes.zeroize();
    }
}

/// Secret numbers, overwritten when dropped.
#[derive(Default)]
pub struct Hidden<S: Copy + Default>(Vec<S>);

impl<S: Copy + Default> Drop for Hidden<S> {
    fn drop(&mut self) {
        self.0.fill(S::default());
        std::hint::black_box(&mut self.0);
    }
}

/// The leaves, with denominators as the loops read them.
pub struct Source<N: Number> {
    leaves: Leaves,
    entries: Hidden<N::Entry>,
}

/// Numerators of some leaves.
#[derive(Clone, Copy)]
enum Numerators<N> {
    Zero,
    One,
    Others(N),
}

impl<N: Number> Numerators<N> {
    #[inline(always)]
    fn of(integers: &[i32]) -> Numerators<N> {
        let first = integers[0];
        match integers.iter().all(|n| *n == first) {
            true if first == 1 => Numerators::One,
            true if first == 0 => Numerators::Zero,
            _ => Numerators::Others(N::load(&stored_integers::<N>(integers))),
        }
    }

    #[inline(always)]
    fn number(self) -> N {
        match self {
            Numerators::Zero => N::zero(),
            Numerators::One => N::one(),
            Numerators::Others(number) => number,
        }
    }

    /// `n·q`
    #[inline(always)]
    fn times(self, q: N) -> N {
        match self {
            Numerators::Zero => N::zero(),
            Numerators::One => q,
            Numerators::Others(number) => number.times(q),
        }
    }
}

#[inline(never)]
fn stored_integers<N: Number>(integers: &[i32]) -> Stored<N> {
    let elements = integers.iter().map(|n| Fe::of(i64::from(*n)));
    N::stored(&Wiped(elements.collect()))
}

impl<N: Number> Source<N> {
    /// Prepares leaves.
    pub fn new(mut leaves: Leaves) -> Source<N> {
        leaves.whole();
        let entries = leaves.denominators.par_iter().map(|element| N::entry(*element)).collect();
        leaves.denominators = Wiped::default();
        Source { leaves, entries: Hidden(entries) }
    }

    fn len(&self) -> usize {
        self.leaves.codes.len()
    }

    #[inline(always)]
    fn integers(&self, i: usize) -> &[i32] {
        match self.leaves.numerators.get(i..i + N::LANES) {
            Some(integers) => integers,
            None => &[0; 4][..N::LANES],
        }
    }

    #[inline(always)]
    fn denominators(&self, i: usize) -> N {
        match self.leaves.codes.get(i..i + N::LANES) {
            Some(codes) => N::gather(&self.entries.0, codes),
            None => N::one(),
        }
    }

    /// Nodes of level depth − 1, which has `nodes`.
    #[inline(always)]
    fn one_above(&self, i: usize, nodes: usize) -> (N, N) {
        let (p0, q0) = (Numerators::of(self.integers(i)), self.denominators(i));
        if i + nodes >= self.len() {
            return (p0.number(), q0);
        }
        let (p1, q1) = (Numerators::of(self.integers(i + nodes)), self.denominators(i + nodes));
        (p0.times(q1).plus(p1.times(q0)), q0.times(q1))
    }

    /// Nodes of level depth − 2, which has `nodes`.
    #[inline(always)]
    fn two_above(&self, i: usize, nodes: usize) -> (N, N) {
        added(self.one_above(i, 2 * nodes), self.one_above(i + nodes, 2 * nodes))
    }

    /// The level `above` the leaves, 2 or 3.
    pub fn level(&self, depth: usize, above: usize) -> Level<N> {
        let nodes = 1 << (depth - above);
        Level::of(nodes / 2, |first, p, q| match above {
            2 => two_above(self, first, nodes, p, q),
            _ => three_above(self, first, nodes, p, q),
        })
    }
}

/// The sum of two fractions.
#[inline(always)]
fn added<N: Number>((p0, q0): (N, N), (p1, q1): (N, N)) -> (N, N) {
    (N::crossed(p0, p1, q0, q1), q0.times(q1))
}

/// The values at 0 and 2 of what is linear between 0 and 1.
#[inline(always)]
fn ends<N: Number>(low: N, high: N) -> [N; 2] {
    [low, N::at_two(low, high)]
}

/// The values at 0 and 2 of a table's number.
#[inline(always)]
fn pair<N: Number>(table: &[Stored<N>], x: usize, half: usize) -> [N; 2] {
    ends(N::load(&table[x]), N::load(&table[x + half]))
}

/// The same of leaves.
#[inline(always)]
fn leaf_pair<N: Number>(source: &Source<N>, i: usize, half: usize) -> ([Numerators<N>; 2], [N; 2]) {
    let low = Numerators::<N>::of(source.integers(i));
    let high = Numerators::<N>::of(source.integers(i + half));
    let two = match (low, high) {
        (Numerators::One, Numerators::One) => low,
        (Numerators::Zero, Numerators::Zero) => low,
        _ => Numerators::Others(N::at_two(low.number(), high.number())),
    };
    let (q, q_high) = (source.denominators(i), source.denominators(i + half));
    ([low, two], [q, N::at_two(q, q_high)])
}

/// The same of nodes above leaves.
#[inline(always)]
fn joined_pair<N: Number>(source: &Source<N>, i: usize, half: usize) -> ([N; 2], [N; 2]) {
    let low = source.one_above(i, 4 * half);
    let high = source.one_above(i + half, 4 * half);
    (ends(low.0, high.0), ends(low.1, high.1))
}

/// p₀q₁ + p₁q₀ + λq₀q₁
#[inline(always)]
fn summand<N: Number>(p0: Numerators<N>, p1: Numerators<N>, q0: N, q1: N, lambda: N) -> N {
    let crossed = p0.times(q1).plus(p1.times(q0));
    crossed.plus(lambda.times(q0.times(q1)))
}

/// Defines loops that are compiled twice: for any processor, and with AVX2. They have no closures:
/// a closure is a function of its own, without AVX2, into which none of its operations is inlined.
macro_rules! loops {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block
    )*) => {$(
        $(#[$doc])*
        fn $name<N: Number>($($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn plain<N: Number>($($arg: $type),*) $(-> $out)? $body
            #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
            fn wide<N: Number>($($arg: $type),*) $(-> $out)? {
                plain::<N>($($arg),*)
            }
            if N::LANES == 1 {
                return plain::<N>($($arg),*);
            }
            // SAFETY: `wide` is a safe function that requires a processor with AVX2. Numbers of
            // several lanes are used only where `lanes::available` found it (`tree::run`).
            #[allow(unused_unsafe)]
            unsafe {
                wide::<N>($($arg),*)
            }
        }
    )*};
}

loops! {
    fn two_above(
        source: &Source<N>, first: usize, nodes: usize, p: &mut [Stored<N>], q: &mut [Stored<N>],
    ) {
        for (at, (p, q)) in p.iter_mut().zip(q).enumerate() {
            let (of_p, of_q) = source.two_above(first + at * N::LANES, nodes);
            (*p, *q) = (of_p.store(), of_q.store());
        }
    }

    fn three_above(
        source: &Source<N>, first: usize, nodes: usize, p: &mut [Stored<N>], q: &mut [Stored<N>],
    ) {
        for (at, (p, q)) in p.iter_mut().zip(q).enumerate() {
            let i = first + at * N::LANES;
            let low = source.two_above(i, 2 * nodes);
            let high = source.two_above(i + nodes, 2 * nodes);
            let (of_p, of_q) = added(low, high);
            (*p, *q) = (of_p.store(), of_q.store());
        }
    }

    /// The level above a level, from the place `first` in memory on.
    fn above(
        of: &Level<N>, first: usize, p: &mut [Stored<N>], q: &mut [Stored<N>],
    ) {
        for (at, (p, q)) in p.iter_mut().zip(q).enumerate() {
            let i = first + at;
            let low = (N::load(&of.p[0].0[i]), N::load(&of.q[0].0[i]));
            let high = (N::load(&of.p[1].0[i]), N::load(&of.q[1].0[i]));
            let (of_p, of_q) = added(low, high);
            (*p, *q) = (of_p.store(), of_q.store());
        }
    }

    /// `p + λq`
    fn lift(p: &mut [Stored<N>], q: &[Stored<N>], lambda: Fe) {
        let lambda = N::splat(lambda);
        for (p, q) in p.iter_mut().zip(q) {
            *p = N::load(p).plus(lambda.times(N::load(q))).store();
        }
    }

    /// Fixes a variable: `low + r·(high − low)`.
    fn bind(low: &mut [Stored<N>], high: &[Stored<N>], r: Fe) {
        let weights = [N::splat(Fe::ONE - r), N::splat(r)];
        for (low, high) in low.iter_mut().zip(high) {
            *low = N::bound(N::load(low), N::load(high), weights).store();
        }
    }

    /// The same where the high numbers are all `rest`.
    fn bind_rest(low: &mut [Stored<N>], rest: Fe, r: Fe) {
        let (weight, rest) = (N::splat(Fe::ONE - r), N::splat(rest * r));
        for low in low.iter_mut() {
            *low = weight.times(N::load(low)).plus(rest).store();
        }
    }

    /// Leaves `i` and `i + half`, for `i` from `first` on, bound; with λ, p + λq instead of p.
    fn bind_leaves(
        source: &Source<N>, first: usize, half: usize, lambda: Option<Fe>, r: Fe,
        p: &mut [Stored<N>], q: &mut [Stored<N>],
    ) {
        let weights = [N::splat(Fe::ONE - r), N::splat(r)];
        let (is_upper, lambda) = (lambda.is_some(), N::splat(lambda.unwrap_or_default()));
        for (at, (p, q)) in p.iter_mut().zip(q).enumerate() {
            let i = first + at * N::LANES;
            let low = Numerators::<N>::of(source.integers(i));
            let high = Numerators::<N>::of(source.integers(i + half));
            let of_p = match (low, high) {
                (Numerators::One, Numerators::One) => low.number(),
                (Numerators::Zero, Numerators::Zero) => low.number(),
                _ => N::bound(low.number(), high.number(), weights),
            };
            let of_q =
                N::bound(source.denominators(i), source.denominators(i + half), weights);
            let of_p = if is_upper { of_p.plus(lambda.times(of_q)) } else { of_p };
            (*p, *q) = (of_p.store(), of_q.store());
        }
    }

    /// The same for nodes of the level above, of which there are `nodes`.
    fn bind_joined(
        source: &Source<N>, first: usize, half: usize, lambda: Option<Fe>, r: Fe,
        p: &mut [Stored<N>], q: &mut [Stored<N>],
    ) {
        let weights = [N::splat(Fe::ONE - r), N::splat(r)];
        let (is_upper, lambda) = (lambda.is_some(), N::splat(lambda.unwrap_or_default()));
        for (at, (p, q)) in p.iter_mut().zip(q).enumerate() {
            let i = first + at * N::LANES;
            let low = source.one_above(i, 4 * half);
            let high = source.one_above(i + half, 4 * half);
            let of_q = N::bound(low.1, high.1, weights);
            let of_p = N::bound(low.0, high.0, weights);
            let of_p = if is_upper { of_p.plus(lambda.times(of_q)) } else { of_p };
            (*p, *q) = (of_p.store(), of_q.store());
        }
    }

    /// `Σ_x eq(x)·t(x)` at 0 and 2, for places of tables from `first` on.
    fn sum_of_tables(
        tables: &[Hidden<Stored<N>>; 4], first: usize, half: usize, eq: &[Stored<N>], lambda: Fe,
    ) -> [Fe; 2] {
        let [p0, p1, q0, q1] = tables;
        let (p0, p1, q0, q1) = (&p0.0[..], &p1.0[..], &q0.0[..], &q1.0[..]);
        let (lambda, one) = (N::splat(lambda), N::one());
        let half = half / N::LANES;
        let mut sums = [N::Sum::default(); 2];
        for (x, weight) in (first / N::LANES..).zip(eq) {
            let (a, c): ([N; 2], [N; 2]) = (pair(p0, x, half), pair(q0, x, half));
            let values = if x >= p1.len() {
                [a[0].plus(lambda.times(c[0])), a[1].plus(lambda.times(c[1]))]
            } else {
                let (p_high, q_high) = match p1.get(x + half) {
                    Some(p) => (N::load(p), N::load(&q1[x + half])),
                    None => (lambda, one),
                };
                let (b, d) = (ends(N::load(&p1[x]), p_high), ends(N::load(&q1[x]), q_high));
                [N::crossed(a[0], b[0], c[0], d[0]), N::crossed(a[1], b[1], c[1], d[1])]
            };
            let weight = N::load(weight);
            for (sum, value) in sums.iter_mut().zip(values) {
                N::accumulate(sum, value, weight);
            }
        }
        [N::total(sums[0]), N::total(sums[1])]
    }

    /// The same for leaves.
    fn sum_of_leaves(
        source: &Source<N>, first: usize, half: usize, eq: &[Stored<N>], lambda: Fe,
    ) -> [Fe; 2] {
        let lambda = N::splat(lambda);
        let mut sums = [N::Sum::default(); 2];
        for (x, weight) in (first..).step_by(N::LANES).zip(eq) {
            let (p0, q0) = leaf_pair(source, x, half);
            let values = if x + 2 * half >= source.len() {
                [
                    p0[0].number().plus(lambda.times(q0[0])),
                    p0[1].number().plus(lambda.times(q0[1])),
                ]
            } else {
                let (p1, q1) = leaf_pair(source, x + 2 * half, half);
                [
                    summand(p0[0], p1[0], q0[0], q1[0], lambda),
                    summand(p0[1], p1[1], q0[1], q1[1], lambda),
                ]
            };
            let weight = N::load(weight);
            for (sum, value) in sums.iter_mut().zip(values) {
                N::accumulate(sum, value, weight);
            }
        }
        [N::total(sums[0]), N::total(sums[1])]
    }

    /// The same for the level above.
    fn sum_of_joined(
        source: &Source<N>, first: usize, half: usize, eq: &[Stored<N>], lambda: Fe,
    ) -> [Fe; 2] {
        let lambda = N::splat(lambda);
        let mut sums = [N::Sum::default(); 2];
        for (x, weight) in (first..).step_by(N::LANES).zip(eq) {
            let (a, c) = joined_pair(source, x, half);
            let (p1, d) = joined_pair(source, x + 2 * half, half);
            let b = [p1[0].plus(lambda.times(d[0])), p1[1].plus(lambda.times(d[1]))];
            let values =
                [N::crossed(a[0], b[0], c[0], d[0]), N::crossed(a[1], b[1], c[1], d[1])];
            let weight = N::load(weight);
            for (sum, value) in sums.iter_mut().zip(values) {
                N::accumulate(sum, value, weight);
            }
        }
        [N::total(sums[0]), N::total(sums[1])]
    }
}

/// Numerators and denominators of one level; the node i of the level above has the children i of
/// both halves.
pub struct Level<N: Number> {
    p: [Hidden<N::Stored>; 2],
    q: [Hidden<N::Stored>; 2],
}

/// Numerators and denominators of `count` fractions, which `fill` makes from a place on.
fn filled<N: Number>(
    count: usize,
    fill: impl Fn(usize, &mut [N::Stored], &mut [N::Stored]) + Sync,
) -> (Hidden<N::Stored>, Hidden<N::Stored>) {
    let count = count / N::LANES;
    let [mut p, mut q] = [(); 2].map(|()| vec![N::Stored::default(); count]);
    let tasks = p.par_chunks_mut(TASK).zip(q.par_chunks_mut(TASK)).enumerate();
    tasks.for_each(|(task, (p, q))| fill(task * TASK * N::LANES, p, q));
    (Hidden(p), Hidden(q))
}

impl<N: Number> Level<N> {
    /// A level of 2·`half` nodes.
    fn of(
        half: usize,
        fill: impl Fn(usize, &mut [N::Stored], &mut [N::Stored]) + Sync,
    ) -> Level<N> {
        let (p0, q0) = filled::<N>(half, &fill);
        let (p1, q1) = filled::<N>(half, |first, p, q| fill(half + first, p, q));
        Level { p: [p0, p1], q: [q0, q1] }
    }

    /// Half of its nodes.
    pub fn half(&self) -> usize {
        self.p[0].0.len() * N::LANES
    }

    /// The level above.
    pub fn above(&self) -> Level<N> {
        Level::of(self.half() / 2, |first, p, q| above(self, first / N::LANES, p, q))
    }

    /// The same, one element at a time.
    pub fn plain(&self) -> Level<Fe> {
        Level { p: self.p.each_ref().map(plain::<N>), q: self.q.each_ref().map(plain::<N>) }
    }

    /// p₀, p₁, q₀, q₁ of the first nodes.
    pub fn first(&self) -> [Fe; 4] {
        [&self.p[0], &self.p[1], &self.q[0], &self.q[1]].map(|half| plain::<N>(half).0[0])
    }
}

/// Numbers in memory, one element at a time.
fn plain<N: Number>(numbers: &Hidden<N::Stored>) -> Hidden<Fe> {
    let mut out = Vec::with_capacity(numbers.0.len() * N::LANES);
    numbers.0.iter().for_each(|stored| N::elements(stored, |element| out.push(element)));
    Hidden(out)
}

/// What the prover knows of a level.
pub enum Nodes<'a, N: Number> {
    /// The leaves.
    Leaves(&'a Source<N>),
    /// The level above them.
    Joined(&'a Source<N>),
    /// A level.
    Level(Level<N>),
}

/// The two halves of a level, with some variables bound.
pub struct Halves<'a, N: Number> {
    /// What the tables are made from when the first variable is bound.
    source: Option<Made<'a, N>>,
    /// p₀, p₁ + λq₁, q₀, q₁. The second and the fourth may be shorter: behind them, p₁ is 0 and q₁
    /// is 1.
    tables: [Hidden<N::Stored>; 4],
    lambda: Fe,
    eq: Eq<N>,
}

/// A level that is not stored.
enum Made<'a, N: Number> {
    Leaves(&'a Source<N>),
    Joined(&'a Source<N>),
}

impl<'a, N: Number> Halves<'a, N> {
    /// Of a level below nodes at a point.
    pub fn new(nodes: Nodes<'a, N>, lambda: Fe, point: &[Fe]) -> Halves<'a, N> {
        let eq = Eq::new(&point[1..]);
        let none = || [(); 4].map(|()| Hidden(vec![]));
        let (source, tables) = match nodes {
            Nodes::Leaves(source) => (Some(Made::Leaves(source)), none()),
            Nodes::Joined(source) => (Some(Made::Joined(source)), none()),
            Nodes::Level(Level { p: [p0, mut p1], q: [q0, q1] }) => {
                let tasks = p1.0.par_chunks_mut(TASK).zip(q1.0.par_chunks(TASK));
                tasks.for_each(|(p, q)| lift::<N>(p, q, lambda));
                (None, [p0, p1, q0, q1])
            }
        };
        Halves { source, tables, lambda, eq }
    }

    /// Whether one element at a time is fast enough from here on.
    pub fn is_small(&self) -> bool {
        self.source.is_none() && self.eq.len() < FEW
    }

    /// The same, one element at a time.
    pub fn plain(self) -> Halves<'static, Fe> {
        let Halves { tables, lambda, eq, .. } = self;
        let low: Vec<Fe> = plain::<N>(&Hidden(eq.low)).0.clone();
        let eq = Eq { high: eq.high, low };
        Halves { source: None, tables: tables.each_ref().map(plain::<N>), lambda, eq }
    }

    /// t(0) and t(2) of a round.
    pub fn round(&self) -> [Fe; 2] {
        let (half, lambda) = (self.eq.len(), self.lambda);
        self.eq.sum(|first, eq| match &self.source {
            None => sum_of_tables::<N>(&self.tables, first, half, eq, lambda),
            Some(Made::Leaves(source)) => sum_of_leaves(source, first, half, eq, lambda),
            Some(Made::Joined(source)) => sum_of_joined(source, first, half, eq, lambda),
        })
    }

    /// Fixes the most significant variable.
    pub fn bind(&mut self, r: Fe) {
        let half = self.eq.len();
        match self.source.take() {
            None => {
                let [p0, p1, q0, q1] = &mut self.tables;
                for (table, rest) in
                    [(p0, Fe::ZERO), (p1, self.lambda), (q0, Fe::ONE), (q1, Fe::ONE)]
                {
                    bind_table::<N>(table, half, rest, r);
                }
            }
            Some(made) => {
                let upper = match made {
                    Made::Joined(_) => half,
                    Made::Leaves(source) => {
                        source.len().saturating_sub(2 * half).clamp(N::LANES, half)
                    }
                };
                let fill = |first, lambda, p: &mut [N::Stored], q: &mut [N::Stored]| match &made {
                    Made::Leaves(source) => bind_leaves(source, first, half, lambda, r, p, q),
                    Made::Joined(source) => bind_joined(source, first, half, lambda, r, p, q),
                };
                let lambda = Some(self.lambda);
                let (p0, q0) = filled::<N>(half, |first, p, q| fill(first, None, p, q));
                let (p1, q1) =
                    filled::<N>(upper, |first, p, q| fill(first + 2 * half, lambda, p, q));
                self.tables = [p0, p1, q0, q1];
            }
        }
        self.eq.halve();
    }

    /// p₀, p₁, q₀, q₁ at the end.
    pub fn ends(self) -> [Fe; 4] {
        let [p0, p1, q0, q1] = self.tables.each_ref().map(|table| plain::<N>(table).0[0]);
        [p0, p1 - self.lambda * q1, q0, q1]
    }
}

/// Fixes the most significant variable of a table of 2·`half` elements, of which the last are
/// `rest` and not stored.
fn bind_table<N: Number>(table: &mut Hidden<N::Stored>, half: usize, rest: Fe, r: Fe) {
    let half = half / N::LANES;
    let kept = table.0.len().min(half);
    let stored = table.0.len() - kept;
    let (low, high) = table.0.split_at_mut(kept);
    // Only the first of the low numbers have a high one in memory.
    let (low, rest_of_low) = low.split_at_mut(stored);
    low.par_chunks_mut(TASK).zip(high.par_chunks_mut(TASK)).for_each(|(low, high)| {
        bind::<N>(low, high, r);
        high.fill(N::Stored::default());
    });
    rest_of_low.par_chunks_mut(TASK).for_each(|low| bind_rest::<N>(low, rest, r));
    table.0.truncate(kept);
}

/// `eq(point, i)` as a product of the weights of high and of low variables.
struct Eq<N: Number> {
    high: Vec<Fe>,
    low: Vec<N::Stored>,
}

impl<N: Number> Eq<N> {
    fn new(point: &[Fe]) -> Eq<N> {
        let (high, low) = point.split_at(point.len().saturating_sub(LOW));
        let low = eq_table(low, Fe::ONE);
        Eq { high: eq_table(high, Fe::ONE), low: low.chunks(N::LANES).map(N::stored).collect() }
    }

    fn len(&self) -> usize {
        self.high.len() * self.low.len() * N::LANES
    }

    /// The weights of all variables but the first.
    fn halve(&mut self) {
        if self.high.len() > 1 {
            let half = self.high.len() / 2;
            let (low, high) = self.high.split_at_mut(half);
            low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
            self.high.truncate(half);
        } else {
            let half = self.low.len() / 2;
            let (low, high) = self.low.split_at_mut(half);
            for (low, high) in low.iter_mut().zip(high) {
                *low = N::load(low).plus(N::load(high)).store();
            }
            self.low.truncate(half.max(1));
        }
    }

    /// `Σ_i eq(point, i)·values(i)`; `sums` has the sums with the low weights, from a place on.
    fn sum(&self, sums: impl Fn(usize, &[N::Stored]) -> [Fe; 2] + Sync) -> [Fe; 2] {
        let width = self.low.len() * N::LANES;
        let each = self.high.par_iter().enumerate().with_min_len(4);
        let each = each.map(|(at, factor)| sums(at * width, &self.low).map(|sum| sum * *factor));
        each.reduce(|| [Fe::ZERO; 2], |a, b| [a[0] + b[0], a[1] + b[1]])
    }
}
