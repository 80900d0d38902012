//! Chooses bit widths by measurement: quantises with each candidate, runs real activations, and
//! keeps the smallest error.
//!
//! Without activations, bit widths are chosen by prediction ([`crate::quantize::Bits`]). In both
//! cases the bound is certified for every activation that a user may send, not only for those seen
//! here.

use zklora_artifacts::row_quantizer::quantize_inputs;

use crate::{
    LinearMap,
    quantize::{Bits, QuantizeError, Quantized, candidates, quantize},
};

/// Most rows of a module that are measured.
pub const MAX_ROWS: usize = 1024;

/// Errors of dequantised deltas against the float map, over the measured rows.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Measured {
    /// `√(Σ (dequantised − float)² / Σ float²)`; 0 if all float deltas are zero.
    pub relative_rms: f64,
    /// Largest `|dequantised − float|`, in the units of the delta.
    pub largest: f64,
    /// Rows measured.
    pub rows: usize,
}

/// The quantisation with the smallest measured error on these inputs (one slice per input of the
/// map, whole rows), with at most `most` bits of `A` and `B`.
///
/// # Errors
/// [`QuantizeError`]: those of [`quantize`], and inputs that do not fit the map or are not finite.
pub fn calibrate(
    map: &LinearMap,
    scaling: Option<f64>,
    inputs: &[Vec<f32>],
    most: u32,
) -> Result<(Quantized, Measured), QuantizeError> {
    let mut best: Option<(Quantized, Measured)> = None;
    for bits in candidates(map, scaling, most)? {
        let quantized = match quantize(map, scaling, Some(bits)) {
            Err(QuantizeError::Bound { .. }) => continue,
            other => other?,
        };
        let measured = measure(map, &quantized, inputs)?;
        if best.as_ref().is_none_or(|(_, so_far)| measured.relative_rms < so_far.relative_rms) {
            best = Some((quantized, measured));
        }
    }
    best.ok_or_else(|| QuantizeError::NoBits { name: map.name.clone() })
}

/// The error of a quantisation on these inputs.
///
/// # Errors
/// [`QuantizeError`]: inputs that do not fit the map or are not finite.
pub fn measure(
    map: &LinearMap,
    quantized: &Quantized,
    inputs: &[Vec<f32>],
) -> Result<Measured, QuantizeError> {
    let misfit = |what: String| QuantizeError::Inputs { what };
    if inputs.len() != map.inputs.len() {
        return Err(misfit(format!("{} inputs for a map of {}", inputs.len(), map.inputs.len())));
    }
    let cut: Vec<(&[f32], usize)> = inputs
        .iter()
        .zip(&map.inputs)
        .map(|(values, spec)| {
            (&values[..values.len().min(MAX_ROWS.saturating_mul(spec.dim))], spec.dim)
        })
        .collect();
    let has_bias =
        quantized.terms.iter().any(|term| matches!(term, crate::QuantizedTerm::Bias { .. }));
    let rows = quantize_inputs(&cut, quantized.x_bits, has_bias)?;
    let integers: Vec<&[i32]> = rows.inputs.iter().map(Vec::as_slice).collect();
    let delta =
        quantized.dequantize(&quantized.delta(&integers, rows.ones.as_deref())?, &rows.scales)?;
    let floats: Vec<Vec<f64>> =
        cut.iter().map(|(values, _)| values.iter().map(|v| f64::from(*v)).collect()).collect();
    let float = map
        .apply(&floats.iter().map(Vec::as_slice).collect::<Vec<_>>())
        .map_err(|e| misfit(e.to_string()))?;
    let (mut error, mut energy, mut largest) = (0.0f64, 0.0f64, 0.0f64);
    for (quantised, float) in delta.iter().zip(&float) {
        let difference = quantised - float;
        error += difference * difference;
        energy += float * float;
        largest = largest.max(difference.abs());
    }
    let relative_rms = if energy > 0.0 { (error / energy).sqrt() } else { 0.0 };
    Ok(Measured { relative_rms, largest, rows: rows.scales.len() })
}

/// The bits of a quantisation.
pub fn bits_of(quantized: &Quantized) -> Bits {
    Bits { x: quantized.x_bits, a: quantized.a_bits, b: quantized.b_bits }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{InputSpec, Matrix, Term, quantize::MOST_AUTOMATIC};

    /// A map and activations whose rows have one feature that is `crest` times the others.
    fn case(crest: f32) -> (LinearMap, Vec<Vec<f32>>) {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f64 / f64::from(1u32 << 24) - 0.5
        };
        let matrix = |rows: usize, cols: usize, next: &mut dyn FnMut() -> f64| {
            Matrix::new(rows, cols, (0..rows * cols).map(|_| next()).collect()).unwrap()
        };
        let (a, b) = (matrix(96, 4, &mut next), matrix(4, 48, &mut next));
        let map = LinearMap {
            name: "m".into(),
            inputs: vec![InputSpec { name: "x".into(), dim: 96 }],
            d_out: 48,
            scale: 2.0,
            terms: vec![Term::LowRank { input: 0, a, b }],
        };
        let x =
            (0..32 * 96).map(|i| next() as f32 * if i % 96 == 7 { crest } else { 1.0 }).collect();
        (map, vec![x])
    }

    #[test]
    fn calibration_is_never_worse_than_the_prediction_on_the_same_rows() {
        for crest in [1.0, 30.0, 3000.0] {
            let (map, inputs) = case(crest);
            let predicted =
                measure(&map, &quantize(&map, Some(2.0), None).unwrap(), &inputs).unwrap();
            let (quantized, measured) =
                calibrate(&map, Some(2.0), &inputs, MOST_AUTOMATIC).unwrap();
            assert!(
                measured.relative_rms <= predicted.relative_rms,
                "{crest}: {measured:?} {predicted:?}"
            );
            assert_eq!(measure(&map, &quantized, &inputs).unwrap(), measured);
            assert_eq!(measured.rows, 32);
        }
    }

    #[test]
    fn inputs_that_do_not_fit_are_refused() {
        let (map, inputs) = case(1.0);
        assert!(calibrate(&map, None, &[], MOST_AUTOMATIC).is_err());
        assert!(calibrate(&map, None, &[inputs[0][..95].to_vec()], MOST_AUTOMATIC).is_err());
        assert!(calibrate(&map, None, &[vec![f32::NAN; 96]], MOST_AUTOMATIC).is_err());
    }
}
