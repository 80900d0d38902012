//! Activations → integers, with a scale per row.
//!
//! The relation is linear in each row, so the scale needs no proof: the user may choose it freely
//! (docs/protocol.md, "Quantisation").

use super::{QuantizeError, X_BITS, binary::largest};

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

/// Quantises rows of length `dim`: integers and one scale per row, `x ≈ x_q · scale`. A row of
/// zeros has scale 1.
///
/// # Errors
/// [`QuantizeError`]: a value that is not finite, or a length that is no multiple of `dim`.
pub fn quantize_rows(
    x: &[f32],
    dim: usize,
    x_bits: u32,
) -> Result<(Vec<i32>, Vec<f32>), QuantizeError> {
    let rows = quantize_inputs(&[(x, dim)], x_bits, false)?;
    Ok((rows.inputs.into_iter().flatten().collect(), rows.scales))
}

/// Integers, one scale per row, and per row the integer that stands for 1.
pub type RowsWithOne = (Vec<i32>, Vec<f32>, Vec<i32>);

/// As [`quantize_rows`], for modules with a bias: also returns, per row, the integer `w` that
/// stands for 1.
///
/// `w = ⌊(2^(x_bits-1) - 1) / max(1, max|x|)⌋` is chosen first and the scale is `1/w`, so that `w`
/// is exact.
///
/// # Errors
/// As [`quantize_rows`], and [`QuantizeError::NoOne`] if a row is so large that `w` would be 0.
pub fn quantize_rows_with_one(
    x: &[f32],
    dim: usize,
    x_bits: u32,
) -> Result<RowsWithOne, QuantizeError> {
    let rows = quantize_inputs(&[(x, dim)], x_bits, true)?;
    Ok((rows.inputs.into_iter().flatten().collect(), rows.scales, rows.ones.unwrap_or_default()))
}

/// Quantises all inputs of a module, each given with its row length, at one scale per row.
///
/// # Errors
/// As [`quantize_rows_with_one`], and [`QuantizeError::Inputs`] if the inputs differ in their
/// number of rows.
pub fn quantize_inputs(
    inputs: &[(&[f32], usize)],
    x_bits: u32,
    with_one: bool,
) -> Result<QuantizedRows, QuantizeError> {
    let (min, max) = X_BITS;
    if !(min..=max).contains(&x_bits) {
        return Err(QuantizeError::BitRange { which: "x", bits: x_bits, min, max });
    }
    let rows = inputs.first().map_or(0, |(x, dim)| x.len().checked_div(*dim).unwrap_or(0));
    if let Some((x, dim)) = inputs.iter().find(|(x, dim)| *dim == 0 || x.len() != rows * dim) {
        return Err(QuantizeError::Inputs {
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
            return Err(QuantizeError::NonFiniteRow { row });
        }
        let max = slices.clone().flatten().fold(0f32, |max, value| max.max(value.abs()));
        let max = f64::from(max);
        let scale = match &mut quantized.ones {
            Some(ones) => {
                let one = (limit / max.max(1.0)).floor();
                if one < 1.0 {
                    return Err(QuantizeError::NoOne { row, max });
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
