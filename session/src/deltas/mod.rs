//! Computing deltas of many rows at the speed of floats: exact integer arithmetic in `f64`.
//!
//! `X·A` and `(X·A)·B` are computed in `f64`, where products and sums of integers are exact below
//! 2⁵³. `t = x·a` is split into `t = h·2²⁶ + l` before it is multiplied with `B`, because `t·b`
//! needs up to 63 bits. Whether everything stays exact follows from the weights alone and is
//! checked once ([`Deltas::new`]). Modules where it does not, and terms that are not low-rank, are
//! computed row by row with [`Weights::delta_row`]. The prover computes with that function, too, so
//! deltas that are served are checked against it before they are proven.

mod kernel;
mod simd;

use rayon::prelude::*;
use zeroize::Zeroize;
use zklora_artifacts::module_rows::ModuleRows;
use zklora_proof::{
    manifest::{Module, TermKind},
    weights::{PairWeights, Weights},
};

/// Rows that one thread takes at a time.
const ROWS_AT_ONCE: usize = 64;

/// The deltas of one adapter.
#[derive(Debug)]
pub struct Deltas {
    /// One entry for each module; none for those that are computed row by row.
    modules: Vec<Option<LowRank>>,
}

/// A module that consists of one low-rank term, its integers as `f64`.
struct LowRank {
    rank: usize,
    d_in: usize,
    d_out: usize,
    /// `[rank, d_in]`
    a: Vec<f64>,
    /// `[rank, d_out]`
    b: Vec<f64>,
}

impl std::fmt::Debug for LowRank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LowRank({} x {} x {}, not shown)", self.d_in, self.rank, self.d_out)
    }
}

impl Drop for LowRank {
    fn drop(&mut self) {
        self.a.zeroize();
        self.b.zeroize();
    }
}

impl Deltas {
    /// Lays the weights out.
    pub fn new(modules: &[Module], weights: &Weights) -> Deltas {
        let each = modules.iter().enumerate();
        Deltas {
            modules: each
                .map(|(m, module)| LowRank::of(module, weights.of_module(modules, m)))
                .collect(),
        }
    }

    /// Whether module `m` is computed in `f64`, many rows at a time.
    pub fn is_fast(&self, m: usize) -> bool {
        self.modules[m].is_some()
    }

    /// The deltas of rows of module `m`, which must fit it: `[N, d_out]`. `modules` and `weights`
    /// are the arguments of [`Deltas::new`].
    pub fn compute(
        &self,
        modules: &[Module],
        weights: &Weights,
        m: usize,
        rows: &ModuleRows,
    ) -> Vec<i64> {
        let module = &modules[m];
        let mut delta = vec![0i64; rows.scales.len() * module.d_out];
        match &self.modules[m] {
            // Few rows: starting threads costs more than it saves.
            Some(low_rank) if rows.scales.len() <= ROWS_AT_ONCE => {
                low_rank.compute(&rows.inputs[0], &mut delta)
            }
            Some(low_rank) => {
                let x = rows.inputs[0].par_chunks(ROWS_AT_ONCE * low_rank.d_in);
                x.zip(delta.par_chunks_mut(ROWS_AT_ONCE * low_rank.d_out))
                    .for_each(|(x, out)| low_rank.compute(x, out));
            }
            None => {
                let pairs = weights.of_module(modules, m);
                delta.par_chunks_exact_mut(module.d_out).enumerate().for_each(|(row, out)| {
                    let inputs = rows.inputs.iter().zip(&module.inputs);
                    let x: Vec<&[i32]> = inputs
                        .map(|(x, input)| &x[row * input.dim..(row + 1) * input.dim])
                        .collect();
                    weights.delta_row(
                        module,
                        pairs,
                        &x,
                        rows.ones.get(row).copied().unwrap_or(0),
                        out,
                    );
                });
            }
        }
        delta
    }
}

impl LowRank {
    /// None if the module has other terms, or if `f64` would not be exact.
    fn of(module: &Module, pairs: &[PairWeights]) -> Option<LowRank> {
        let [term] = &module.terms[..] else { return None };
        let [input] = &module.inputs[..] else { return None };
        if term.kind != TermKind::LowRank || !is_exact(module, pairs) {
            return None;
        }
        let floats = |side: fn(&PairWeights) -> &Vec<i32>| {
            pairs.iter().flat_map(side).map(|v| f64::from(*v)).collect()
        };
        Some(LowRank {
            rank: pairs.len(),
            d_in: input.dim,
            d_out: module.d_out,
            a: floats(|pair| &pair.a),
            b: floats(|pair| &pair.b),
        })
    }

    fn compute(&self, x: &[i32], out: &mut [i64]) {
        let shape = kernel::Shape { rank: self.rank, d_in: self.d_in, d_out: self.d_out };
        simd::low_rank(shape, x, &self.a, &self.b, out);
    }
}

