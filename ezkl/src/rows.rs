//! Rows of a session in the form of EZKL's circuits: every value of a module has the same scale, a
//! power of two.

use zklora_artifacts::{
    Error as Artifact, activations::Activations, module_rows::ModuleRows, session_rows::SessionRows,
};
use zklora_proof::trace::TraceDigest;

use super::{
    Check, EzklError,
    manifest::{CheckedManifest, Module},
};
use crate::Error;

/// The scale of every row of a module: an input in floats is `integer · scale`.
pub fn scale(module: &Module) -> f32 {
    (-(module.input_scale as f32)).exp2()
}

/// Quantises a module's activations: `round(x · 2^input_scale)`, halves away from zero, as EZKL
/// rounds. The deltas stay empty.
///
/// # Errors
/// Names the module, the row and the value that is not finite or does not fit into 32 bits.
pub fn quantized(module: &Module, inputs: &[Vec<f32>]) -> Result<ModuleRows, Error> {
    let refuse = |why: String| Error::input(format!("module `{}`: {why}", module.name));
    let mut rows = ModuleRows { inputs: Vec::new(), ..ModuleRows::default() };
    let mut count = None;
    for (values, input) in inputs.iter().zip(&module.inputs) {
        if values.len() % input.dim != 0
            || count.is_some_and(|count| count != values.len() / input.dim)
        {
            return Err(refuse("its inputs do not have the same number of whole rows".into()));
        }
        count = Some(values.len() / input.dim);
        let factor = f64::from(module.input_scale).exp2();
        let integer = |(index, value): (usize, &f32)| {
            let integer = (f64::from(*value) * factor).round();
            // The comparison is false for NaN.
            if integer.abs() <= f64::from(i32::MAX) {
                return Ok(integer as i32);
            }
            let row = index / input.dim;
            Err(refuse(format!(
                "row {row}: {value} is not finite, or too large for a scale of 2^{}",
                module.input_scale
            )))
        };
        rows.inputs.push(values.iter().enumerate().map(integer).collect::<Result<Vec<_>, _>>()?);
    }
    if inputs.len() != module.inputs.len() {
        return Err(refuse(format!("{} inputs, it takes {}", inputs.len(), module.inputs.len())));
    }
    rows.scales = vec![scale(module); count.unwrap_or(0)];
    Ok(rows)
}

/// The integers of a row: one slice an input.
pub fn row<'a>(module: &Module, rows: &'a ModuleRows, row: usize) -> Vec<&'a [i32]> {
    let at = |dim: usize| row * dim..(row + 1) * dim;
    rows.inputs.iter().zip(&module.inputs).map(|(values, input)| &values[at(input.dim)]).collect()
}

/// EZKL's input file for integers of a row.
pub fn input_data(module: &Module, row: &[&[i32]]) -> serde_json::Value {
    let factor = (-f64::from(module.input_scale)).exp2();
    let floats =
        |values: &&[i32]| values.iter().map(|v| f64::from(*v) * factor).collect::<Vec<f64>>();
    serde_json::json!({ "input_data": row.iter().map(floats).collect::<Vec<_>>() })
}

/// Checks that a trace has the scales of its circuits. Otherwise its integers stand for other
/// numbers than those of a proof.
pub fn check_scales(manifest: &CheckedManifest, trace: &SessionRows) -> Result<(), EzklError> {
    for (module, rows) in manifest.modules().iter().zip(&trace.modules) {
        let expected = scale(module);
        if let Some(row) = rows.scales.iter().position(|s| s.to_bits() != expected.to_bits()) {
            let (name, found) = (&module.name, rows.scales[row]);
            let why = format!(
                "module `{name}`, row {row} has the scale {found} in the trace, the circuit has {expected}"
            );
            return Err(EzklError::refused(Check::PublicValues, why));
        }
    }
    Ok(())
}

/// Checks that a trace of another party holds exactly these activations.
///
/// # Errors
/// [`Artifact::NotYours`] names the module, and the row if one differs.
pub fn check_inputs(
    manifest: &CheckedManifest,
    trace: &SessionRows,
    activations: &Activations,
) -> Result<(), Error> {
    for (module, rows) in manifest.modules().iter().zip(&trace.modules) {
        let not_yours = |what: String| {
            Err(Artifact::NotYours(format!("the trace is not of your activations: {what}")).into())
        };
        let expected = match activations.modules.get(&module.name) {
            Some(inputs) => quantized(module, inputs)?,
            None => ModuleRows::none(&module.shape()),
        };
        let (found, expected_rows) = (rows.scales.len(), expected.scales.len());
        if found != expected_rows {
            return not_yours(format!(
                "module `{}` has {found} rows, yours {expected_rows}",
                module.name
            ));
        }
        if let Some(r) =
            (0..expected_rows).find(|r| row(module, rows, *r) != row(module, &expected, *r))
        {
            return not_yours(format!("module `{}`, row {r}, has other values", module.name));
        }
    }
    Ok(())
}

/// The digest of a trace in the ledger.
pub fn digest(trace: &SessionRows) -> TraceDigest {
    let mut hasher = blake3::Hasher::new_derive_key("zklora v1 ezkl trace");
    let mut absorb = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    absorb(&trace.adapter.0);
    absorb(&trace.session);
    for rows in &trace.modules {
        rows.inputs.iter().for_each(|values| absorb(bytemuck::cast_slice(values)));
        absorb(bytemuck::cast_slice(&rows.scales));
        absorb(bytemuck::cast_slice(&rows.delta));
    }
    TraceDigest(*hasher.finalize().as_bytes())
}
