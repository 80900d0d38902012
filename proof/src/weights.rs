//! The private integers of an adapter, and the certified bound on its deltas (docs/protocol.md,
//! "Quantisation").
//!
//! It knows nothing of floats: the compiler quantises.

use zeroize::Zeroize;

use crate::{
    Error,
    manifest::{Manifest, Module, TermKind},
    pairs::Pairs,
};

/// The integers of one pair. A missing side is empty.
#[derive(Clone, PartialEq, Eq)]
pub struct PairWeights {
    /// A: `d_in` integers, |a| < 2^(a_bits − 1).
    pub a: Vec<i32>,
    /// B: `d_out` integers, |b| < 2^(b_bits − 1).
    pub b: Vec<i32>,
}

/// The integers of an adapter, one entry for each pair, in the order of [`Pairs`]. Overwritten when
/// dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Weights {
    pairs: Vec<PairWeights>,
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weights({} pairs, not shown)", self.pairs.len())
    }
}

impl Drop for Weights {
    fn drop(&mut self) {
        for pair in &mut self.pairs {
            pair.a.zeroize();
            pair.b.zeroize();
        }
    }
}

impl Weights {
    /// Weights that fit the manifest's shapes, bit widths and bounds.
    ///
    /// # Errors
    /// [`Error::Weights`] names the module whose integers do not fit.
    pub fn new(manifest: &Manifest, pairs: Vec<PairWeights>) -> Result<Weights, Error> {
        let weights = Weights { pairs };
        weights.check(&manifest.modules)?;
        Ok(weights)
    }

    /// Checks that the integers fit the modules' shapes, bit widths and bounds.
    pub fn check(&self, modules: &[Module]) -> Result<(), Error> {
        let shape = Pairs::of(modules)?;
        if self.pairs.len() != shape.len() {
            return Err(Error::Weights(format!(
                "{} pairs, the manifest has {}",
                self.pairs.len(),
                shape.len()
            )));
        }
        let mut first = 0;
        for module in modules {
            let count = module.terms.iter().map(|term| term.rank).sum::<usize>();
            let pairs = &self.pairs[first..first + count];
            check_module(module, pairs)
                .map_err(|why| Error::Weights(format!("module `{}`: {why}", module.name)))?;
            first += count;
        }
        Ok(())
    }

    /// The pairs, in order.
    pub fn pairs(&self) -> &[PairWeights] {
        &self.pairs
    }

    /// Number of integers.
    pub fn parameters(&self) -> usize {
        self.pairs.iter().map(|pair| pair.a.len() + pair.b.len()).sum()
    }

