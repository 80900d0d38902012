//! The prover's side of the tree of fractions: levels, and the sums of their sumchecks
//! (docs/inference-proof.md, "Lookups").
//!
//! Nodes lie in blocks of four. Blocks 2j and 2j + 1 of a level have the parents of block j, so the
//! fractions 0/1 behind the last leaf are behind the last node of each level and not stored.
//!
//! The leaves are integers and places in a list of denominators. Neither they nor the level above
//! are ever stored as field elements. Most denominators are linear in an index: what follows from
//! them is computed from integers ([`Number::form`]).
#![allow(unsafe_code)]

use ff::Field;
use rayon::prelude::*;
use zeroize::Zeroize;
use zklora_proof::field::F;

use crate::{
    fe::{Fe, Wiped, eq_table},
    lanes::{LANES, Number},
};

/// Blocks that one task computes.
const TASK: usize = 1 << 10;
/// Parents of a chunk when it is made.
const CHUNK: usize = 1 << 7;
/// Parents of a chunk that is joined with others.
const SHORT: usize = 1 << 3;
/// The leaves are filled up to a multiple of this, so that the loops over them have no rest.
const WHOLE: usize = 64;

/// Numbers that one task overwrites.
const FILL: usize = 1 << 12;

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
    /// How many of the first are linear in their place: at most 2^16.
    pub linear: usize,
}

impl Leaves {
    fn whole(&mut self) {
        let count = self.codes.len().next_multiple_of(WHOLE);
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
pub struct Hidden<S: Copy + Default + Send>(Vec<S>);

impl<S: Copy + Default + Send> Hidden<S> {
    fn new(count: usize) -> Hidden<S> {
        Hidden((0..count).into_par_iter().map(|_| S::default()).collect())
    }
}

impl<S: Copy + Default + Send> Drop for Hidden<S> {
    fn drop(&mut self) {
        self.0.par_chunks_mut(FILL).for_each(|part| part.fill(S::default()));
        std::hint::black_box(&mut self.0);
    }
}

/// `constant + Σ factor·integer`
struct Form<N: Number, const K: usize> {
    constant: N::Entry,
    factors: [N::Entry; K],
}

impl<N: Number, const K: usize> Form<N, K> {
    fn new<const STEPS: usize>(constant: Fe, factors: [Fe; K]) -> Form<N, K> {
        let factors = factors.map(N::coefficient::<STEPS>);
        Form { constant: N::coefficient::<STEPS>(constant), factors }
    }

    #[inline(always)]
    fn at<const STEPS: usize>(&self, integers: [N::Integers; K]) -> N {
        N::form::<K, STEPS>(&self.constant, &self.factors, integers)
    }
}

/// The leaves, as the loops read them.
pub struct Source<N: Number> {
    leaves: Leaves,
    entries: Hidden<N::Entry>,
    /// The denominator at an index.
    linear: Form<N, 1>,
    /// The sum and the product of two of them, from the indices' sum and product.
    sum: Form<N, 1>,
    product: Form<N, 2>,
    /// The first denominator, and what each adds to the one before.
    first: Fe,
    step: Fe,
}

/// Whether all integers are the same one.
#[inline(always)]
fn all(integers: &[i32], one: i32) -> bool {
    integers.iter().fold(0, |different, n| different | (n ^ one)) == 0
}

/// The numerators of some blocks, with weights.
#[inline(never)]
fn others<N: Number>(integers: &[i32], weights: &[Fe]) -> Stored<N> {
    let element = |at: usize| {
        let each = integers.iter().skip(at).step_by(2 * LANES).zip(weights);
        each.map(|(n, weight)| Fe::of(i64::from(*n)) * *weight).sum()
    };
    N::stored(std::array::from_fn(element))
}

impl<N: Number> Source<N> {
    /// Prepares leaves.
    pub fn new(mut leaves: Leaves) -> Source<N> {
        leaves.whole();
        let entries = leaves.denominators.par_iter().map(|element| N::entry(*element)).collect();
        let (first, step) = match &leaves.denominators[..] {
            [first, second, ..] => (*first, *second - *first),
            _ => (Fe::ZERO, Fe::ZERO),
        };
        Source {
            entries: Hidden(entries),
            linear: Form::new::<1>(first, [step]),
            sum: Form::new::<1>(first.double(), [step]),
            product: Form::new::<2>(first * first, [first * step, step * step]),
            first,
            step,
            leaves,
        }
    }

    /// Blocks of leaves.
    fn blocks(&self) -> usize {
        self.leaves.codes.len() / LANES
    }

    /// Numerators and codes of some blocks.
    #[inline(always)]
    fn at(&self, block: usize, count: usize) -> (&[i32], &[u32]) {
        let range = block * LANES..(block + count) * LANES;
        (&self.leaves.numerators[range.clone()], &self.leaves.codes[range])
    }

    #[inline(always)]
    fn is_linear(&self, codes: &[u32]) -> bool {
        codes.iter().fold(0, |most, code| (*code).max(most)) < self.leaves.linear as u32
    }

    /// Denominators of a block.
    #[inline(always)]
    fn denominators(&self, codes: &[u32], is_linear: bool) -> N {
        match is_linear {
            true => self.linear.at::<1>([N::integers(codes)]),
            false => N::gather(&self.entries.0, codes),
        }
    }

    /// Block `j` of the level above the leaves.
    #[inline(always)]
    fn node(&self, j: usize) -> (N, N) {
        let (numerators, codes) = self.at(2 * j, 2);
        let (is_linear, is_one) = (self.is_linear(codes), all(numerators, 1));
        if is_linear && is_one {
            let (sum, product) = combined::<N>(codes);
            return (self.sum.at::<1>([sum]), self.product.at::<2>([sum, product]));
        }
        let q0 = self.denominators(codes, is_linear);
        let q1 = self.denominators(&codes[LANES..], is_linear);
        let p = if is_one {
            q0.plus(q1)
        } else if all(numerators, 0) {
            N::zero()
        } else {
            let p0 = others::<N>(numerators, &[Fe::ONE]);
            let p1 = others::<N>(&numerators[LANES..], &[Fe::ONE]);
            N::crossed(N::load(&p0), N::load(&p1), q0, q1)
        };
        (p, q0.times(q1))
    }

    /// The level two above the leaves.
    pub fn two_above(&self) -> Level<N> {
        Level::of(self.blocks() / 4, |first, p, q| two_above(self, first, p, q))
    }
}

/// Sums and products of the codes of two blocks.
#[inline(always)]
fn combined<N: Number>(codes: &[u32]) -> (N::Integers, N::Integers) {
    let (low, high) = (N::integers(codes), N::integers(&codes[LANES..]));
    (N::sum_of(low, high), N::product_of(low, high))
}

/// The sum of two fractions.
#[inline(always)]
fn added<N: Number>((p0, q0): (N, N), (p1, q1): (N, N)) -> (N, N) {
    (N::crossed(p0, p1, q0, q1), q0.times(q1))
}

/// What a sumcheck knows of a block of parents: p₀, p₁ + λq₁, q₀ and q₁ of their children.
type Parents<N> = [N; 4];

/// The same in memory.
type Cell<N> = [Stored<N>; 4];

/// A level whose parents are read block by block.
trait Read<N: Number>: Sync {
    /// Block `y` of the parents.
    fn at(&self, y: usize) -> Parents<N>;
}

/// Of parents of fractions 0/1.
#[inline(always)]
fn nothing<N: Number>(lambda: Fe) -> Parents<N> {
    [N::zero(), N::splat(lambda), N::one(), N::one()]
}

/// A stored level, with p + λq instead of p in every second block.
struct Lifted<'a, N: Number> {
    level: &'a Level<N>,
    lambda: Fe,
}

impl<N: Number> Read<N> for Lifted<'_, N> {
    #[inline(always)]
    fn at(&self, y: usize) -> Parents<N> {
        let (p, q) = (&self.level.p.0[..], &self.level.q.0[..]);
        if 2 * y >= p.len() {
            return nothing(self.lambda);
        }
        let (p0, q0) = (N::load(&p[2 * y]), N::load(&q[2 * y]));
        if 2 * y + 1 >= p.len() {
            return [p0, N::splat(self.lambda), q0, N::one()];
        }
        [p0, N::load(&p[2 * y + 1]), q0, N::load(&q[2 * y + 1])]
    }
}

