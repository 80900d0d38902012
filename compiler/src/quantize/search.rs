//! Quantises a map: with the bit widths given, or with those that predict the smallest error and
//! whose bound is certified.

use super::{
    bits::{Bits, MOST_AUTOMATIC, WeightStatistics},
    bound,
    error::QuantizeError,
    quantized::Quantized,
    round,
};
use crate::linear_map::LinearMap;

/// Largest relative difference between the map's scale and the public scaling for which the ratio
/// is not folded into the weights.
const SCALING_TOLERANCE: f64 = 1e-6;

/// How to choose bit widths.
#[derive(Clone, Copy)]
enum Choice {
    Given(Bits),
    /// Those with the smallest predicted error, with at most so many bits of `A` and `B`.
    Within(u32),
}

/// Quantises a map.
///
/// `scaling` is the public LoRA scaling; if the map's scale differs from it by more than a
/// millionth, the ratio goes into the weights. `None` puts all of the map's scale into the weights
/// and publishes 1. `bits` forces bit widths; `None` chooses those with the smallest predicted
/// error (see [`Bits`]) whose bound is certified.
///
/// # Errors
/// [`QuantizeError`]: a malformed map, weights out of range, or no bit widths that keep deltas
/// below 2^63.
pub fn quantize(
    map: &LinearMap,
    scaling: Option<f64>,
    bits: Option<Bits>,
) -> Result<Quantized, QuantizeError> {
    choose(map, scaling, bits.map_or(Choice::Within(MOST_AUTOMATIC), Choice::Given))
}

/// Quantises a map as [`quantize`] without `bits`, but with at most `most` bits of `A` and `B`.
///
/// # Errors
/// Those of [`quantize`].
pub fn quantize_within(
    map: &LinearMap,
    scaling: Option<f64>,
    most: u32,
) -> Result<Quantized, QuantizeError> {
    choose(map, scaling, Choice::Within(most))
}

fn choose(
    map: &LinearMap,
    scaling: Option<f64>,
    choice: Choice,
) -> Result<Quantized, QuantizeError> {
    map.check()?;
    let published = scaling.unwrap_or(1.0);
    let folded = folded_factor(map.scale, scaling)?;
    let statistics = WeightStatistics::new(map, folded)?;
    let attempt = |bits: Bits| -> Result<Quantized, QuantizeError> {
        let (terms, scale_log2) = round::round(map, &statistics, bits, folded)?;
        let delta_bits = bound::delta_bits(&terms, bits.x).ok_or_else(|| QuantizeError::Bound {
            name: map.name.clone(),
            x: bits.x,
            a: bits.a,
            b: bits.b,
        })?;
        let Bits { x: x_bits, a: a_bits, b: b_bits } = bits;
        Ok(Quantized { x_bits, a_bits, b_bits, delta_bits, scaling: published, scale_log2, terms })
    };
    let most = match choice {
        Choice::Given(bits) => {
            bits.check()?;
            return attempt(bits);
        }
        Choice::Within(most) => most,
    };
    for bits in statistics.candidates(most) {
        match attempt(bits) {
            // The estimate was too low; try the next candidate.
            Err(QuantizeError::Bound { .. }) => {}
            decided => return decided,
        }
    }
    Err(QuantizeError::NoBits { name: map.name.clone() })
}

/// The candidates for calibration: for each automatic width of the activations, the bit widths with
/// the smallest predicted error and at most `most` bits of `A` and `B`, best first.
///
/// # Errors
/// [`QuantizeError`]: a malformed map or weights out of range.
pub fn candidates(
    map: &LinearMap,
    scaling: Option<f64>,
    most: u32,
) -> Result<Vec<Bits>, QuantizeError> {
    map.check()?;
    let mut seen = std::collections::BTreeSet::new();
    let statistics = WeightStatistics::new(map, folded_factor(map.scale, scaling)?)?;
    let candidates = statistics.candidates(most);
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
