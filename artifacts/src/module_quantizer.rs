//! Converts activations to integer rows with one scale each, and integer deltas to real numbers.

use zklora_proof::manifest::Module;

use crate::{Error, module_rows::ModuleRows, row_quantizer::quantize_inputs};

/// Quantises the rows of a module from its inputs of `[N, dim]` each. The deltas stay empty. This
/// needs no private data.
///
/// # Errors
/// [`Error::Input`] names the module: a value is not finite, or the inputs do not have the same
/// number of whole rows.
pub fn quantized(module: &Module, inputs: &[&[f32]]) -> Result<ModuleRows, Error> {
    quantized_from(module, 0, inputs)
}

/// [`quantized`] for some rows of a session, of which `first` is the first.
///
/// # Errors
/// Those of [`quantized`].
pub fn quantized_from(
    module: &Module,
    first: usize,
    inputs: &[&[f32]],
) -> Result<ModuleRows, Error> {
    let refuse = |e: String| Error::Input(format!("module `{}`: {e}", module.name));
    if module.inputs.is_empty() {
        return Err(refuse("it takes no inputs, so it has no rows".into()));
    }
    // All inputs of a row share one scale (docs/protocol.md, "Quantisation").
    let with_dims: Vec<(&[f32], usize)> =
        inputs.iter().copied().zip(module.inputs.iter().map(|i| i.dim)).collect();
    let rows = quantize_inputs(&with_dims, module.x_bits, module.has_bias())
        .map_err(|e| refuse(e.after(first).to_string()))?;
    Ok(ModuleRows {
        inputs: rows.inputs,
        ones: rows.ones.unwrap_or_default(),
        scales: rows.scales,
        delta: Vec::new(),
    })
}

/// Deltas as real numbers, `[N, d_out]`; `scales` are those of the N rows (docs/protocol.md, "The
/// claim").
pub fn dequantized(module: &Module, scales: &[f32], delta: &[i64]) -> Vec<f32> {
    let rows = delta.chunks_exact(module.d_out.max(1)).zip(scales);
    rows.flat_map(|(row, scale)| {
        let scale = module.output_scale() * f64::from(*scale);
        row.iter().map(move |delta| (*delta as f64 * scale) as f32)
    })
    .collect()
}
