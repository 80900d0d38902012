//! Recording a session in one process: runs the quantised adapter on activations, and counts the
//! rows before the deltas leave.

use rayon::prelude::*;
use zklora_artifacts::{
    activations::Activations, folder::Artifacts, module_quantizer::quantized,
    module_rows::ModuleRows, session_rows::SessionRows,
};
use zklora_proof::{checked_manifest::CheckedManifest, masks::os_bytes};

use crate::{
    Error,
    deltas::Deltas,
    ledger::{Entry, LOCAL, Ledger, Rows},
    row_totals::RowTotals,
};

/// Quantises the activations row by row, computes every delta, and enters the session in the
/// ledger. Also returns the rows served so far, over all sessions.
///
/// `session` is the user's 32 fresh bytes. Without it they are drawn here, where both parties are
/// this process. `max_rows` is the most that a module may serve over all sessions.
///
/// # Errors
/// [`Error::Artifact`] names module and row of activations that are not finite or do not fit.
/// [`Error::Budget`]: the limit would be exceeded, and nothing was served.
pub fn record(
    artifacts: &Artifacts,
    activations: &Activations,
    session: Option<[u8; 32]>,
    max_rows: Option<u64>,
) -> Result<(SessionRows, RowTotals), Error> {
    let session = match session {
        Some(session) => session,
        None => *os_bytes()?,
    };
    let modules = artifacts.manifest.modules();
    let deltas = Deltas::new(modules, &artifacts.weights);
    let modules = (0..modules.len())
        .into_par_iter()
        .map(|m| match activations.modules.get(&modules[m].name) {
            Some(inputs) => module_rows(artifacts, &deltas, m, inputs),
            None => Ok(ModuleRows::none(&modules[m])),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let trace = SessionRows { adapter: artifacts.manifest.id(), session, modules };
    let digest = trace.with_trace::<_, Error>(&artifacts.manifest, |t| Ok(t.digest()))?;
    let mut ledger = Ledger::lock(&artifacts.ledger())?;
    let mut served = RowTotals::count(ledger.index(), &artifacts.manifest)?;
    let more: Vec<(usize, u64)> =
        trace.modules.iter().map(|rows| rows.scales.len() as u64).enumerate().collect();
    served.check_limit(&artifacts.manifest, &more, max_rows)?;
    ledger.append(Entry::recorded(&session, digest, rows_of(&artifacts.manifest, &trace)))?;
    more.iter().for_each(|(module, rows)| served.add(LOCAL, *module, *rows));
    Ok((trace, served))
}

/// Rows of each module that has any.
fn rows_of(manifest: &CheckedManifest, trace: &SessionRows) -> Rows {
    let rows = manifest
        .modules()
        .iter()
        .zip(&trace.modules)
        .map(|(m, rows)| (&m.name, rows.scales.len() as u64));
    rows.filter(|(_, rows)| *rows > 0).map(|(name, rows)| (name.clone(), rows)).collect()
}

fn module_rows(
    artifacts: &Artifacts,
    deltas: &Deltas,
    m: usize,
    inputs: &[Vec<f32>],
) -> Result<ModuleRows, Error> {
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let modules = artifacts.manifest.modules();
    let mut rows = quantized(&modules[m], &inputs)?;
    rows.delta = deltas.compute(modules, &artifacts.weights, m, &rows);
    Ok(rows)
}
