//! Running the quantised adapter on activations: the integers of a session, counted before they leave.

use rayon::prelude::*;
use zklora_circuit::{masks::os_bytes, trace::TraceDigest};
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
/// `session` is the user's 32 fresh bytes; none: they are drawn here (both parties are this process).
pub fn record(artifacts: &Artifacts, activations: &Activations, session: Option<[u8; 32]>) -> Result<TraceFile, Error> {
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
    ledger::append(&artifacts.ledger(), &entry(artifacts, &trace, digest))?;
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
    let refuse = |e: String| Error::Input(format!("module `{}`: {e}", module.name));
    if module.inputs.is_empty() {
        return Err(refuse("it takes no inputs, so it has no rows".into()));
    }
    // All inputs of a row share one scale (protocol section 5).
    let with_dims: Vec<(&[f32], usize)> =
        inputs.iter().map(Vec::as_slice).zip(module.inputs.iter().map(|i| i.dim)).collect();
    let quantized = quantize_inputs(&with_dims, module.x_bits, module.has_bias()).map_err(|e| refuse(e.to_string()))?;
    let ones = quantized.ones.unwrap_or_default();
    let own = artifacts.weights.of_module(modules, m);
    let mut delta = vec![0i64; quantized.scales.len() * module.d_out];
    delta.par_chunks_exact_mut(module.d_out).enumerate().for_each(|(row, out)| {
        let x: Vec<&[i32]> = quantized
            .inputs
            .iter()
            .zip(&module.inputs)
            .map(|(x, input)| &x[row * input.dim..(row + 1) * input.dim])
            .collect();
        artifacts.weights.delta_row(module, own, &x, ones.get(row).copied().unwrap_or(0), out);
    });
    Ok(ModuleRows { inputs: quantized.inputs, ones, scales: quantized.scales, delta })
}
