//! Quantises activations to integers, with one scale per row.
//!
//! The relation is linear in each row, so the scale needs no proof: the user may choose it freely
//! (docs/protocol.md, "Quantisation"). This module must not depend on weights or ONNX, because
//! users of a base model quantise rows without a compiler.

use thiserror::Error;
use zklora_proof::manifest::MAX_X_BITS;

use crate::powers_of_two::largest;

/// Allowed bits of activations (smallest, largest), as in the manifest.
pub const X_BITS: (u32, u32) = (2, MAX_X_BITS);

/// Why rows cannot be quantised.
#[derive(Debug, Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum RowError {
    /// The format does not allow this bit width.
    #[error("x = {bits} bits is outside {min}..={max}", min = X_BITS.0, max = X_BITS.1)]
    Bits {
        /// The width asked for.
        bits: u32,
    },
    /// An activation is NaN or infinite.
    #[error("row {row} of the input has a value that is NaN or infinite")]
    NonFinite {
        /// Index of the row.
        row: usize,
    },
    /// The constant 1 has no integer at the row's scale.
    #[error(
        "row {row} reaches {max:e}: the constant 1 of the bias has no integer at that scale; use more bits for x"
    )]
    NoOne {
        /// Index of the row.
        row: usize,
        /// The largest absolute value of the row.
        max: f64,
    },
    /// An input is not a whole number of rows, or not the same number as the first input.
    #[error("inputs do not fit: {values} values are not {rows} row(s) of {dim}")]
    Length {
        /// Values given.
        values: usize,
        /// Rows expected.
        rows: usize,
        /// Length of a row.
        dim: usize,
    },
}

impl RowError {
    /// The same error where `rows` rows come before those that were quantised.
    pub fn after(self, rows: usize) -> RowError {
        match self {
            RowError::NonFinite { row } => RowError::NonFinite { row: rows + row },
            RowError::NoOne { row, max } => RowError::NoOne { row: rows + row, max },
            other => other,
        }
    }
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

/// Quantises all inputs of a module, each given with its row length: integers and one scale per
/// row, `x ≈ x_q · scale`. A row of zeros has scale 1.
///
/// With `with_one`, for modules with a bias, each row also gets the integer `w` that stands for 1.
/// `w = ⌊(2^(x_bits-1) - 1) / max(1, max|x|)⌋` is chosen first and the scale is `1/w`, so that `w`
/// is exact.
///
/// # Errors
/// [`RowError`]: bits that the format does not allow, a value that is not finite, inputs that are
/// not the same number of whole rows, or a row so large that `w` would be 0.
pub fn quantize_inputs(
    inputs: &[(&[f32], usize)],
    x_bits: u32,
    with_one: bool,
) -> Result<QuantizedRows, RowError> {
    let (min, max) = X_BITS;
    if !(min..=max).contains(&x_bits) {
        return Err(RowError::Bits { bits: x_bits });
    }
    let rows = inputs.first().map_or(0, |(x, dim)| x.len().checked_div(*dim).unwrap_or(0));
    if let Some((x, dim)) = inputs.iter().find(|(x, dim)| *dim == 0 || x.len() != rows * dim) {
        return Err(RowError::Length { values: x.len(), rows, dim: *dim });
    }
    let limit = largest(x_bits) as f64;
    let mut quantized = QuantizedRows {
        inputs: inputs.iter().map(|(x, _)| Vec::with_capacity(x.len())).collect(),
        scales: Vec::with_capacity(rows),
        ones: with_one.then(|| Vec::with_capacity(rows)),
    };
    for row in 0..rows {
        let slices = inputs.iter().map(|(x, dim)| &x[row * dim..(row + 1) * dim]);
        // Two passes without branches instead of one with a branch: both compile to vector
        // instructions.
        if !slices
            .clone()
            .all(|slice| slice.iter().fold(true, |finite, value| finite & value.is_finite()))
        {
            return Err(RowError::NonFinite { row });
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
            // Rounds to the nearest integer, halves away from zero: the conversion truncates.
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

    /// Integers and scales of rows of one input, at 24 bits.
    fn rows(x: &[f32], dim: usize) -> Result<(Vec<i32>, Vec<f32>), RowError> {
        quantize_inputs(&[(x, dim)], 24, false).map(|rows| (rows.inputs.concat(), rows.scales))
    }

    /// Integers, scales and the integers of the constant 1.
    type RowsWithOne = (Vec<i32>, Vec<f32>, Vec<i32>);

    /// As [`rows`] for rows of one value, with the integers of the constant 1.
    fn rows_with_one(x: &[f32]) -> Result<RowsWithOne, RowError> {
        quantize_inputs(&[(x, 1)], 24, true)
            .map(|rows| (rows.inputs.concat(), rows.scales, rows.ones.unwrap()))
    }

    #[test]
    fn rows_are_integers_at_the_finest_scale() {
        let (x, scales) = rows(&[1.0, -2.0, 0.0, 0.0, 3e38, 1e-3], 2).unwrap();
        let largest = (1 << 23) - 1;
        assert_eq!(x[..4], [(largest + 1) / 2, -largest, 0, 0]);
        assert!(x[4] >= largest - 1 && x[4] <= largest);
        assert_eq!(scales[1], 1.0);
        assert!(matches!(rows(&[0.0, 1.0, f32::NAN, 0.0], 2), Err(RowError::NonFinite { row: 1 })));
        assert!(matches!(rows(&[0.0; 3], 2), Err(RowError::Length { .. })));
    }

    #[test]
    fn the_constant_one_is_exact() {
        let (x, scales, ones) = rows_with_one(&[0.5, 100.0]).unwrap();
        assert_eq!(ones, [8_388_607, 83_886]);
        assert!(x[1] <= 8_388_607 && (f64::from(x[1]) * f64::from(scales[1]) - 100.0).abs() < 1e-4);
        assert!((f64::from(ones[1]) * f64::from(scales[1]) - 1.0).abs() < 1e-7);
        assert!(matches!(rows_with_one(&[1e10]), Err(RowError::NoOne { row: 0, .. })));
    }

    #[test]
    fn bits_that_the_format_does_not_allow_are_refused() {
        for bits in [0, 1, 25] {
            let refused = quantize_inputs(&[(&[0.5], 1)], bits, false);
            assert_eq!(refused, Err(RowError::Bits { bits }));
        }
    }
}
