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
    ledger::{Entry, Ledger},
    served::{LOCAL, Served},
    trace_file::{ModuleRows, TraceFile},
};

/// Quantises the activations row by row, computes every delta, and enters the session in the ledger. Also says what has been
/// served then, over all sessions.
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
    max_rows: Option<u64>,
) -> Result<(TraceFile, Served), Error> {
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
    let mut ledger = Ledger::lock(&artifacts.ledger())?;
    let mut served = Served::count(ledger.entries(), &artifacts.pinned)?;
    let more: Vec<(usize, u64)> = trace.modules.iter().map(|rows| rows.scales.len() as u64).enumerate().collect();
    served.check(&artifacts.pinned, &more, max_rows)?;
    ledger.append(entry(&artifacts.pinned, &trace, None, digest))?;
    more.iter().for_each(|(module, rows)| served.add(LOCAL, *module, *rows));
    Ok((trace, served))
}

/// The ledger's line for a session that has ended.
pub(crate) fn entry(pinned: &Pinned, trace: &TraceFile, client: Option<String>, digest: TraceDigest) -> Entry {
    let rows = pinned.modules().iter().zip(&trace.modules);
    let rows =
        rows.filter(|(_, rows)| !rows.scales.is_empty()).map(|(m, rows)| (m.name.clone(), rows.scales.len())).collect();
    Entry::ended(&trace.session, client, digest, rows)
}

fn module_rows(artifacts: &Artifacts, m: usize, inputs: &[Vec<f32>]) -> Result<ModuleRows, Error> {
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let mut rows = quantized(&artifacts.pinned.modules()[m], &inputs)?;
    rows.delta = deltas(artifacts, m, &rows);
    Ok(rows)
}

/// The deltas of rows of module `m` that fit it: `[N, d_out]`.
pub(crate) fn deltas(artifacts: &Artifacts, m: usize, rows: &ModuleRows) -> Vec<i64> {
    artifacts.deltas().compute(artifacts, m, rows)
}

/// The rows of a module without deltas, from its inputs of `[N, dim]` each. Nothing private is needed for them.
///
/// # Errors
/// [`Error::Input`] names the module: values that are not finite, or inputs that are not whole rows of as many rows each.
pub fn quantized(module: &Module, inputs: &[&[f32]]) -> Result<ModuleRows, Error> {
    let refuse = |e: String| Error::Input(format!("module `{}`: {e}", module.name));
    if module.inputs.is_empty() {
        return Err(refuse("it takes no inputs, so it has no rows".into()));
    }
    // All inputs of a row share one scale (protocol section 5).
    let with_dims: Vec<(&[f32], usize)> = inputs.iter().copied().zip(module.inputs.iter().map(|i| i.dim)).collect();
    let rows = quantize_inputs(&with_dims, module.x_bits, module.has_bias()).map_err(|e| refuse(e.to_string()))?;
    Ok(ModuleRows { inputs: rows.inputs, ones: rows.ones.unwrap_or_default(), scales: rows.scales, delta: Vec::new() })
}

/// Deltas as real numbers, `[N, d_out]`; `scales` are those of the N rows (protocol section 3).
pub fn dequantized(module: &Module, scales: &[f32], delta: &[i64]) -> Vec<f32> {
    let rows = delta.chunks_exact(module.d_out.max(1)).zip(scales);
    rows.flat_map(|(row, scale)| {
        let scale = module.output_scale() * f64::from(*scale);
        row.iter().map(move |delta| (*delta as f64 * scale) as f32)
    })
    .collect()
}

/// Whether a trace that somebody else recorded holds exactly these activations, as [`record()`] quantises them.
///
/// # Errors
/// [`Error::NotYours`] names the module, and the row if one differs.
pub fn check_inputs(pinned: &Pinned, trace: &TraceFile, activations: &Activations) -> Result<(), Error> {
    for (module, rows) in pinned.modules().iter().zip(&trace.modules) {
        let not_yours = |what: String| Err(Error::NotYours(format!("the trace is not of your activations: {what}")));
        let own = match activations.modules.get(&module.name) {
            Some(inputs) => quantized(module, &inputs.iter().map(Vec::as_slice).collect::<Vec<_>>())?,
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
