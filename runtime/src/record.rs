//! Running the quantised adapter on activations: the integers of a session, counted before they
//! leave.

use std::ops::Range;

use rayon::prelude::*;
use zklora_compiler::quantize::quantize_inputs;
use zklora_proof::{
    checked_manifest::CheckedManifest, manifest::Module, masks::os_bytes, row_source::Piece,
    trace::Trace,
};

use crate::{
    Error,
    activations::Activations,
    artifacts::Artifacts,
    ledger::{Entry, LOCAL, Ledger, Rows},
    served::Served,
    trace_file::{ModuleRows, TraceFile},
};

/// Quantises the activations row by row, computes every delta, and enters the session in the
/// ledger. Also says what has been served then, over all sessions.
///
/// `session` is the user's 32 fresh bytes; none: they are drawn here (both parties are this
/// process). `max_rows` is the most that a module may serve over all sessions.
///
/// # Errors
/// [`Error::Input`] names module and row of activations that are not finite or do not fit;
/// [`Error::Budget`] if the limit would be exceeded: then nothing was served.
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
    let digest = trace.with_trace(&artifacts.pinned, |t| Ok(t.digest()))?;
    let mut ledger = Ledger::lock(&artifacts.ledger())?;
    let mut served = Served::count(ledger.book(), &artifacts.pinned)?;
    let more: Vec<(usize, u64)> =
        trace.modules.iter().map(|rows| rows.scales.len() as u64).enumerate().collect();
    served.check(&artifacts.pinned, &more, max_rows)?;
    ledger.append(Entry::recorded(&session, digest, rows_of(&artifacts.pinned, &trace)))?;
    more.iter().for_each(|(module, rows)| served.add(LOCAL, *module, *rows));
    Ok((trace, served))
}

/// Rows of each module that has any.
fn rows_of(pinned: &CheckedManifest, trace: &TraceFile) -> Rows {
    let rows = pinned
        .modules()
        .iter()
        .zip(&trace.modules)
        .map(|(m, rows)| (&m.name, rows.scales.len() as u64));
    rows.filter(|(_, rows)| *rows > 0).map(|(name, rows)| (name.clone(), rows)).collect()
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

/// The rows of a module without deltas, from its inputs of `[N, dim]` each. Nothing private is
/// needed for them.
///
/// # Errors
/// [`Error::Input`] names the module: values that are not finite, or inputs that are not whole rows
/// of as many rows each.
pub fn quantized(module: &Module, inputs: &[&[f32]]) -> Result<ModuleRows, Error> {
    let refuse = |e: String| Error::Input(format!("module `{}`: {e}", module.name));
    if module.inputs.is_empty() {
        return Err(refuse("it takes no inputs, so it has no rows".into()));
    }
    // All inputs of a row share one scale (docs/protocol.md, "Quantisation").
    let with_dims: Vec<(&[f32], usize)> =
        inputs.iter().copied().zip(module.inputs.iter().map(|i| i.dim)).collect();
    let rows = quantize_inputs(&with_dims, module.x_bits, module.has_bias())
        .map_err(|e| refuse(e.to_string()))?;
    Ok(ModuleRows {
        inputs: rows.inputs,
        ones: rows.ones.unwrap_or_default(),
        scales: rows.scales,
        delta: Vec::new(),
    })
}

/// Deltas as real numbers, `[N, d_out]`; `scales` are those of the N rows (docs/protocol.md, "The claim").
pub fn dequantized(module: &Module, scales: &[f32], delta: &[i64]) -> Vec<f32> {
    let rows = delta.chunks_exact(module.d_out.max(1)).zip(scales);
    rows.flat_map(|(row, scale)| {
        let scale = module.output_scale() * f64::from(*scale);
        row.iter().map(move |delta| (*delta as f64 * scale) as f32)
    })
    .collect()
}

/// Whether a trace that somebody else recorded holds exactly these activations, as [`record()`]
/// quantises them.
///
/// # Errors
/// [`Error::NotYours`] names the module, and the row if one differs.
pub fn check_inputs(
    pinned: &CheckedManifest,
    trace: &Trace<'_>,
    activations: &Activations,
) -> Result<(), Error> {
    let modules = pinned.modules();
    for (module, theirs) in modules.iter().zip(trace.counts()) {
        let own = activations.modules.get(&module.name).map(Vec::as_slice).unwrap_or_default();
        let yours = own
            .first()
            .zip(module.inputs.first())
            .map_or(0, |(values, input)| values.len() / input.dim);
        if *theirs != yours {
            return Err(not_yours(format!(
                "module `{}` has {theirs} rows, yours {yours}",
                module.name
            )));
        }
        // Of modules with rows, quantisation says so, too.
        let whole = own.len() == module.inputs.len()
            && own
                .iter()
                .zip(&module.inputs)
                .all(|(values, input)| values.len() == yours * input.dim);
        if !(whole || yours == 0 && own.is_empty()) {
            return Err(Error::Input(format!(
                "module `{}`: its inputs are not {yours} rows each",
                module.name
            )));
        }
    }
    let mut own = Own { modules, activations, module: None, rows: ModuleRows::default() };
    let mut answer = Ok(());
    trace.visit(modules, |m, rows, piece| {
        if answer.is_ok() {
            answer = own.check(m, rows, piece);
        }
        Ok(())
    })?;
    answer
}

fn not_yours(what: String) -> Error {
    Error::NotYours(format!("the trace is not of your activations: {what}"))
}

/// The user's own rows of the module that is being read.
struct Own<'a> {
    modules: &'a [Module],
    activations: &'a Activations,
    module: Option<usize>,
    rows: ModuleRows,
}

impl Own<'_> {
    fn check(&mut self, m: usize, rows: Range<usize>, piece: &Piece<'_>) -> Result<(), Error> {
        let module = &self.modules[m];
        if self.module != Some(m) {
            let inputs =
                self.activations.modules.get(&module.name).map(Vec::as_slice).unwrap_or_default();
            self.rows = quantized(module, &inputs.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
            self.module = Some(m);
        }
        let own = &self.rows;
        let differs = match piece {
            Piece::Input(i, values) => {
                differing(values, &own.inputs[*i], &rows, module.inputs[*i].dim)
            }
            Piece::Ones(values) => differing(values, &own.ones, &rows, 1),
            // Bit by bit: these are positive numbers.
            Piece::Scales(values) => differing(values, &own.scales, &rows, 1),
            Piece::Delta(_) => None,
        };
        match differs {
            None => Ok(()),
            Some(row) => Err(not_yours(format!(
                "module `{}`, row {row}, has other values or another scale",
                module.name
            ))),
        }
    }
}

/// The first of `rows` whose `dim` values differ from those of the user.
fn differing<T: PartialEq>(
    theirs: &[T],
    own: &[T],
    rows: &Range<usize>,
    dim: usize,
) -> Option<usize> {
    let own = own.get(rows.start * dim..rows.end * dim).unwrap_or_default();
    let pairs = theirs.chunks_exact(dim).zip(own.chunks_exact(dim));
    match pairs.map(|(theirs, own)| theirs != own).position(|differs| differs) {
        Some(at) => Some(rows.start + at),
        None => (own.len() != theirs.len()).then_some(rows.start),
    }
}
