//! Compares the dequantised deltas with those of the float adapter.

use zklora_artifacts::{
    activation_source::{ActivationSource, read_inputs},
    trace_reader::TraceReader,
};
use zklora_models::Adapter;
use zklora_proof::checked_manifest::CheckedManifest;

use crate::Error;

/// Errors over all rows of all modules, relative to the float deltas.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Precision {
    /// `√(Σ (dequantised − float)² / Σ float²)` over all deltas of all modules.
    pub relative_rms: f64,
    /// The largest `|dequantised − float|`, relative to the root mean square of its module's
    /// deltas.
    pub largest: f64,
    /// The module with the largest relative RMS error, and that error.
    pub worst: Option<(String, f64)>,
}

/// Rows that are compared at a time have about as many deltas.
const AT_ONCE: usize = 1 << 20;

/// Compares the trace with the float adapter, computed in 64-bit arithmetic on the unquantised
/// activations, in pieces.
///
/// # Errors
/// The activations or the trace can no longer be read.
pub fn precision(
    adapter: &Adapter,
    manifest: &CheckedManifest,
    activations: &dyn ActivationSource,
    trace: &TraceReader,
) -> Result<Precision, Error> {
    let mut out = Precision::default();
    let (mut all_error, mut all_float) = (0.0, 0.0);
    for (m, module) in manifest.modules().iter().enumerate() {
        let count = activations.rows(module)?;
        let Some(lora) = adapter.modules.iter().find(|lora| lora.name == module.name) else {
            continue;
        };
        let (mut error, mut energy, mut largest) = (0.0f64, 0.0f64, 0.0f64);
        let widest = module.inputs.iter().map(|input| input.dim).sum::<usize>() + module.d_out;
        let at_once = (AT_ONCE / widest.max(1)).max(1);
        for first in (0..count).step_by(at_once) {
            let part = first..count.min(first + at_once);
            let inputs = read_inputs(activations, module, &part)?;
            let inputs: Vec<&[f32]> = inputs.iter().map(|values| &**values).collect();
            let float = lora.delta(&inputs);
            let rows = trace.rows(m, part)?;
            let scale = module.output_scale();
            let quantised = rows
                .delta
                .chunks_exact(module.d_out)
                .zip(&rows.scales)
                .flat_map(|(d, s)| d.iter().map(move |d| *d as f64 * f64::from(*s) * scale));
            for (quantised, float) in quantised.zip(&float) {
                let difference = quantised - float;
                error += difference * difference;
                energy += float * float;
                largest = largest.max(difference.abs());
            }
        }
        all_error += error;
        all_float += energy;
        if energy > 0.0 {
            let relative = (error / energy).sqrt();
            let deltas = (count * module.d_out) as f64;
            out.largest = out.largest.max(largest / (energy / deltas).sqrt());
            if out.worst.as_ref().is_none_or(|(_, worst)| relative > *worst) {
                out.worst = Some((module.name.clone(), relative));
            }
        }
    }
    if all_float > 0.0 {
        out.relative_rms = (all_error / all_float).sqrt();
    }
    Ok(out)
}
