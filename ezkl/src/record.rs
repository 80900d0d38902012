//! Runs EZKL's circuits on activations, and enters the rows in the ledger before it returns them.

use std::collections::BTreeMap;

use zklora_artifacts::{
    activations::Activations, module_rows::ModuleRows, session_rows::SessionRows,
};
use zklora_proof::masks::os_bytes;
use zklora_session::ledger::{Entry, Ledger, LedgerIndex, Rows};

use super::{
    Python,
    child::Ezkl,
    circuit::Circuit,
    folder::{Artifacts, CIRCUIT},
    manifest::Module,
    rows,
};
use crate::Error;

/// Computes every delta with EZKL, row by row, and enters the session in the ledger. Also returns
/// how many rows of each module were served over all sessions.
///
/// `session` is the user's 32 random bytes. `None` draws them here. `max_rows` is the most that a
/// module may serve over all sessions.
///
/// # Errors
/// [`zklora_session::Error::Budget`] if the limit would be exceeded. Then no row is served.
pub fn record(
    artifacts: &Artifacts,
    activations: &Activations,
    session: Option<[u8; 32]>,
    max_rows: Option<u64>,
    python: &Python,
    progress: &mut dyn FnMut(&str),
) -> Result<(SessionRows, BTreeMap<String, u64>), Error> {
    let session = match session {
        Some(session) => session,
        None => *os_bytes()?,
    };
    let manifest = &artifacts.public.manifest;
    let scratch = zklora_files::scratch()?;
    let mut ezkl = Ezkl::start(python, scratch.path())?;
    let mut modules = Vec::new();
    for (index, module) in manifest.modules().iter().enumerate() {
        modules.push(match activations.modules.get(&module.name) {
            None => ModuleRows::none(&module.shape()),
            Some(inputs) => {
                let mut rows = rows::quantized(module, inputs)?;
                let circuit = Circuit::new(scratch.path().join(index.to_string()), &module.name)?;
                let compiled = artifacts.private(module, CIRCUIT)?;
                for row in 0..rows.scales.len() {
                    let what = format!("{}, row {row}", module.name);
                    progress(&what);
                    rows.delta
                        .extend(delta(&mut ezkl, &circuit, &compiled, module, &rows, row, &what)?);
                }
                rows
            }
        });
    }
    drop(ezkl);
    let trace = SessionRows { adapter: manifest.id(), session, modules };
    let counts: Rows = manifest
        .modules()
        .iter()
        .zip(&trace.modules)
        .filter(|(_, rows)| !rows.scales.is_empty())
        .map(|(module, rows)| (module.name.clone(), rows.scales.len() as u64))
        .collect();
    let mut ledger = Ledger::lock(&artifacts.ledger())?;
    let served = served(ledger.index(), &counts);
    if let (Some(limit), Some((name, rows))) =
        (max_rows, served.iter().find(|(_, rows)| max_rows.is_some_and(|l| **rows > l)))
    {
        return Err(zklora_session::Error::Budget(format!(
            "module `{name}` would have served {rows} rows in all, the limit is {limit}: what rows give away adds up over all sessions and \
             users (docs/security.md)"
        )).into());
    }
    ledger.append(Entry::recorded(&session, rows::digest(&trace), counts))?;
    Ok((trace, served))
}

/// Rows of these modules over all sessions, `more` included. (No server serves an EZKL folder, so
/// no session is open.)
fn served(book: &LedgerIndex, more: &Rows) -> Rows {
    let earlier =
        |name: &String| book.rows().values().filter_map(|rows| rows.get(name)).sum::<u64>();
    more.iter().map(|(name, rows)| (name.clone(), earlier(name).saturating_add(*rows))).collect()
}

fn delta(
    ezkl: &mut Ezkl<'_>,
    circuit: &Circuit<'_>,
    compiled: &std::path::Path,
    module: &Module,
    rows: &ModuleRows,
    row: usize,
    what: &str,
) -> Result<Vec<i64>, Error> {
    let inputs = rows::row(module, rows, row);
    let input = rows::input_data(module, &inputs);
    let (witness, _) = circuit.witness(
        ezkl,
        what,
        &input,
        compiled,
        None,
        super::circuit_options::Visibility::Private,
    )?;
    witness.check_row(&inputs, module.d_out, what)?;
    Ok(witness.output)
}
