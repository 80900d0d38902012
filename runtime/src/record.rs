//! Running the quantised adapter on activations: the integers of a session, counted before they leave.

use rayon::prelude::*;
use zklora_circuit::{
    manifest::{Module, Pinned},
    masks::os_bytes,
    trace::TraceDigest,
};
use zklora_compiler::quantize::quantize_inputs;

use crate::{
    Error,
    activations::Activations,
    artifacts::Artifacts,
    ledger::{self, Entry},
    trace_file::{ModuleRows, TraceFile},
};

/// Quantises the activations row by row, computes every delta, and enters the session in the ledger.
///
/// `session` is the user's 32 fresh bytes; none: they are drawn here (both parties are this process). `max_rows` is the most
/// that a module may serve over all sessions.
///
/// # Errors
/// [`Error::Input`] names module and row of activations that are not finite or do not fit; [`Error::Budget`] if the limit would be
/// exceeded: then nothing was served.
pub fn record(
    artifacts: &Artifacts,
    activations: &Activations,
    session: Option<[u8; 32]>,
    max_rows: Option<usize>,
) -> Result<TraceFile, Error> {
    let session = match session {
        Some(session) => session,
        None => *os_bytes()?,
    };
    let modules = artifacts.pinned.modules();
    let modules = (0..modules.len())
        .into_par_iter()
        .map(|m| match activations.modules.get(&modules[m].name) {
            Some(inputs) => module_rows(artifacts, m, inputs),
            None => Ok(ModuleRows::none(&modules[m])),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let trace = TraceFile { adapter: artifacts.pinned.id(), session, modules };
    let digest = trace.with_trace(&artifacts.pinned, |t| t.digest())?;
    ledger::append(&artifacts.ledger(), &entry(artifacts, &trace, digest), max_rows)?;
    Ok(trace)
}

fn entry(artifacts: &Artifacts, trace: &TraceFile, digest: TraceDigest) -> Entry {
    let rows = artifacts.pinned.modules().iter().zip(&trace.modules);
    let rows =
        rows.filter(|(_, rows)| !rows.scales.is_empty()).map(|(m, rows)| (m.name.clone(), rows.scales.len())).collect();
    Entry::new(&trace.session, digest, rows)
}

fn module_rows(artifacts: &Artifacts, m: usize, inputs: &[Vec<f32>]) -> Result<ModuleRows, Error> {
    let modules = artifacts.pinned.modules();
    let module = &modules[m];
    let mut rows = quantized(module, inputs)?;
    let own = artifacts.weights.of_module(modules, m);
    rows.delta = vec![0i64; rows.scales.len() * module.d_out];
    rows.delta.par_chunks_exact_mut(module.d_out).enumerate().for_each(|(row, out)| {
        let x: Vec<&[i32]> = rows
            .inputs
            .iter()
            .zip(&module.inputs)
            .map(|(x, input)| &x[row * input.dim..(row + 1) * input.dim])
            .collect();
        artifacts.weights.delta_row(module, own, &x, rows.ones.get(row).copied().unwrap_or(0), out);
    });
    Ok(rows)
}

/// The rows of a module without deltas. Nothing private is needed for them.
fn quantized(module: &Module, inputs: &[Vec<f32>]) -> Result<ModuleRows, Error> {
    let refuse = |e: String| Error::Input(format!("module `{}`: {e}", module.name));
    if module.inputs.is_empty() {
        return Err(refuse("it takes no inputs, so it has no rows".into()));
    }
    // All inputs of a row share one scale (protocol section 5).
    let with_dims: Vec<(&[f32], usize)> =
        inputs.iter().map(Vec::as_slice).zip(module.inputs.iter().map(|i| i.dim)).collect();
    let rows = quantize_inputs(&with_dims, module.x_bits, module.has_bias()).map_err(|e| refuse(e.to_string()))?;
    Ok(ModuleRows { inputs: rows.inputs, ones: rows.ones.unwrap_or_default(), scales: rows.scales, delta: Vec::new() })
}

/// Whether a trace that somebody else recorded holds exactly these activations, as [`record()`] quantises them.
///
/// # Errors
/// [`Error::NotYours`] names the module, and the row if one differs.
pub fn check_inputs(pinned: &Pinned, trace: &TraceFile, activations: &Activations) -> Result<(), Error> {
    for (module, rows) in pinned.modules().iter().zip(&trace.modules) {
        let not_yours = |what: String| Err(Error::NotYours(format!("the trace is not of your activations: {what}")));
        let own = match activations.modules.get(&module.name) {
            Some(inputs) => quantized(module, inputs)?,
            None => ModuleRows::none(module),
        };
        let (theirs, yours) = (rows.scales.len(), own.scales.len());
        if theirs != yours {
            return not_yours(format!("module `{}` has {theirs} rows, yours {yours}", module.name));
        }
        let differs = |row: usize| {
            let at = |dim: usize| row * dim..(row + 1) * dim;
            let mut inputs = rows.inputs.iter().zip(&own.inputs).zip(&module.inputs);
            inputs.any(|((theirs, yours), input)| theirs[at(input.dim)] != yours[at(input.dim)])
                || rows.ones.get(row) != own.ones.get(row)
                || rows.scales[row].to_bits() != own.scales[row].to_bits()
        };
        if let Some(row) = (0..yours).find(|row| differs(*row)) {
            return not_yours(format!("module `{}`, row {row}, has other values or another scale", module.name));
        }
    }
    Ok(())
}
