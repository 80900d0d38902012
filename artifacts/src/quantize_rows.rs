//! Activations → integers, with a scale per row.
//!
//! The relation is linear in each row, so the scale needs no proof: the user may choose it freely
//! (docs/protocol.md, "Quantisation").

use crate::powers_of_two::largest;

/// Bit widths of quantised activations, smallest and largest.
pub const X_BITS: (u32, u32) = (2, 24);

/// Why rows cannot be quantised.
#[derive(Debug, thiserror::Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum RowError {
    /// A bit width outside of what the format allows.
    #[error("x = {bits} bits is outside {min}..={max}")]
    BitRange {
        /// The width asked for.
        bits: u32,
        /// Smallest allowed.
        min: u32,
        /// Largest allowed.
        max: u32,
    },
    /// An activation is NaN or infinite.
    #[error("row {row} of the input has a value that is NaN or infinite")]
    NonFiniteRow {
        /// Index of the row.
        row: usize,
    },
    /// The constant 1 has no integer at the row's scale.
    #[error(
        "row {row} reaches {max:e}: the constant 1 of the bias has no integer at that scale; use \
         more bits for x"
    )]
    NoOne {
        /// Index of the row.
        row: usize,
        /// The largest absolute value of the row.
        max: f64,
    },
    /// Inputs that do not fit the module.
    #[error("inputs do not fit: {what}")]
    Inputs {
        /// What does not fit.
        what: String,
    },
}

/// Integer rows of all inputs of a module, which share one scale per row.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedRows {
    /// Per input: `[rows, dim]` integers below `2^(x_bits-1)`.
    pub inputs: Vec<Vec<i32>>,
    /// Per row: the real number that the integer 1 stands for.
    pub scales: Vec<f32>,
    /// Per row: the integer that stands for 1, if it was asked for.
    pub ones: Option<Vec<i32>>,
}

/// Quantises all inputs of a module, each given with its row length, at one scale per row:
/// `x ≈ x_q · scale`. A row of zeros has scale 1.
///
/// With `with_one`, for modules with a bias, each row also gets the integer `w` that stands for 1:
/// `w = ⌊(2^(x_bits-1) - 1) / max(1, max|x|)⌋` is chosen first and the scale is `1/w`, so that `w`
/// is exact.
///
/// # Errors
/// [`RowError::NonFiniteRow`], [`RowError::NoOne`] if a row is so large that `w` would be 0, and
/// [`RowError::Inputs`] if the inputs are not whole rows, or differ in their number of rows.
pub fn quantize_inputs(
    inputs: &[(&[f32], usize)],
    x_bits: u32,
    with_one: bool,
) -> Result<QuantizedRows, RowError> {
    let (min, max) = X_BITS;
    if !(min..=max).contains(&x_bits) {
        return Err(RowError::BitRange { bits: x_bits, min, max });
    }
    let rows = inputs.first().map_or(0, |(x, dim)| x.len().checked_div(*dim).unwrap_or(0));
    if let Some((x, dim)) = inputs.iter().find(|(x, dim)| *dim == 0 || x.len() != rows * dim) {
        return Err(RowError::Inputs {
            what: format!("{} values are not {rows} row(s) of {dim}", x.len()),
        });
    }
    let limit = largest(x_bits) as f64;
    let mut quantized = QuantizedRows {
        inputs: inputs.iter().map(|(x, _)| Vec::with_capacity(x.len())).collect(),
        scales: Vec::with_capacity(rows),
        ones: with_one.then(|| Vec::with_capacity(rows)),
    };
    for row in 0..rows {
        let slices = inputs.iter().map(|(x, dim)| &x[row * dim..(row + 1) * dim]);
        // Two passes without a branch in them, rather than one with: both become vector
        // instructions.
        if !slices
            .clone()
            .all(|slice| slice.iter().fold(true, |finite, value| finite & value.is_finite()))
        {
            return Err(RowError::NonFiniteRow { row });
        }
        let max = slices.clone().flatten().fold(0f32, |max, value| max.max(value.abs()));
        let max = f64::from(max);
        let scale = match &mut quantized.ones {
            Some(ones) => {
                let one = (limit / max.max(1.0)).floor();
                if one < 1.0 {
                    return Err(RowError::NoOne { row, max });
                }
                ones.push(one as i32);
                (1.0 / one) as f32
            }
            None => row_scale(max, limit),
        };
        quantized.scales.push(scale);
        for (integers, slice) in quantized.inputs.iter_mut().zip(slices) {
            // To the nearest integer, halves away from zero: the conversion cuts the fraction off.
            let integer = |value: &f32| {
                let exact = (f64::from(*value) / f64::from(scale)).clamp(-limit, limit);
                (exact + 0.5f64.copysign(exact)) as i32
            };
            integers.extend(slice.iter().map(integer));
        }
    }
    Ok(quantized)
}

/// The finest normal scale at which `max` does not exceed `limit`.
fn row_scale(max: f64, limit: f64) -> f32 {
    if max == 0.0 {
        return 1.0;
    }
    let mut scale = ((max / limit) as f32).max(f32::MIN_POSITIVE);
    if (max / f64::from(scale)).round() > limit {
        scale = scale.next_up(); // The division rounded down.
    }
    scale
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_are_integers_at_the_finest_scale() {
        let rows = |x: &[f32]| quantize_inputs(&[(x, 2)], 24, false);
        let QuantizedRows { inputs, scales, ones } =
            rows(&[1.0, -2.0, 0.0, 0.0, 3e38, 1e-3]).unwrap();
        let (x, largest) = (&inputs[0], (1 << 23) - 1);
        assert_eq!(x[..4], [(largest + 1) / 2, -largest, 0, 0]);
        assert!(x[4] >= largest - 1 && x[4] <= largest);
        assert_eq!((scales[1], ones), (1.0, None));
        assert_eq!(rows(&[0.0, 1.0, f32::NAN, 0.0]), Err(RowError::NonFiniteRow { row: 1 }));
        assert!(matches!(rows(&[0.0; 3]), Err(RowError::Inputs { .. })));
    }

    #[test]
    fn the_constant_one_is_exact() {
        let rows = quantize_inputs(&[(&[0.5, 100.0], 1)], 24, true).unwrap();
        let (x, scale, ones) = (rows.inputs[0][1], f64::from(rows.scales[1]), rows.ones.unwrap());
        assert_eq!(ones, [8_388_607, 83_886]);
        assert!(x <= 8_388_607 && (f64::from(x) * scale - 100.0).abs() < 1e-4);
        assert!((f64::from(ones[1]) * scale - 1.0).abs() < 1e-7);
        let too_large = quantize_inputs(&[(&[1e10], 1)], 24, true);
        assert!(matches!(too_large, Err(RowError::NoOne { row: 0, .. })));
    }
}
