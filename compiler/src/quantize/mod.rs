//! [`LinearMap`] → integers, with a certified bound on every delta (docs/protocol.md,
//! "Quantisation").
//!
//! `bits` chooses bit widths from the weights, `round` makes the integers, `bound` certifies them,
//! `reference` computes deltas with them, `rows` quantises activations. Knows nothing of
//! commitments or fields: all that the proof needs is that integers are small. Only the basic IEEE
//! operations are used, in a fixed order, so the same weights give the same integers anywhere.

mod bits;
mod bound;
mod error;
mod reference;
mod round;

pub use bits::{A_BITS, B_BITS, Bits, CREST_FACTOR};
pub use error::QuantizeError;

use crate::linear_map::LinearMap;
use bits::Plan;

/// How far the map's scale may be from the public scaling without the ratio being folded into the
/// weights.
const SCALING_TOLERANCE: f64 = 1e-6;

/// An integer module: `delta ≈ (Σ terms) · s_row · scaling · 2^scale_log2`.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// Activations satisfy `|x_q| < 2^(x_bits-1)`.
    pub x_bits: u32,
    /// Weights of `A` satisfy `|A_q| < 2^(a_bits-1)`.
    pub a_bits: u32,
    /// Weights of `B`, of biases and of element scales satisfy `|B_q| < 2^(b_bits-1)`.
    pub b_bits: u32,
    /// Every delta that in-range activations can give satisfies `|D_q| < 2^delta_bits`; at most
    /// 63. The only thing about the bound that may be published.
    pub delta_bits: u32,
    /// The public LoRA scaling.
    pub scaling: f64,
    /// The exponent of the public output scale.
    pub scale_log2: i32,
    /// The integer terms, in the order of the map's.
    pub terms: Vec<QuantizedTerm>,
}

/// One integer term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuantizedTerm {
    /// `x_q · A_q · B_q`.
    LowRank {
        /// Index of the input.
        input: usize,
        /// The columns of `A_q`: r vectors of length d_in.
        a: Vec<Vec<i32>>,
        /// The rows of `B_q`: r vectors of length d_out.
        b: Vec<Vec<i32>>,
    },
    /// `2^shift · w · b_q`, where `w` is the integer that stands for 1 at the row's scale.
    Bias {
        /// The public power of two.
        shift: u32,
        /// The row, of length d_out.
        b: Vec<i32>,
    },
    /// `2^shift · y_q ∘ g_q`.
    ElementScale {
        /// Index of the input.
        input: usize,
        /// The public power of two.
        shift: u32,
        /// The factors, of length d_out.
        g: Vec<i32>,
    },
}

/// Quantises a map.
///
/// `scaling` is the public LoRA scaling; if the map's scale differs from it by more than a
/// millionth, the ratio goes into the weights. `None` puts all of the map's scale into the weights
/// and publishes 1. `bits` forces bit widths; `None` chooses those with the smallest predicted
/// error (see [`Bits`]) whose bound is certified.
///
/// # Errors
/// [`QuantizeError`]: a malformed map, weights out of range, or no bit widths that keep deltas below 2^63.
pub fn quantize(
    map: &LinearMap,
    scaling: Option<f64>,
    bits: Option<Bits>,
) -> Result<Quantized, QuantizeError> {
    map.check()?;
    let published = scaling.unwrap_or(1.0);
    let folded = folded_factor(map.scale, scaling)?;
    let plan = Plan::new(map, folded)?;
    let attempt = |bits: Bits| -> Result<Quantized, QuantizeError> {
        let (terms, scale_log2) = round::round(map, &plan, bits, folded)?;
        let delta_bits = bound::delta_bits(&terms, bits.x).ok_or_else(|| QuantizeError::Bound {
            name: map.name.clone(),
            x: bits.x,
            a: bits.a,
            b: bits.b,
        })?;
        let Bits { x: x_bits, a: a_bits, b: b_bits } = bits;
        Ok(Quantized { x_bits, a_bits, b_bits, delta_bits, scaling: published, scale_log2, terms })
    };
    if let Some(bits) = bits {
        bits.check()?;
        return attempt(bits);
    }
    for bits in plan.candidates() {
        match attempt(bits) {
            // The estimate was too hopeful; take the next best.
            Err(QuantizeError::Bound { .. }) => {}
            decided => return decided,
        }
    }
    Err(QuantizeError::NoBits { name: map.name.clone() })
}

/// The best predicted bit widths for each automatic width of the activations, best first: what
/// calibration chooses among.
///
/// # Errors
/// [`QuantizeError`]: a malformed map or weights out of range.
pub fn choices(map: &LinearMap, scaling: Option<f64>) -> Result<Vec<Bits>, QuantizeError> {
    map.check()?;
    let mut seen = std::collections::BTreeSet::new();
    let candidates = Plan::new(map, folded_factor(map.scale, scaling)?)?.candidates();
    Ok(candidates.into_iter().filter(|bits| seen.insert(bits.x)).collect())
}

/// The factor that goes into the weights, for `map_scale = factor · scaling`.
fn folded_factor(map_scale: f64, scaling: Option<f64>) -> Result<f64, QuantizeError> {
    let Some(scaling) = scaling else { return Ok(map_scale) };
    if !scaling.is_normal() {
        return Err(QuantizeError::Scaling { scaling });
    }
    if (map_scale - scaling).abs() <= SCALING_TOLERANCE * scaling.abs() {
        return Ok(1.0);
    }
    let ratio = map_scale / scaling;
    if ratio.is_finite() { Ok(ratio) } else { Err(QuantizeError::Scaling { scaling }) }
}

#[cfg(test)]
mod tests;
