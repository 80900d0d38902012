//! Rounds real weights to integers, for chosen bit widths.

use zklora_artifacts::powers_of_two::{largest, pow2};

use super::{
    bits::{Bits, WeightStatistics, shift},
    error::QuantizeError,
    quantized::QuantizedTerm,
};
use crate::linear_map::{LinearMap, Term};

/// The integer terms and the exponent of the output step.
///
/// Column `j` of `A` is divided by its own step `max|A_j| / (2^(a_bits-1) - 1)`. The step stays
/// private: row `j` of `B` is multiplied by it. All of `B` is then divided by one step, a power of
/// two.
pub(super) fn round(
    map: &LinearMap,
    statistics: &WeightStatistics,
    bits: Bits,
    folded: f64,
) -> Result<(Vec<QuantizedTerm>, i32), QuantizeError> {
    let scale_log2 = statistics.scale_log2(bits.a, bits.b);
    let (a_limit, b_limit) = (largest(bits.a) as f64, largest(bits.b) as f64);
    let integer = |value: f64, limit: f64| value.round().clamp(-limit, limit) as i32;
    let shifted_row = |row: &[f64]| {
        let max = row.iter().fold(0.0f64, |max, value| max.max((value * folded).abs()));
        let shift = shift(max, bits.b, scale_log2);
        let step = pow2(scale_log2 + shift as i32);
        (shift, row.iter().map(|value| integer(value * folded / step, b_limit)).collect())
    };
    let mut terms = Vec::with_capacity(map.terms.len());
    for (index, term) in map.terms.iter().enumerate() {
        terms.push(match term {
            Term::LowRank { input, a, b } => {
                let (mut a_rows, mut b_rows) =
                    (Vec::with_capacity(a.cols), Vec::with_capacity(a.cols));
                for j in 0..a.cols {
                    let column = || a.data.iter().skip(j).step_by(a.cols);
                    let max = column().fold(0.0f64, |max, value| max.max(value.abs()));
                    // A column of zeros has no step. Its row of B has no effect and becomes zero,
                    // too.
                    let a_step = if max > 0.0 { max / a_limit } else { 1.0 };
                    let b_factor = if max > 0.0 { a_step / pow2(scale_log2) } else { 0.0 };
                    a_rows.push(column().map(|value| integer(value / a_step, a_limit)).collect());
                    b_rows.push(
                        b.row(j)
                            .iter()
                            .map(|value| integer(value * folded * b_factor, b_limit))
                            .collect(),
                    );
                }
                QuantizedTerm::LowRank { input: *input, a: a_rows, b: b_rows }
            }
            Term::Bias { b } => {
                let (shift, b) = shifted_row(b);
                QuantizedTerm::Bias { shift, b }
            }
            Term::ElementScale { input, g } => {
                let (shift, g) = shifted_row(g);
                QuantizedTerm::ElementScale { input: *input, shift, g }
            }
        });
        if let Some(QuantizedTerm::Bias { shift, .. } | QuantizedTerm::ElementScale { shift, .. }) =
            terms.last()
            && *shift > 62
        {
            let what = "values too large next to those of the other terms".into();
            return Err(QuantizeError::Weights { name: map.name.clone(), term: index, what });
        }
    }
    Ok((terms, scale_log2))
}
