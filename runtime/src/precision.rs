//! Compares the dequantised deltas with those of the float adapter.

use zklora_artifacts::{activations::Activations, session_rows::SessionRows};
use zklora_models::Adapter;
use zklora_proof::checked_manifest::CheckedManifest;

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

/// Compares the trace with the float adapter, computed in 64-bit arithmetic on the unquantised
/// activations.
pub fn precision(
    adapter: &Adapter,
    manifest: &CheckedManifest,
    activations: &Activations,
    trace: &SessionRows,
) -> Precision {
    let mut out = Precision::default();
    let (mut all_error, mut all_float) = (0.0, 0.0);
    for (module, rows) in manifest.modules().iter().zip(&trace.modules) {
        let lora = adapter.modules.iter().find(|m| m.name == module.name);
        let (Some(lora), Some(inputs)) = (lora, activations.modules.get(&module.name)) else {
            continue;
        };
        let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let float = lora.delta(&inputs);
        let scale = module.output_scale();
        let errors = rows
            .delta
            .chunks_exact(module.d_out)
            .zip(&rows.scales)
            .flat_map(|(d, s)| d.iter().map(move |d| *d as f64 * f64::from(*s) * scale));
        let (mut error, mut energy, mut largest) = (0.0f64, 0.0f64, 0.0f64);
        for (quantised, float) in errors.zip(&float) {
            let difference = quantised - float;
            error += difference * difference;
            energy += float * float;
            largest = largest.max(difference.abs());
        }
        all_error += error;
        all_float += energy;
        if energy > 0.0 {
            let relative = (error / energy).sqrt();
            out.largest = out.largest.max(largest / (energy / float.len() as f64).sqrt());
            if out.worst.as_ref().is_none_or(|(_, worst)| relative > *worst) {
                out.worst = Some((module.name.clone(), relative));
            }
        }
    }
    if all_float > 0.0 {
        out.relative_rms = (all_error / all_float).sqrt();
    }
    out
}