/// The level above the leaves.
pub struct Joined<'a, N: Number> {
    source: &'a Source<N>,
    /// p + λq, from the indices' sum and product.
    lifted: Form<N, 2>,
    lambda: Fe,
}

impl<'a, N: Number> Joined<'a, N> {
    fn new(source: &'a Source<N>, lambda: Fe) -> Joined<'a, N> {
        let Source { first, step, .. } = *source;
        let constant = first.double() + lambda * first * first;
        let factors = [step + lambda * first * step, lambda * step * step];
        Joined { source, lifted: Form::new::<2>(constant, factors), lambda }
    }
}

impl<N: Number> Read<N> for Joined<'_, N> {
    #[inline(always)]
    fn at(&self, y: usize) -> Parents<N> {
        let (numerators, codes) = self.source.at(4 * y, 4);
        let (p0, q0) = self.source.node(2 * y);
        if self.source.is_linear(codes) && all(numerators, 1) {
            let (sum, product) = combined::<N>(&codes[2 * LANES..]);
            let q1 = self.source.product.at::<2>([sum, product]);
            return [p0, self.lifted.at::<2>([sum, product]), q0, q1];
        }
        let (p1, q1) = self.source.node(2 * y + 1);
        [p0, p1.plus(N::splat(self.lambda).times(q1)), q0, q1]
    }
}

/// The leaves in `K` blocks of parents that are bound to one, with weights. What a sumcheck knows
/// of them is p₀ + λq₀, p₁ + λq₁, p₀ and p₁; λ times its summand is the product of the first two
/// less that of the others.
struct Bound<'a, N: Number, const K: usize> {
    source: &'a Source<N>,
    /// λ·q
    entries: &'a [N::Entry],
    /// λ·q and 1 + λ·q, from indices.
    linear: [Form<N, K>; 2],
    weights: [Fe; K],
}

