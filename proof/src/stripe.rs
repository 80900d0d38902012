//! Sums over one stripe of features: the inner loop of the projection.
//!
//! A weight is `Σ_k 2^(32k)·limb_k` with limbs below 2³². Vector instructions multiply *signed*
//! 32-bit integers, so a limb is taken as `s_k + 2³¹` with `|s_k| ≤ 2³¹`, and `Σ limb_k·v = Σ s_k·v
//! + 2³¹·Σ v`, where all limbs share the last sum.

/// Limbs of a weight.
pub const LIMBS: usize = 4;
/// The weight of a row as 32-bit limbs, least significant first.
pub type RowWeight = [u32; LIMBS];

/// Features that are summed at a time. Their sums fit the first-level cache.
pub const STRIPE: usize = 256;
/// Rows whose products are added before a sum is stored.
const AT_ONCE: usize = 4;
/// Rows between two flushes of the 64-bit sums. With |v| < 2^23 and |s| ≤ 2^31 they stay below
/// 2^61, and so does 2^31·Σ v.
const FLUSH: usize = 128;
const _: () = assert!(crate::manifest::MAX_X_BITS - 1 + 31 + FLUSH.ilog2() <= 61);

/// Bits of each low part of a 64-bit integer.
const PART_BITS: u32 = 22;
/// Integers below 2^this in magnitude have two parts; others have three.
pub const TWO_PARTS: u32 = 2 * PART_BITS;

/// An integer as `P` parts below 2^23 in magnitude: `Σ_p 2^(22p)·part_p`.
pub trait Parts<const P: usize>: Copy {
    fn parts(self) -> [i32; P];
}

impl Parts<1> for i32 {
    #[inline(always)]
    fn parts(self) -> [i32; 1] {
        [self]
    }
}

const MASK: i64 = (1 << PART_BITS) - 1;

impl Parts<2> for i64 {
    #[inline(always)]
    fn parts(self) -> [i32; 2] {
        [(self & MASK) as i32, (self >> PART_BITS) as i32]
    }
}

impl Parts<3> for i64 {
    #[inline(always)]
    fn parts(self) -> [i32; 3] {
        [
            (self & MASK) as i32,
            ((self >> PART_BITS) & MASK) as i32,
            (self >> (2 * PART_BITS)) as i32,
        ]
    }
}

/// Which features of rows of `dim` are summed: `first .. first + width`, at most [`STRIPE`].
#[derive(Debug, Clone, Copy)]
pub struct Stripe {
    pub dim: usize,
    pub first: usize,
    pub width: usize,
}

/// Sums in 64 bits: one per limb, and one of the integers themselves.
type NarrowSums = [[i64; STRIPE]; LIMBS + 1];
/// Some rows of integers below 2^23 in magnitude.
type Part = [[i32; STRIPE]; AT_ONCE];

/// The sums of a stripe. Inlined, so that the module `simd` can compile it for other instructions.
#[inline(always)]
pub fn sum_stripe<T: Parts<P>, const P: usize>(
    weights: &[RowWeight],
    values: &[T],
    stripe: Stripe,
) -> Vec<[i128; LIMBS]> {
    let Stripe { dim, first, width } = stripe;
    let mut wide = vec![[0i128; LIMBS]; width];
    let mut narrow: [NarrowSums; P] = [[[0; STRIPE]; LIMBS + 1]; P];
    let mut parts: [Part; P] = [[[0; STRIPE]; AT_ONCE]; P];
    for (block, weights) in weights.chunks(FLUSH).enumerate() {
        narrow.as_flattened_mut().as_flattened_mut().fill(0);
        for (group, weights) in weights.chunks(AT_ONCE).enumerate() {
            let mut signed = [[0; LIMBS]; AT_ONCE];
            for (r, signed) in signed.iter_mut().enumerate() {
                let start = (block * FLUSH + group * AT_ONCE + r) * dim + first;
                match weights.get(r) {
                    Some(weight) => {
                        *signed = weight.map(|limb| (limb ^ (1 << 31)) as i32);
                        cut(&values[start..start + width], &mut parts, r);
                    }
                    None => parts.iter_mut().for_each(|part| part[r].fill(0)),
                }
            }
            for (part, sums) in parts.iter().zip(&mut narrow) {
                add_rows(sums, &signed, part, width);
            }
        }
        for (p, part) in narrow.iter().enumerate() {
            for (i, total) in wide.iter_mut().enumerate() {
                for (k, total) in total.iter_mut().enumerate() {
                    let sum = i128::from(part[k][i]) + (i128::from(part[LIMBS][i]) << 31);
                    *total += sum << (PART_BITS as usize * p);
                }
            }
        }
    }
    wide
}

/// Writes the parts of a row to place `r`.
#[inline(always)]
fn cut<T: Parts<P>, const P: usize>(row: &[T], parts: &mut [Part; P], r: usize) {
    for (p, part) in parts.iter_mut().enumerate() {
        for (part, value) in part[r].iter_mut().zip(row) {
            *part = value.parts()[p];
        }
    }
}

/// Adds the products of some rows to the sums.
#[inline(always)]
fn add_rows(sums: &mut NarrowSums, signed: &[[i32; LIMBS]; AT_ONCE], rows: &Part, width: usize) {
    let width = width.min(STRIPE);
    for i in 0..width {
        let values: [i64; AT_ONCE] = std::array::from_fn(|r| i64::from(rows[r][i]));
        for (k, sums) in sums.iter_mut().enumerate() {
            let mut sum = sums[i];
            for (value, signed) in values.iter().zip(signed) {
                // The last sum has no weights.
                let product =
                    if k < LIMBS { value.wrapping_mul(i64::from(signed[k])) } else { *value };
                sum = sum.wrapping_add(product);
            }
            sums[i] = sum;
        }
    }
}
