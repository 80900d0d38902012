//! Chooses bit widths: the smallest predicted error among those whose bound may fit.
//!
//! Works on statistics of the weights, which are computed once; `bound` computes the exact
//! certificate on the integers.

use zklora_artifacts::{
    powers_of_two::{fitting_exponent, largest, pow2},
    row_quantizer::X_BITS,
};
use zklora_proof::manifest::MAX_WEIGHT_BITS;

use super::error::QuantizeError;
use crate::linear_map::{LinearMap, Term};

/// Allowed bits of `A` (smallest, largest), as in the manifest.
pub const A_BITS: (u32, u32) = (2, MAX_WEIGHT_BITS);
/// Allowed bits of `B`, biases and element scales.
pub const B_BITS: (u32, u32) = (2, MAX_WEIGHT_BITS);
/// The ratio of the largest activation of a row to their root mean square that the prediction
/// assumes.
pub const CREST_FACTOR: f64 = 32.0;

const AUTOMATIC_X: std::ops::RangeInclusive<u32> = 20..=24;
/// Fewest bits of `A` and `B` that are chosen.
const LEAST_AUTOMATIC: u32 = 6;
/// Most bits of `A` and `B` that are chosen, if nothing else is asked for.
pub const MOST_AUTOMATIC: u32 = 18;

/// Bit widths, each including the sign.
///
/// The automatic choice predicts the relative error of a delta, `ε² = N/S + c²/(12·4^(x-1))`.
/// Rounding to a grid of step 1 adds uniform noise of variance 1/12 (Bennett, "Spectra of quantized
/// signals", 1948). For independent activations of equal power, the signal `S` and the noise `N` of
/// rounded weights are, in integer units:
///
/// ```text
/// S = Σ_j ‖A_j‖²‖B_j‖² + Σ 4^shift ‖b‖² + Σ 4^shift ‖g‖²
/// N = Σ_j (d_in ‖B_j‖² + d_out ‖A_j‖²)/12 + Σ 4^shift d_out/12
/// ```
///
/// Activations are rounded at `2^(x-1)/c` steps per root mean square; `c` is [`CREST_FACTOR`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits {
    /// Bits of activations.
    pub x: u32,
    /// Bits of `A`.
    pub a: u32,
    /// Bits of `B`, biases and element scales.
    pub b: u32,
}

impl Bits {
    pub(super) fn check(self) -> Result<(), QuantizeError> {
        for (which, bits, (min, max)) in
            [("x", self.x, X_BITS), ("A", self.a, A_BITS), ("B", self.b, B_BITS)]
        {
            if !(min..=max).contains(&bits) {
                return Err(QuantizeError::BitRange { which, bits, min, max });
            }
        }
        Ok(())
    }
}

/// Statistics of the real weights, which predict the error and the bound of any choice of bits.
pub(super) struct WeightStatistics {
    components: Vec<Component>,
    rows: Vec<Row>,
    d_out: f64,
    /// `max_k (Σ_j ‖A_j‖₁·|B_jk| + Σ|b_k| + Σ|g_k|)`, in real units.
    largest_gain: f64,
    /// Whether a term is an element scale.
    scales_elements: bool,
}

/// One rank component: a column of A and a row of B, the folded factor included in B.
struct Component {
    d_in: f64,
    a_max: f64,
    a_power: f64,
    b_max: f64,
    b_power: f64,
}

/// A bias or an element scale, the folded factor included.
struct Row {
    max: f64,
    power: f64,
}

impl WeightStatistics {
    pub fn new(map: &LinearMap, folded: f64) -> Result<Self, QuantizeError> {
        let mut statistics = Self {
            components: vec![],
            rows: vec![],
            d_out: map.d_out as f64,
            largest_gain: 0.0,
            scales_elements: false,
        };
        let mut gains = vec![0.0; map.d_out];
        for (index, term) in map.terms.iter().enumerate() {
            let weights =
                |what| QuantizeError::Weights { name: map.name.clone(), term: index, what };
            match term {
                Term::LowRank { a, b, .. } => {
                    for j in 0..a.cols {
                        let column = || a.data.iter().skip(j).step_by(a.cols).copied();
                        let row = || b.row(j).iter().map(|value| value * folded);
                        let (a_max, a_sum, a_power) = norms(column()).map_err(weights)?;
                        let (b_max, _, b_power) = norms(row()).map_err(weights)?;
                        gains.iter_mut().zip(row()).for_each(|(gain, b)| *gain += a_sum * b.abs());
                        statistics.components.push(Component {
                            d_in: a.rows as f64,
                            a_max,
                            a_power,
                            b_max,
                            b_power,
                        });
                    }
                }
                Term::Bias { b: row } | Term::ElementScale { g: row, .. } => {
                    let row = || row.iter().map(|value| value * folded);
                    let (max, _, power) = norms(row()).map_err(weights)?;
                    gains.iter_mut().zip(row()).for_each(|(gain, value)| *gain += value.abs());
                    statistics.rows.push(Row { max, power });
                }
            }
        }
        statistics.scales_elements =
            map.terms.iter().any(|term| matches!(term, Term::ElementScale { .. }));
        statistics.largest_gain = gains.into_iter().fold(0.0, f64::max);
        Ok(statistics)
    }