    /// Computes one delta row of `module`: `inputs` has its rows, `one` is the integer that stands
    /// for the constant 1. The bound that [`Weights::new`] checked keeps every partial sum within
    /// an `i64`.
    pub fn delta_row(
        &self,
        module: &Module,
        pairs: &[PairWeights],
        inputs: &[&[i32]],
        one: i32,
        out: &mut [i64],
    ) {
        out.fill(0);
        let mut rest = pairs.iter();
        for term in &module.terms {
            for pair in rest.by_ref().take(term.rank) {
                match (term.kind, term.input.and_then(|input| inputs.get(input))) {
                    (TermKind::LowRank, Some(x)) => {
                        let t: i64 = x
                            .iter()
                            .zip(&pair.a)
                            .map(|(x, a)| i64::from(*x).wrapping_mul(i64::from(*a)))
                            .fold(0, i64::wrapping_add);
                        for (d, b) in out.iter_mut().zip(&pair.b) {
                            *d = d.wrapping_add(t.wrapping_mul(i64::from(*b)));
                        }
                    }
                    (TermKind::Bias, _) => {
                        let factor = i64::from(one) << term.shift;
                        for (d, b) in out.iter_mut().zip(&pair.b) {
                            *d = d.wrapping_add(factor.wrapping_mul(i64::from(*b)));
                        }
                    }
                    (TermKind::Scale, Some(y)) => {
                        for ((d, y), g) in out.iter_mut().zip(*y).zip(&pair.a) {
                            *d = d.wrapping_add(
                                (i64::from(*y) << term.shift).wrapping_mul(i64::from(*g)),
                            );
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// The pairs of module `module`.
    pub fn of_module<'a>(&'a self, modules: &[Module], module: usize) -> &'a [PairWeights] {
        let count = |m: &Module| m.terms.iter().map(|term| term.rank).sum::<usize>();
        let first: usize = modules[..module].iter().map(count).sum();
        &self.pairs[first..first + count(&modules[module])]
    }
}

fn check_module(module: &Module, pairs: &[PairWeights]) -> Result<(), String> {
    let mut rest = pairs.iter();
    for term in &module.terms {
        let (a_len, b_len) = module.side_lengths(term);
        for pair in rest.by_ref().take(term.rank) {
            if pair.a.len() != a_len || pair.b.len() != b_len {
                return Err(format!(
                    "a pair has {}+{} integers, expected {a_len}+{b_len}",
                    pair.a.len(),
                    pair.b.len()
                ));
            }
            let fits = |values: &[i32], bits: u32| {
                values.iter().all(|v| v.unsigned_abs() < 1 << (bits - 1))
            };
            if !fits(&pair.a, module.a_bits) || !fits(&pair.b, module.b_bits) {
                return Err(format!(
                    "an integer does not fit in a_bits = {}, b_bits = {}",
                    module.a_bits, module.b_bits
                ));
            }
        }
    }
    let bound = certified_bound(module, pairs).ok_or("the bound on its deltas overflows")?;
    if bound >= 1u128 << module.delta_bits {
        return Err(format!(
            "its deltas may reach 2^{}, the manifest says 2^{}",
            bound.ilog2() + 1,
            module.delta_bits
        ));
    }
    Ok(())
}

/// How large the deltas of a module and what they are computed from can become, exactly, for
/// activations of up to `2^(x_bits−1)` (docs/protocol.md, "Quantisation"):
///
/// ```text
/// 2^(x_bits−1) · max_k (Σ_j ‖A_j‖₁·|B_jk| + Σ 2^shift·|b_k| + Σ 2^shift·|g_k|)
/// ```
///
/// or a larger `2^(x_bits−1)·‖A_j‖₁`, which bounds the inner products, also where B is zero. The
/// sum of absolute values bounds every partial sum in any order.
///
/// Its methods return None if a number overflows a `u128`.
#[derive(Debug, Clone, Default)]
pub struct DeltaBound {
    outputs: Vec<u128>,
    inner: u128,
}

impl DeltaBound {
    /// Adds a pair of vectors `A_j` and `B_j`.
    pub fn low_rank(&mut self, a: &[i32], b: &[i32]) -> Option<()> {
        let norm: u128 = a.iter().map(|value| u128::from(value.unsigned_abs())).sum();
        self.inner = self.inner.max(norm);
        self.add(b, norm)
    }

    /// Adds the row of a bias, or the factors of the base layer's output.
    pub fn shifted(&mut self, row: &[i32], shift: u32) -> Option<()> {
        self.add(row, 1u128.checked_shl(shift)?)
    }

    fn add(&mut self, row: &[i32], factor: u128) -> Option<()> {
        self.outputs.resize(self.outputs.len().max(row.len()), 0);
        for (output, value) in self.outputs.iter_mut().zip(row) {
            let more = factor.checked_mul(u128::from(value.unsigned_abs()))?;
            *output = output.checked_add(more)?;
        }
        Some(())
    }

    /// The bound.
    pub fn with_x_bits(&self, x_bits: u32) -> Option<u128> {
        let outputs = self.outputs.iter().copied().max().unwrap_or(0);
        outputs.max(self.inner).checked_mul(1u128.checked_shl(x_bits.checked_sub(1)?)?)
    }
}

/// The bound on the deltas of a module with these weights ([`DeltaBound`]).
pub fn certified_bound(module: &Module, pairs: &[PairWeights]) -> Option<u128> {
    let mut bound = DeltaBound::default();
    let mut rest = pairs.iter();
    for term in &module.terms {
        for pair in rest.by_ref().take(term.rank) {
            match term.kind {
                TermKind::LowRank => bound.low_rank(&pair.a, &pair.b),
                TermKind::Bias => bound.shifted(&pair.b, term.shift),
                TermKind::Scale => bound.shifted(&pair.a, term.shift),
            }?;
        }
    }
    bound.with_x_bits(module.x_bits)
}