impl<'a, N: Number, const K: usize> Bound<'a, N, K> {
    fn new(leaves: &'a Scaled<'_, N>, weights: [Fe; K]) -> Bound<'a, N, K> {
        let Scaled { source, entries, lambda } = leaves;
        let factors = weights.map(|weight| weight * *lambda * source.step);
        let constant = *lambda * source.first;
        let linear = [constant, constant + Fe::ONE].map(|c| Form::new::<1>(c, factors));
        Bound { source, entries: &entries.0, linear, weights }
    }

    /// λ·q of blocks, and whether 1 was added.
    #[inline(always)]
    fn scaled(&self, codes: &[u32], is_linear: bool, is_one: bool) -> N {
        if is_linear {
            let mut integers = [N::integers(codes); K];
            for (k, integers) in integers.iter_mut().enumerate().skip(1) {
                *integers = N::integers(&codes[2 * k * LANES..]);
            }
            return self.linear[usize::from(is_one)].at::<1>(integers);
        }
        let mut sum = N::gather(self.entries, codes);
        if K > 1 {
            sum = sum.times(N::splat(self.weights[0]));
            for k in 1..K {
                let q = N::gather(self.entries, &codes[2 * k * LANES..]);
                sum = sum.plus(q.times(N::splat(self.weights[k])));
            }
        }
        if is_one { sum.plus(N::one()) } else { sum }
    }

    /// Block `y`; without p₀ and p₁ if these are 1.
    #[inline(always)]
    fn at(&self, y: usize) -> ([N; 2], Option<[N; 2]>) {
        let (numerators, codes) = self.source.at(2 * K * y, 2 * K);
        let (is_linear, is_one) = (self.source.is_linear(codes), all(numerators, 1));
        let a0 = self.scaled(codes, is_linear, is_one);
        let a1 = self.scaled(&codes[LANES..], is_linear, is_one);
        if is_one {
            return ([a0, a1], None);
        }
        if all(numerators, 0) {
            return ([a0, a1], Some([N::zero(), N::zero()]));
        }
        let p0 = N::load(&others::<N>(numerators, &self.weights));
        let p1 = N::load(&others::<N>(&numerators[LANES..], &self.weights));
        ([a0.plus(p0), a1.plus(p1)], Some([p0, p1]))
    }
}

/// The leaves with their denominators times λ.
pub struct Scaled<'a, N: Number> {
    source: &'a Source<N>,
    entries: Hidden<N::Entry>,
    lambda: Fe,
}