    /// The output step's exponent: the finest for which all of B fits (without low-rank terms, all
    /// other rows).
    pub fn scale_log2(&self, a_bits: u32, b_bits: u32) -> i32 {
        let limit = largest(a_bits) as f64;
        let b_max = self.components.iter().map(|c| c.a_max / limit * c.b_max).fold(0.0, f64::max);
        let row_max = self.rows.iter().map(|row| row.max).fold(0.0, f64::max);
        match (b_max > 0.0, row_max > 0.0) {
            (true, _) => fitting_exponent(b_max, largest(b_bits)),
            (false, true) => fitting_exponent(row_max, largest(b_bits)),
            (false, false) => 0,
        }
    }

    /// All automatic choices whose bound may fit, with at most `most` bits of `A` and `B`, best
    /// first.
    pub fn candidates(&self, most: u32) -> Vec<Bits> {
        let mut rated = vec![];
        let widths = LEAST_AUTOMATIC..=most;
        for (a, b) in widths.clone().flat_map(|a| widths.clone().map(move |b| (a, b))) {
            // Factors of an element scale are rounded to b bits, but committed on the A side, which
            // has a bits.
            if self.scales_elements && a < b {
                continue;
            }
            let scale_log2 = self.scale_log2(a, b);
            let weight_error = self.weight_error(a, b, scale_log2);
            for x in AUTOMATIC_X {
                let bits = Bits { x, a, b };
                // Rounding changes the exact bound a little. The certificate decides; this estimate
                // only skips widths far above the bound.
                let estimate = self.largest_gain / pow2(scale_log2) * pow2(x as i32 - 1);
                if estimate < 1.1 * pow2(63) {
                    let step = CREST_FACTOR / pow2(x as i32 - 1);
                    rated.push((weight_error + step * step / 12.0, bits));
                }
            }
        }
        rated.sort_by(|(left, l), (right, r)| {
            left.total_cmp(right).then((l.x, l.a, l.b).cmp(&(r.x, r.a, r.b)))
        });
        rated.into_iter().map(|(_, bits)| bits).collect()
    }

    /// `N/S` of the formula at [`Bits`]; 0 if all weights are zero.
    fn weight_error(&self, a_bits: u32, b_bits: u32, scale_log2: i32) -> f64 {
        let step = pow2(scale_log2);
        let (mut signal, mut noise) = (0.0, 0.0);
        for component in self.components.iter().filter(|component| component.a_max > 0.0) {
            let a_step = component.a_max / largest(a_bits) as f64;
            let a_power = component.a_power / a_step / a_step;
            let b_power = component.b_power * (a_step / step) * (a_step / step);
            signal += a_power * b_power;
            noise += (component.d_in * b_power + self.d_out * a_power) / 12.0;
        }
        for row in &self.rows {
            let shifted = pow2(shift(row.max, b_bits, scale_log2) as i32);
            signal += row.power / step / step;
            noise += shifted * shifted * self.d_out / 12.0;
        }
        if signal > 0.0 { noise / signal } else { 0.0 }
    }
}

/// The smallest exponent of at least 0 for which a row with the largest value `max` fits, if it is
/// divided by that power of two times the output step.
pub(super) fn shift(max: f64, b_bits: u32, scale_log2: i32) -> u32 {
    if max > 0.0 {
        (fitting_exponent(max, largest(b_bits)) - scale_log2).max(0).unsigned_abs()
    } else {
        0
    }
}

/// Largest absolute value, sum of absolute values and sum of squares; the error says what is wrong
/// with the numbers.
///
/// A vector is zero, or its largest value is in a range in which products and quotients of two such
/// values neither overflow nor become subnormal.
fn norms(values: impl Iterator<Item = f64>) -> Result<(f64, f64, f64), String> {
    let (mut max, mut sum, mut power) = (0.0f64, 0.0, 0.0);
    for value in values {
        if !value.is_finite() {
            return Err("a value that is NaN or infinite".into());
        }
        max = max.max(value.abs());
        sum += value.abs();
        power += value * value;
    }
    if max != 0.0 && !(pow2(-200)..=pow2(200)).contains(&max) {
        return Err(format!("a vector whose largest value is {max:e}, outside 2^-200..=2^200"));
    }
    Ok((max, sum, power))
}
