//! `(X·A)·B` on integers in `f64`. Safe code that compilers make vector instructions of; the widths are chosen for those.

/// Integers of fewer bits are exact here: the addition of [`MAGIC`] leaves 51 bits and a sign.
pub(super) const EXACT_BITS: u32 = 51;
/// Bits of the lower part of `t`.
pub(super) const SPLIT: u32 = 26;
const TWO_TO_SPLIT: f64 = (1u64 << SPLIT) as f64;

/// 1.5·2⁵²: added to an integer below 2⁵¹, the sum has that integer in its last bits.
const MAGIC: f64 = 6_755_399_441_055_744.0;

/// `f64`s that are accumulated side by side.
const LANES: usize = 4;
/// Rows that go through `A` together, so that it is read from memory less often.
const ROWS: usize = 2;
/// Ranks that go through `X` together.
const RANKS: usize = 4;
/// Features of `X` that are converted at a time: they stay in the first-level cache.
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

/// `a·b + c`, in one rounding or two: all of it is exact.
#[inline(always)]
fn multiply_add<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `out[n, k] = Σ_j (Σ_i x[n, i]·a[j, i])·b[j, k]`. `FMA`: the processor multiplies and adds in one instruction.
#[inline(always)]
pub(super) fn low_rank<const FMA: bool>(shape: Shape, x: &[i32], a: &[f64], b: &[f64], out: &mut [i64]) {
    let Shape { rank, d_in, d_out } = shape;
    let rows = x.len() / d_in;
    let mut t = vec![0f64; rows * rank];
    let mut converted = [[0f64; FEATURES]; ROWS];
    for first in (0..d_in).step_by(FEATURES) {
        let width = FEATURES.min(d_in - first);
        for (x, t) in x.chunks(ROWS * d_in).zip(t.chunks_mut(ROWS * rank)) {
            for (x, converted) in x.chunks_exact(d_in).zip(&mut converted) {
                converted.iter_mut().zip(&x[first..first + width]).for_each(|(f, v)| *f = f64::from(*v));
            }
            let columns = |j: usize| &a[j * d_in + first..j * d_in + first + width];
            if t.len() == ROWS * rank {
                let rows: [&[f64]; ROWS] = std::array::from_fn(|n| &converted[n][..width]);
                inner::<FMA, ROWS>(rows, columns, rank, t);
            } else {
                for (t, converted) in t.chunks_exact_mut(rank).zip(&converted) {
                    inner::<FMA, 1>([&converted[..width]], columns, rank, t);
                }
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

/// Adds `x_n·a_j` to `t[n, j]`.
#[inline(always)]
fn inner<'a, const FMA: bool, const N: usize>(
    x: [&[f64]; N],
    columns: impl Fn(usize) -> &'a [f64],
    rank: usize,
    t: &mut [f64],
) {
    let mut j = 0;
    while j < rank {
        let mut add = |j: usize, sums: &[[f64; N]]| {
            for (r, sums) in sums.iter().enumerate() {
                sums.iter().enumerate().for_each(|(n, sum)| t[n * rank + j + r] += sum);
            }
        };
        if j + RANKS <= rank {
            add(j, &products::<FMA, RANKS, N>(x, std::array::from_fn(|r| columns(j + r))));
            j += RANKS;
        } else {
            add(j, &products::<FMA, 1, N>(x, [columns(j)]));
            j += 1;
        }
    }
}

/// All inner products of N rows and R columns of one length: `[R][N]`.
#[inline(always)]
fn products<const FMA: bool, const R: usize, const N: usize>(x: [&[f64]; N], a: [&[f64]; R]) -> [[f64; N]; R] {
    let (x, a) = (x.map(|x| x.as_chunks::<LANES>()), a.map(|a| a.as_chunks::<LANES>()));
    // All of one length, so that no check within the loop keeps the sums out of the registers.
    let whole = x[0].0.len();
    let (rows, columns) = (x.map(|(chunks, _)| &chunks[..whole]), a.map(|(chunks, _)| &chunks[..whole]));
    let mut sums = [[[0f64; LANES]; N]; R];
    for i in 0..whole {
        for r in 0..R {
            let column = columns[r][i];
            for n in 0..N {
                let row = rows[n][i];
                for lane in 0..LANES {
                    sums[r][n][lane] = multiply_add::<FMA>(row[lane], column[lane], sums[r][n][lane]);
                }
            }
        }
    }
    let rest = |r: usize, n: usize| x[n].1.iter().zip(a[r].1).map(|(x, a)| x * a).sum::<f64>();
    std::array::from_fn(|r| std::array::from_fn(|n| sums[r][n].iter().sum::<f64>() + rest(r, n)))
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