impl<'a, N: Number> Scaled<'a, N> {
    fn new(source: &'a Source<N>, lambda: Fe) -> Scaled<'a, N> {
        let each = source.leaves.denominators.par_iter();
        let entries = Hidden(each.map(|q| N::entry(lambda * *q)).collect());
        Scaled { source, entries, lambda }
    }
}

/// Sums of summands' values at 0 and 2.
type Sums<N> = [<N as Number>::Sum; 2];

/// Adds the values at 0 and 2 of `Σ a·d + b·c`, times a weight, where all are linear.
#[inline(always)]
fn add_pair<N: Number>(sums: &mut Sums<N>, low: Parents<N>, high: Parents<N>, weight: N) {
    let [a, b, c, d] = low;
    N::accumulate(&mut sums[0], N::crossed(a, b, c, d), weight);
    let (a, b) = (N::at_two(a, high[0]), N::at_two(b, high[1]));
    let (c, d) = (N::at_two(c, high[2]), N::at_two(d, high[3]));
    N::accumulate(&mut sums[1], N::crossed(a, b, c, d), weight);
}

/// The same for products of two numbers.
#[inline(always)]
fn add_products<N: Number>(sums: &mut Sums<N>, low: [N; 2], high: [N; 2], weight: N) {
    N::accumulate(&mut sums[0], low[0].times(low[1]), weight);
    let (a, b) = (N::at_two(low[0], high[0]), N::at_two(low[1], high[1]));
    N::accumulate(&mut sums[1], a.times(b), weight);
}

/// Parents between two.
#[inline(always)]
fn between<N: Number>(low: Parents<N>, high: Parents<N>, weights: [N; 2]) -> Parents<N> {
    [
        N::bound(low[0], high[0], weights),
        N::bound(low[1], high[1], weights),
        N::bound(low[2], high[2], weights),
        N::bound(low[3], high[3], weights),
    ]
}

#[inline(always)]
fn stored<N: Number>(parents: Parents<N>) -> Cell<N> {
    [parents[0].store(), parents[1].store(), parents[2].store(), parents[3].store()]
}

/// Cell `y` of those that are stored.
#[inline(always)]
fn cell<N: Number>(cells: &[Cell<N>], count: usize, y: usize, lambda: Fe) -> Parents<N> {
    if y >= count {
        return nothing(lambda);
    }
    let [a, b, c, d] = &cells[y];
    [N::load(a), N::load(b), N::load(c), N::load(d)]
}

/// p₀ and p₁, which are 1 if they are not there.
#[inline(always)]
fn numerators<N: Number>(of: Option<[N; 2]>) -> [N; 2] {
    match of {
        Some(numerators) => numerators,
        None => [N::one(), N::one()],
    }
}

/// Adds to the sums of p₀p₁ if not all are 1, else to the sum of the weights.
#[inline(always)]
fn add_numerators<N: Number>(
    sums: &mut [N::Sum; 3],
    low: Option<[N; 2]>,
    high: Option<[N; 2]>,
    weight: N,
) {
    if low.is_none() && high.is_none() {
        N::add(&mut sums[2], weight);
        return;
    }
    let (low, high) = (numerators(low), numerators(high));
    let mut pair = [sums[0], sums[1]];
    add_products(&mut pair, low, high, weight);
    [sums[0], sums[1]] = pair;
}

/// Sums of leaves' summands times λ, from sums of both products.
#[inline(always)]
fn leaf_sums<N: Number>(products: Sums<N>, of_numerators: [N::Sum; 3]) -> [Fe; 2] {
    let ones = N::total(of_numerators[2]);
    [
        N::total(products[0]) - N::total(of_numerators[0]) - ones,
        N::total(products[1]) - N::total(of_numerators[1]) - ones,
    ]
}

/// Defines loops that are compiled twice: for any processor, and with AVX2. They have no closures:
/// a closure is a function of its own, without AVX2, into which none of its operations is inlined.
macro_rules! loops {
    ($(
        $(#[$doc:meta])*
        fn $name:ident<N $(; $generic:ident: $bound:ident)? $(, const $K:ident)?>(
            $($arg:ident: $type:ty),* $(,)?
        ) $(-> $out:ty)? $body:block
    )*) => {$(
        $(#[$doc])*
        fn $name<N: Number $(, $generic: $bound<N>)? $(, const $K: usize)?>(
            $($arg: $type),*
        ) $(-> $out)? {
            #[inline(always)]
            fn plain<N: Number $(, $generic: $bound<N>)? $(, const $K: usize)?>(
                $($arg: $type),*
            ) $(-> $out)? $body
            #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
            fn wide<N: Number $(, $generic: $bound<N>)? $(, const $K: usize)?>(
                $($arg: $type),*
            ) $(-> $out)? {
                plain::<N $(, $generic)? $(, $K)?>($($arg),*)
            }
            if !N::WIDE {
                return plain::<N $(, $generic)? $(, $K)?>($($arg),*);
            }
            // SAFETY: `wide` is a safe function that requires a processor with AVX2. Wide numbers
            // are used only where `lanes::available` found it (`tree::run`).
            #[allow(unused_unsafe)]
            unsafe {
                wide::<N $(, $generic)? $(, $K)?>($($arg),*)
            }
        }
    )*};
}

loops! {
    fn two_above<N>(
        source: &Source<N>, first: usize, p: &mut [Stored<N>], q: &mut [Stored<N>],
    ) {
        for ((p, q), j) in p.iter_mut().zip(q).zip(first..) {
            let (of_p, of_q) = added(source.node(2 * j), source.node(2 * j + 1));
            (*p, *q) = (of_p.store(), of_q.store());
        }
    }

    /// The level above a level, from a block on.
    fn above<N>(of: &Level<N>, first: usize, p: &mut [Stored<N>], q: &mut [Stored<N>]) {
        for ((p, q), j) in p.iter_mut().zip(q).zip(first..) {
            if 2 * j + 1 >= of.p.0.len() {
                (*p, *q) = (of.p.0[2 * j], of.q.0[2 * j]);
                continue;
            }
            let low = (N::load(&of.p.0[2 * j]), N::load(&of.q.0[2 * j]));
            let high = (N::load(&of.p.0[2 * j + 1]), N::load(&of.q.0[2 * j + 1]));
            let (of_p, of_q) = added(low, high);
            (*p, *q) = (of_p.store(), of_q.store());
        }
    }

    /// `p + λq` in every second block.
    fn lift<N>(p: &mut [Stored<N>], q: &[Stored<N>], lambda: Fe) {
        let lambda = N::splat(lambda);
        for (p, q) in p.iter_mut().zip(q).skip(1).step_by(2) {
            *p = N::load(p).plus(lambda.times(N::load(q))).store();
        }
    }

    /// `Σ_x eq(x)·t(x)` at 0 and 2, for pairs of parents from `first` on.
    fn sum<N; P: Read>(parents: &P, first: usize, eq: &[Stored<N>]) -> [Fe; 2] {
        let mut sums = [N::Sum::default(); 2];
        for (weight, x) in eq.iter().zip(first..) {
            add_pair(&mut sums, parents.at(2 * x), parents.at(2 * x + 1), N::load(weight));
        }
        [N::total(sums[0]), N::total(sums[1])]
    }

    /// Binds pairs of parents from `first` on, and the same sums for the next round.
    fn bind<N; P: Read>(
        parents: &P, first: usize, r: Fe, eq: &[Stored<N>], out: &mut [Cell<N>],
    ) -> [Fe; 2] {
        let weights = [N::splat(Fe::ONE - r), N::splat(r)];
        let mut sums = [N::Sum::default(); 2];
        for (z, out) in out.chunks_mut(2).enumerate() {
            let y = 2 * first + 4 * z;
            let low = between(parents.at(y), parents.at(y + 1), weights);
            out[0] = stored(low);
            if let Some(weight) = eq.get(z) {
                let high = between(parents.at(y + 2), parents.at(y + 3), weights);
                if let Some(out) = out.get_mut(1) {
                    *out = stored(high);
                }
                add_pair(&mut sums, low, high, N::load(weight));
            }
        }
        [N::total(sums[0]), N::total(sums[1])]
    }

    /// The same within a chunk of `count` parents.
    fn fold<N>(
        cells: &mut [Cell<N>], count: usize, lambda: Fe, r: Fe, eq: &[Stored<N>],
    ) -> [Fe; 2] {
        let weights = [N::splat(Fe::ONE - r), N::splat(r)];
        let mut sums = [N::Sum::default(); 2];
        let bound = count.div_ceil(2);
        for z in 0..bound.div_ceil(2) {
            let y = 4 * z;
            let low = cell(cells, count, y, lambda);
            let low = between(low, cell(cells, count, y + 1, lambda), weights);
            let high = cell(cells, count, y + 2, lambda);
            let high = between(high, cell(cells, count, y + 3, lambda), weights);
            cells[2 * z] = stored(low);
            if 2 * z + 1 < bound {
                cells[2 * z + 1] = stored(high);
            }
            if let Some(weight) = eq.get(z) {
                add_pair(&mut sums, low, high, N::load(weight));
            }
        }
        [N::total(sums[0]), N::total(sums[1])]
    }

    /// λ times the sums of leaves' summands.
    fn sum_of_leaves<N, const K>(
        leaves: &Bound<'_, N, K>, first: usize, eq: &[Stored<N>],
    ) -> [Fe; 2] {
        let (mut products, mut of_numerators) = ([N::Sum::default(); 2], [N::Sum::default(); 3]);
        for (weight, x) in eq.iter().zip(first..) {
            let weight = N::load(weight);
            let (low, high) = (leaves.at(2 * x), leaves.at(2 * x + 1));
            add_products(&mut products, low.0, high.0, weight);
            add_numerators::<N>(&mut of_numerators, low.1, high.1, weight);
        }
        leaf_sums::<N>(products, of_numerators)
    }

    /// Stores bound leaves from `first` on, with sums for the next round.
    fn bind_leaves<N, const K>(
        leaves: &Bound<'_, N, K>, first: usize, eq: &[Stored<N>], out: &mut LeafChunk<N>,
    ) -> [Fe; 2] {
        let (mut products, mut of_numerators) = ([N::Sum::default(); 2], [N::Sum::default(); 3]);
        for (z, weight) in eq.iter().enumerate() {
            let (low, high) = (leaves.at(first + 2 * z), leaves.at(first + 2 * z + 1));
            for (at, (a, p)) in [low, high].into_iter().enumerate() {
                out.a.0[2 * z + at] = [a[0].store(), a[1].store()];
                if !out.p.0.is_empty() {
                    let p = numerators(p);
                    out.p.0[2 * z + at] = [p[0].store(), p[1].store()];
                }
            }
            let weight = N::load(weight);
            add_products(&mut products, low.0, high.0, weight);
            add_numerators::<N>(&mut of_numerators, low.1, high.1, weight);
        }
        leaf_sums::<N>(products, of_numerators)
    }

    /// Binds pairs of parents within a chunk of leaves, with sums for the next round.
    fn fold_leaves<N>(
        chunk: &mut LeafChunk<N>, lambda: Fe, r: Fe, eq: &[Stored<N>],
    ) -> [Fe; 2] {
        let weights = [N::splat(Fe::ONE - r), N::splat(r)];
        let rests = [[N::splat(lambda); 2], [N::zero(); 2]];
        let (mut products, mut of_numerators) = ([N::Sum::default(); 2], [N::Sum::default(); 3]);
        let bound = chunk.count.div_ceil(2);
        for (z, weight) in eq.iter().enumerate().take(bound.div_ceil(2)) {
            let weight = N::load(weight);
            let low = leaf_pair(&mut chunk.a, chunk.count, 2 * z, rests[0], weights);
            let high = leaf_pair(&mut chunk.a, chunk.count, 2 * z + 1, rests[0], weights);
            add_products(&mut products, low, high, weight);
            if chunk.p.0.is_empty() {
                N::add(&mut of_numerators[2], weight);
            } else {
                let low = leaf_pair(&mut chunk.p, chunk.count, 2 * z, rests[1], weights);
                let high = leaf_pair(&mut chunk.p, chunk.count, 2 * z + 1, rests[1], weights);
                add_numerators::<N>(&mut of_numerators, Some(low), Some(high), weight);
            }
        }
        chunk.count = bound;
        leaf_sums::<N>(products, of_numerators)
    }

    /// Parents of leaves as those of other levels.
    fn same_as_others<N>(chunk: &LeafChunk<N>, inverse: Fe, out: &mut [Cell<N>]) {
        let (minus, inverse) = (N::splat(-Fe::ONE), N::splat(inverse));
        for (y, out) in out.iter_mut().enumerate() {
            let [a0, a1] = &chunk.a.0[y];
            let (a0, a1) = (N::load(a0), N::load(a1));
            let (mut p0, mut p1) = (N::one(), N::one());
            if let Some([of_p0, of_p1]) = chunk.p.0.get(y) {
                (p0, p1) = (N::load(of_p0), N::load(of_p1));
            }
            let q0 = a0.plus(minus.times(p0)).times(inverse);
            let q1 = a1.plus(minus.times(p1)).times(inverse);
            *out = [p0.store(), a1.store(), q0.store(), q1.store()];
        }
    }
}

/// Binds the numbers of two parents of leaves in place.
#[inline(always)]
fn leaf_pair<N: Number>(
    numbers: &mut Hidden<[Stored<N>; 2]>,
    count: usize,
    y: usize,
    rest: [N; 2],
    weights: [N; 2],
) -> [N; 2] {
    if 2 * y >= count {
        return rest;
    }
    let [low0, low1] = &numbers.0[2 * y];
    let (mut high0, mut high1) = (rest[0], rest[1]);
    if 2 * y + 1 < count {
        let [of_high0, of_high1] = &numbers.0[2 * y + 1];
        (high0, high1) = (N::load(of_high0), N::load(of_high1));
    }
    let bound0 = N::bound(N::load(low0), high0, weights);
    let bound1 = N::bound(N::load(low1), high1, weights);
    numbers.0[y] = [bound0.store(), bound1.store()];
    [bound0, bound1]
}

/// Numerators and denominators of one level, in blocks of four.
pub struct Level<N: Number> {
    p: Hidden<N::Stored>,
    q: Hidden<N::Stored>,
}

impl<N: Number> Level<N> {
    /// A level of some blocks, which `fill` makes from a block on.
    fn of(
        blocks: usize,
        fill: impl Fn(usize, &mut [N::Stored], &mut [N::Stored]) + Sync,
    ) -> Level<N> {
        let (mut p, mut q) = (Hidden::new(blocks), Hidden::new(blocks));
        let tasks = p.0.par_chunks_mut(TASK).zip(q.0.par_chunks_mut(TASK)).enumerate();
        tasks.for_each(|(task, (p, q))| fill(task * TASK, p, q));
        Level { p, q }
    }

    /// Its blocks.
    pub fn blocks(&self) -> usize {
        self.p.0.len()
    }

    /// The level above.
    pub fn above(&self) -> Level<N> {
        Level::of(self.blocks().div_ceil(2), |first, p, q| above(self, first, p, q))
    }

    /// p₀, p₁, q₀, q₁ of the two nodes above the first four.
    pub fn top(&self) -> [Fe; 4] {
        let (p, q) = (N::elements(&self.p.0[0]), N::elements(&self.q.0[0]));
        [p[0] * q[2] + p[2] * q[0], p[1] * q[3] + p[3] * q[1], q[0] * q[2], q[1] * q[3]]
    }

    /// The level of four nodes, of which each parent has one of the first two and one of the last.
    fn halves(&self, lambda: Fe) -> Few {
        let (p, q) = (N::elements(&self.p.0[0]), N::elements(&self.q.0[0]));
        let lifted = |at: usize| p[at] + lambda * q[at];
        Few([
            Wiped(vec![p[0], p[1]]),
            Wiped(vec![lifted(2), lifted(3)]),
            Wiped(vec![q[0], q[1]]),
            Wiped(vec![q[2], q[3]]),
        ])
    }
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

/// Some parents of leaves.
struct LeafChunk<N: Number> {
    a: Hidden<[Stored<N>; 2]>,
    /// Numerators; none if all are 1.
    p: Hidden<[Stored<N>; 2]>,
    count: usize,
}

/// Parents of leaves in chunks.
struct Chunks<N: Number> {
    chunks: Vec<LeafChunk<N>>,
    /// Parents of a chunk; the last may have fewer.
    width: usize,
}

/// Parents in memory, in chunks of which the first `width` cells are used.
struct Cells<N: Number> {
    cells: Hidden<Cell<N>>,
    /// Cells of a chunk.
    stride: usize,
    /// Parents of a chunk; the last may have fewer.
    width: usize,
    /// All parents.
    count: usize,
}

impl<N: Number> Cells<N> {
    fn new(count: usize) -> Cells<N> {
        Cells { cells: Hidden::new(count), stride: CHUNK, width: CHUNK, count }
    }

    /// Short chunks are joined.
    fn join(&mut self) {
        if self.width > SHORT {
            return;
        }
        if self.count <= self.width {
            self.width = CHUNK;
            return;
        }
        let mut joined = Hidden::new(self.count);
        let chunks = self.cells.0.par_chunks(self.stride);
        let each = joined.0.par_chunks_mut(self.width).zip(chunks);
        each.for_each(|(to, from)| to.copy_from_slice(&from[..to.len()]));
        *self = Cells { cells: joined, stride: CHUNK, width: CHUNK, count: self.count };
    }
}

/// p₀, p₁ + λq₁, q₀ and q₁ of at most four parents.
#[derive(Default)]
struct Few([Wiped; 4]);

impl Few {
    fn of<N: Number>(parents: &Parents<N>) -> Few {
        Few(std::array::from_fn(|at| Wiped(N::elements(&parents[at].store()).to_vec())))
    }

    fn sums(&self, eq: &[Fe]) -> [Fe; 2] {
        let half = eq.len();
        let mut sums = [Fe::ZERO; 2];
        for (x, weight) in eq.iter().enumerate() {
            let low = self.0.each_ref().map(|table| table[x]);
            let two = self.0.each_ref().map(|table| table[x + half].double() - table[x]);
            for (sum, [a, b, c, d]) in sums.iter_mut().zip([low, two]) {
                *sum += *weight * (a * d + b * c);
            }
        }
        sums
    }

    fn bind(&mut self, r: Fe) {
        for table in &mut self.0 {
            let half = table.len() / 2;
            for x in 0..half {
                let (low, high) = (table[x], table[x + half]);
                table[x] = low + r * (high - low);
                table[x + half] = Fe::ZERO;
            }
            table.truncate(half);
        }
    }
}

/// Parents that a sumcheck still sums over.
enum State<'a, N: Number> {
    /// Leaves, with the first challenge.
    Leaves(Scaled<'a, N>, Option<Fe>),
    Joined(Joined<'a, N>),
    Level(Level<N>),
    Chunks(Chunks<N>),
    Cells(Cells<N>),
    Few(Few),
}

/// The state of the sumcheck from a level's parents to the level.
pub struct Halves<'a, N: Number> {
    state: State<'a, N>,
    lambda: Fe,
    /// Where the parents are claimed.
    point: Vec<Fe>,
    /// Variables that are bound.
    bound: usize,
    /// t(0) and t(2) of the round.
    round: [Fe; 2],
}

impl<'a, N: Number> Halves<'a, N> {
    /// Of a level below nodes at a point.
    pub fn new(nodes: Nodes<'a, N>, lambda: Fe, point: &[Fe]) -> Halves<'a, N> {
        let state = match nodes {
            Nodes::Leaves(source) => State::Leaves(Scaled::new(source, lambda), None),
            Nodes::Joined(source) => State::Joined(Joined::new(source, lambda)),
            Nodes::Level(level) if point.len() == 1 => State::Few(level.halves(lambda)),
            Nodes::Level(mut level) => {
                let tasks = level.p.0.par_chunks_mut(TASK).zip(level.q.0.par_chunks(TASK));
                tasks.for_each(|(p, q)| lift::<N>(p, q, lambda));
                match point.len() {
                    2 => State::Few(Few::of(&Lifted { level: &level, lambda }.at(0))),
                    _ => State::Level(level),
                }
            }
        };
        let round = [Fe::ZERO; 2];
        let mut halves = Halves { state, lambda, point: point.to_vec(), bound: 0, round };
        halves.round = match &halves.state {
            State::Leaves(leaves, _) => halves.leaf_round(leaves, [Fe::ONE]),
            State::Joined(joined) => halves.first_round(joined, joined.source.blocks() / 4),
            State::Level(level) => {
                let parents = level.blocks().div_ceil(2);
                halves.first_round(&Lifted { level, lambda }, parents)
            }
            State::Few(few) => few.sums(&eq_table(&halves.point[1..], Fe::ONE)),
            State::Chunks(_) | State::Cells(_) => round,
        };
        halves
    }

    /// Variables of the number of a block of parents.
    fn blocks(&self) -> usize {
        self.point.len().saturating_sub(2)
    }

    /// The weights of pairs of parents in chunks of some width, if this round's variable is one of
    /// a block's number.
    fn eq(&self, width: usize) -> Eq<N> {
        match self.blocks().checked_sub(self.bound + 1) {
            Some(rest) => {
                let (blocks, lanes) = self.point.split_at(self.blocks());
                Eq::new(&blocks[..rest], lanes, width / 2)
            }
            None => Eq { high: vec![Fe::ONE], low: vec![], rest: vec![] },
        }
    }

    /// The sums over all parents, from those that are stored: `pairs` of them. A summand of others
    /// is λ.
    fn all(&self, sums: [Fe; 2], eq: &Eq<N>, pairs: usize) -> [Fe; 2] {
        let others = self.lambda * eq.from(pairs);
        sums.map(|sum| sum + others)
    }

    /// The same from λ times the sums.
    fn all_leaves(&self, sums: [Fe; 2], eq: &Eq<N>, pairs: usize) -> [Fe; 2] {
        let inverse = inverse(self.lambda);
        self.all(sums.map(|sum| sum * inverse), eq, pairs)
    }

    /// The first round, for `count` parents.
    fn first_round(&self, parents: &impl Read<N>, count: usize) -> [Fe; 2] {
        let (eq, pairs) = (self.eq(CHUNK), count.div_ceil(2));
        self.all(eq.sum(pairs, |first, eq| sum::<N, _>(parents, first, eq)), &eq, pairs)
    }

    /// A round of leaves of which `K` are bound to one.
    fn leaf_round<const K: usize>(&self, leaves: &Scaled<'_, N>, weights: [Fe; K]) -> [Fe; 2] {
        let (eq, pairs) = (self.eq(CHUNK), leaves.source.blocks() / (4 * K));
        let bound = Bound::new(leaves, weights);
        let sums = eq.sum(pairs, |first, eq| sum_of_leaves(&bound, first, eq));
        self.all_leaves(sums, &eq, pairs)
    }

    /// Binds the first variable of `count` parents.
    fn bind_first(&mut self, parents: &impl Read<N>, count: usize, r: Fe) -> State<'a, N> {
        let mut cells = Cells::new(count.div_ceil(2));
        let eq = self.eq(CHUNK);
        let chunks = cells.cells.0.par_chunks_mut(CHUNK).zip(&eq.high).enumerate();
        let sums = chunks.map(|(chunk, (out, factor))| {
            bind(parents, chunk * CHUNK, r, &eq.low, out).map(|sum| sum * *factor)
        });
        self.round = self.all(sums.reduce(|| [Fe::ZERO; 2], plus), &eq, cells.count.div_ceil(2));
        State::Cells(cells)
    }

    /// Binds the first two variables of leaves.
    fn bind_leaves(&mut self, leaves: &Scaled<'_, N>, [r0, r1]: [Fe; 2]) -> Vec<LeafChunk<N>> {
        let weights = eq_table(&[r1, r0], Fe::ONE);
        let bound = Bound::new(leaves, [weights[0], weights[1], weights[2], weights[3]]);
        let Source { leaves, .. } = leaves.source;
        let width = 8 * LANES;
        let eq = self.eq(CHUNK);
        let chunks = leaves.numerators.par_chunks(CHUNK * width).zip(&eq.high).enumerate();
        let made = chunks.map(|(at, (numerators, factor))| {
            let count = numerators.len() / width;
            // Behind a chunk that is not full are zeros.
            let are_ones = count == CHUNK && all(numerators, 1);
            let of_p = if are_ones { 0 } else { count };
            let mut chunk = LeafChunk { a: Hidden::new(count), p: Hidden::new(of_p), count };
            let eq = &eq.low[..eq.low.len().min(count / 2)];
            let sums = bind_leaves(&bound, at * CHUNK, eq, &mut chunk);
            (chunk, sums.map(|sum| sum * *factor))
        });
        let (chunks, sums): (Vec<_>, Vec<_>) = made.unzip();
        let sums = sums.into_iter().fold([Fe::ZERO; 2], plus);
        self.round = self.all_leaves(sums, &eq, leaves.numerators.len() / (2 * width));
        chunks
    }

    /// Binds a variable of leaves in memory.
    fn fold_leaves(&mut self, mut chunks: Chunks<N>, r: Fe) -> State<'a, N> {
        chunks.width /= 2;
        let (eq, lambda) = (self.eq(chunks.width), self.lambda);
        let each = chunks.chunks.par_iter_mut().zip(&eq.high);
        let sums = each
            .map(|(chunk, factor)| fold_leaves(chunk, lambda, r, &eq.low).map(|sum| sum * *factor));
        let sums = sums.reduce(|| [Fe::ZERO; 2], plus);
        let count: usize = chunks.chunks.iter().map(|chunk| chunk.count).sum();
        self.round = self.all_leaves(sums, &eq, count.div_ceil(2));
        if chunks.width > SHORT {
            return State::Chunks(chunks);
        }
        let (mut cells, inverse) = (Cells::new(count), inverse(lambda));
        let out = cells.cells.0.par_chunks_mut(chunks.width).zip(&chunks.chunks);
        out.for_each(|(out, chunk)| same_as_others(chunk, inverse, out));
        State::Cells(cells)
    }

    /// Binds a variable of parents in memory.
    fn fold(&mut self, mut cells: Cells<N>, r: Fe) -> State<'a, N> {
        cells.join();
        let Cells { stride, width, count, .. } = cells;
        let (eq, lambda) = (self.eq(width / 2), self.lambda);
        let each = cells.cells.0.par_chunks_mut(stride).zip(&eq.high).enumerate();
        let sums = each.map(|(chunk, (cells, factor))| {
            let count = (count - chunk * width).min(width);
            fold::<N>(cells, count, lambda, r, &eq.low).map(|sum| sum * *factor)
        });
        let sums = sums.reduce(|| [Fe::ZERO; 2], plus);
        (cells.width, cells.count) = (width / 2, count.div_ceil(2));
        self.round = self.all(sums, &eq, cells.count.div_ceil(2));
        State::Cells(cells)
    }

    /// Fixes the variable of this round.
    pub fn bind(&mut self, r: Fe) {
        self.bound += 1;
        let none = State::Few(Few::default());
        let state = match std::mem::replace(&mut self.state, none) {
            State::Leaves(leaves, None) => {
                self.round = self.leaf_round(&leaves, [Fe::ONE - r, r]);
                State::Leaves(leaves, Some(r))
            }
            State::Leaves(leaves, Some(before)) => {
                let chunks = self.bind_leaves(&leaves, [before, r]);
                State::Chunks(Chunks { chunks, width: CHUNK })
            }
            State::Joined(joined) => {
                let count = joined.source.blocks() / 4;
                self.bind_first(&joined, count, r)
            }
            State::Level(level) => {
                let count = level.blocks().div_ceil(2);
                self.bind_first(&Lifted { level: &level, lambda: self.lambda }, count, r)
            }
            State::Chunks(chunks) => self.fold_leaves(chunks, r),
            State::Cells(cells) => self.fold(cells, r),
            State::Few(mut few) => {
                few.bind(r);
                State::Few(few)
            }
        };
        self.state = match state {
            State::Cells(cells) if self.bound == self.blocks() => {
                State::Few(Few::of(&cell::<N>(&cells.cells.0, cells.count, 0, self.lambda)))
            }
            state => state,
        };
        if let (State::Few(few), Some(rest)) = (&self.state, self.point.get(self.bound + 1..)) {
            self.round = few.sums(&eq_table(rest, Fe::ONE));
        }
    }

    /// t(0) and t(2) of a round.
    pub fn round(&self) -> [Fe; 2] {
        self.round
    }

    /// p₀, p₁, q₀, q₁ at the end.
    pub fn ends(&self) -> [Fe; 4] {
        match &self.state {
            State::Few(Few(tables)) => {
                let [p0, p1, q0, q1] = tables.each_ref().map(|table| table[0]);
                [p0, p1 - self.lambda * q1, q0, q1]
            }
            _ => [Fe::ZERO; 4],
        }
    }
}

/// 1/x, or 0.
fn inverse(x: Fe) -> Fe {
    Option::<F>::from(F::from(x).invert()).map_or(Fe::ZERO, Fe::from)
}

fn plus(a: [Fe; 2], b: [Fe; 2]) -> [Fe; 2] {
    [a[0] + b[0], a[1] + b[1]]
}

/// `eq(rest, x)·eq(lanes, i)` for lanes i of pairs x of parents, as a product of the weights of
/// chunks and those in a chunk.
struct Eq<N: Number> {
    high: Vec<Fe>,
    low: Vec<N::Stored>,
    rest: Vec<Fe>,
}

impl<N: Number> Eq<N> {
    /// For chunks of `pairs`.
    fn new(rest: &[Fe], lanes: &[Fe], pairs: usize) -> Eq<N> {
        let (high, low) = rest.split_at(rest.len().saturating_sub(pairs.ilog2() as usize));
        let lanes = eq_table(lanes, Fe::ONE);
        let low = eq_table(low, Fe::ONE);
        let low = low.iter().map(|w| N::stored(std::array::from_fn(|lane| *w * lanes[lane])));
        Eq { high: eq_table(high, Fe::ONE), low: low.collect(), rest: rest.to_vec() }
    }

    /// The sum of the weights of all pairs from a pair on.
    fn from(&self, pair: usize) -> Fe {
        let bits = self.rest.len();
        if pair >> bits > 0 {
            return Fe::ZERO;
        }
        let (mut same, mut above) = (Fe::ONE, Fe::ZERO);
        for (w, bit) in self.rest.iter().zip((0..bits).rev()) {
            let high = same * *w;
            if pair >> bit & 1 == 1 {
                same = high;
            } else {
                above += high;
                same -= high;
            }
        }
        above + same
    }

    /// The sum over `pairs` pairs of weights times values; `sums` has the sums with the low
    /// weights, from a pair on.
    fn sum(&self, pairs: usize, sums: impl Fn(usize, &[N::Stored]) -> [Fe; 2] + Sync) -> [Fe; 2] {
        let width = self.low.len();
        let each = self.high.par_iter().take(pairs.div_ceil(width)).enumerate().with_min_len(4);
        let each = each.map(|(chunk, factor)| {
            let first = chunk * width;
            sums(first, &self.low[..width.min(pairs - first)]).map(|sum| sum * *factor)
        });
        each.reduce(|| [Fe::ZERO; 2], plus)
    }
}
