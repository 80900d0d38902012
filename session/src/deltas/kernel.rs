//! `(X·A)·B` on integers in `f64`: safe code with widths that compilers vectorise.

/// Integers of fewer bits are exact here: the addition of [`MAGIC`] leaves 51 bits and a sign.
pub(super) const EXACT_BITS: u32 = 51;
/// Bits of the lower part of `t`.
pub(super) const SPLIT: u32 = 26;
const TWO_TO_SPLIT: f64 = (1u64 << SPLIT) as f64;

/// 1.5·2⁵²: added to an integer below 2⁵¹, the sum has that integer in its last bits.
const MAGIC: f64 = 6_755_399_441_055_744.0;

/// Number of `f64` accumulators side by side.
const LANES: usize = 8;
/// Ranks that are computed in one pass over `X`.
const RANKS: usize = 4;
/// Features of `X` that are converted at a time, which fit the first-level cache.
const FEATURES: usize = 1024;
/// Outputs that are accumulated in registers.
const OUTPUTS: usize = 16;

/// Sizes of a module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub rank: usize,
    pub d_in: usize,
    pub d_out: usize,
}

/// `a·b + c`, with one rounding or two. Both are exact here.
#[inline(always)]
fn multiply_add<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `out[n, k] = Σ_j (Σ_i x[n, i]·a[j, i])·b[j, k]`. `FMA`: the processor multiplies and adds in one
/// instruction.
#[inline(always)]
pub(super) fn low_rank<const FMA: bool>(
    shape: Shape,
    x: &[i32],
    a: &[f64],
    b: &[f64],
    out: &mut [i64],
) {
    let Shape { rank, d_in, d_out } = shape;
    let mut t = vec![0f64; x.len() / d_in * rank];
    let mut converted = [0f64; FEATURES];
    for first in (0..d_in).step_by(FEATURES) {
        let width = FEATURES.min(d_in - first);
        for (x, t) in x.chunks_exact(d_in).zip(t.chunks_exact_mut(rank)) {
            converted
                .iter_mut()
                .zip(&x[first..first + width])
                .for_each(|(f, v)| *f = f64::from(*v));
            let x = &converted[..width];
            let column = |j: usize| &a[j * d_in + first..j * d_in + first + width];
            let (fours, rest) = t.as_chunks_mut::<RANKS>();
            let done = fours.len() * RANKS;
            for (four, t) in fours.iter_mut().enumerate() {
                let sums = products::<FMA>(x, std::array::from_fn(|r| column(four * RANKS + r)));
                t.iter_mut().zip(sums).for_each(|(t, sum)| *t += sum);
            }
            for (r, t) in rest.iter_mut().enumerate() {
                *t += x.iter().zip(column(done + r)).map(|(x, a)| x * a).sum::<f64>();
            }
        }
    }
    let mut halves = vec![(0f64, 0f64); rank];
    for (t, out) in t.chunks_exact(rank).zip(out.chunks_exact_mut(d_out)) {
        for (half, t) in halves.iter_mut().zip(t) {
            // Rounds to the nearest integer: |t / 2^26| is far below 2^51.
            let high = (t / TWO_TO_SPLIT + MAGIC) - MAGIC;
            *half = (high, t - high * TWO_TO_SPLIT);
        }
        outer::<FMA>(&halves, b, d_out, out);
    }
}

/// The inner products of a row with four columns of its length.
#[inline(always)]
fn products<const FMA: bool>(x: &[f64], a: [&[f64]; RANKS]) -> [f64; RANKS] {
    let (x, x_rest) = x.as_chunks::<LANES>();
    let a = a.map(|a| a.as_chunks::<LANES>());
    let mut sums = [[0f64; LANES]; RANKS];
    // Four variables and a zip instead of an array and an index keep the sums in registers.
    let [mut s0, mut s1, mut s2, mut s3] = sums;
    for ((((x, a0), a1), a2), a3) in x.iter().zip(a[0].0).zip(a[1].0).zip(a[2].0).zip(a[3].0) {
        s0 = add_products::<FMA>(x, a0, s0);
        s1 = add_products::<FMA>(x, a1, s1);
        s2 = add_products::<FMA>(x, a2, s2);
        s3 = add_products::<FMA>(x, a3, s3);
    }
    sums = [s0, s1, s2, s3];
    let rest = |r: usize| x_rest.iter().zip(a[r].1).map(|(x, a)| x * a).sum::<f64>();
    std::array::from_fn(|r| sums[r].iter().sum::<f64>() + rest(r))
}

/// `x·a + sums`, lane by lane.
#[inline(always)]
fn add_products<const FMA: bool>(
    x: &[f64; LANES],
    a: &[f64; LANES],
    sums: [f64; LANES],
) -> [f64; LANES] {
    std::array::from_fn(|lane| multiply_add::<FMA>(x[lane], a[lane], sums[lane]))
}

/// `out[k] = Σ_j t_j·b[j, k]`, modulo 2⁶⁴.
#[inline(always)]
fn outer<const FMA: bool>(t: &[(f64, f64)], b: &[f64], d_out: usize, out: &mut [i64]) {
    let (blocks, rest) = out.as_chunks_mut::<OUTPUTS>();
    let done = blocks.len() * OUTPUTS;
    for (block, out) in blocks.iter_mut().enumerate() {
        let (mut high, mut low) = ([MAGIC; OUTPUTS], [MAGIC; OUTPUTS]);
        for (j, (t_high, t_low)) in t.iter().enumerate() {
            let from = j * d_out + block * OUTPUTS;
            let Some((b, _)) = b[from..].split_first_chunk::<OUTPUTS>() else { return };
            for k in 0..OUTPUTS {
                high[k] = multiply_add::<FMA>(*t_high, b[k], high[k]);
                low[k] = multiply_add::<FMA>(*t_low, b[k], low[k]);
            }
        }
        for k in 0..OUTPUTS {
            out[k] = joined(high[k], low[k]);
        }
    }
    for (k, out) in rest.iter_mut().enumerate() {
        let sum = |half: fn(&(f64, f64)) -> f64| {
            t.iter().enumerate().fold(MAGIC, |sum, (j, t)| sum + half(t) * b[j * d_out + done + k])
        };
        *out = joined(sum(|t| t.0), sum(|t| t.1));
    }
}

/// `high·2²⁶ + low`, of two sums that carry [`MAGIC`].
#[inline(always)]
fn joined(high: f64, low: f64) -> i64 {
    let integer = |sum: f64| sum.to_bits().wrapping_sub(MAGIC.to_bits());
    (integer(high) << SPLIT).wrapping_add(integer(low)) as i64
}