/// Whether every number on the way is an integer below what [`kernel`] represents exactly:
/// |t| ≤ 2^(x_bits−1)·‖A_j‖₁ < 2⁵¹, and with |h| ≤ 2²⁵, |l| ≤ 2²⁵: Σ_j 2²⁵·|B_jk| < 2⁵¹.
fn is_exact(module: &Module, pairs: &[PairWeights]) -> bool {
    let largest_x = 1u64 << (module.x_bits - 1);
    let norm = |pair: &PairWeights| pair.a.iter().map(|a| u64::from(a.unsigned_abs())).sum::<u64>();
    let inner =
        pairs.iter().all(|pair| norm(pair).saturating_mul(largest_x) < 1 << kernel::EXACT_BITS);
    let mut columns = vec![0u64; module.d_out];
    for pair in pairs {
        columns.iter_mut().zip(&pair.b).for_each(|(sum, b)| *sum += u64::from(b.unsigned_abs()));
    }
    let outer = columns
        .iter()
        .all(|sum| sum.saturating_mul(1 << (kernel::SPLIT - 1)) < 1 << kernel::EXACT_BITS);
    inner && outer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use zklora_proof::manifest::{Input, Term};

    use super::*;

    fn module(d_in: usize, rank: usize, d_out: usize, bits: (u32, u32, u32)) -> Module {
        Module {
            a_bits: bits.1,
            b_bits: bits.2,
            d_out,
            delta_bits: 63,
            inputs: vec![Input { dim: d_in, name: "x".into() }],
            name: "m".into(),
            scale_log2: 0,
            scaling: 1.0,
            terms: vec![Term {
                a: vec![],
                b: vec![],
                input: Some(0),
                kind: TermKind::LowRank,
                rank,
                shift: 0,
            }],
            x_bits: bits.0,
        }
    }

    /// The same product in 128-bit integers.
    fn reference(x: &[i32], pairs: &[PairWeights], d_out: usize) -> Vec<i64> {
        let dot =
            |a: &[i32]| x.iter().zip(a).map(|(x, a)| i128::from(*x) * i128::from(*a)).sum::<i128>();
        let t: Vec<i128> = pairs.iter().map(|pair| dot(&pair.a)).collect();
        (0..d_out)
            .map(|k| {
                t.iter().zip(pairs).map(|(t, pair)| t * i128::from(pair.b[k])).sum::<i128>() as i64
            })
            .collect()
    }

    /// Values of up to `bits` bits, the largest ones among them.
    fn value(bits: u32) -> impl Strategy<Value = i32> {
        let largest = (1i32 << (bits - 1)) - 1;
        prop_oneof![4 => -largest..=largest, 1 => Just(largest), 1 => Just(-largest)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn floats_give_the_integers(
            (d_in, rank, d_out, rows, x, a, b) in (1usize..70, 1usize..11, 1usize..50, 1usize..11).prop_flat_map(
                |(d_in, rank, d_out, rows)| (
                    Just(d_in), Just(rank), Just(d_out), Just(rows),
                    prop::collection::vec(value(23), d_in * rows),
                    prop::collection::vec(value(15), d_in * rank),
                    prop::collection::vec(value(15), d_out * rank),
                )
            )
        ) {
            let pairs: Vec<PairWeights> = (0..rank)
                .map(|j| PairWeights { a: a[j * d_in..(j + 1) * d_in].to_vec(), b: b[j * d_out..(j + 1) * d_out].to_vec() })
                .collect();
            let low_rank = LowRank::of(&module(d_in, rank, d_out, (23, 15, 15)), &pairs).unwrap();
            let mut out = vec![0; rows * d_out];
            low_rank.compute(&x, &mut out);
            let mut portable = vec![0; rows * d_out];
            let shape = kernel::Shape { rank, d_in, d_out };
            kernel::low_rank::<false>(shape, &x, &low_rank.a, &low_rank.b, &mut portable);
            for (row, out) in out.chunks(d_out).enumerate() {
                prop_assert_eq!(out, reference(&x[row * d_in..(row + 1) * d_in], &pairs, d_out));
            }
            prop_assert_eq!(out, portable);
        }
    }

    #[test]
    fn a_module_on_the_edge_of_what_is_exact_is_computed_exactly_and_one_beyond_it_row_by_row() {
        // ‖A‖₁·2^23 just below 2^51: 2^28 − 1 over 33 values of 23 bits.
        let largest = (1 << 23) - 1;
        let mut a = vec![largest; 32];
        a.push(31);
        let inside = vec![PairWeights { a: a.clone(), b: vec![largest, -largest, 1] }];
        let shape = module(33, 1, 3, (24, 24, 24));
        let low_rank = LowRank::of(&shape, &inside).unwrap();
        for sign in [1, -1] {
            let x = vec![sign * largest; 33];
            let mut out = vec![0; 3];
            low_rank.compute(&x, &mut out);
            // (the bound on deltas, which is another, does not hold of these: the last 64 bits are
            // compared)
            assert_eq!(out, reference(&x, &inside, 3));
        }
        a.push(1);
        assert!(
            LowRank::of(&module(34, 1, 3, (24, 24, 24)), &[PairWeights { a, b: vec![1; 3] }])
                .is_none()
        );
        let wide: Vec<PairWeights> =
            (0..9).map(|_| PairWeights { a: vec![1], b: vec![largest; 3] }).collect();
        assert!(LowRank::of(&module(1, 9, 3, (24, 2, 24)), &wide).is_none());
    }
}
