//! Running EZKL's circuits on activations: the integers of a session, counted before they leave.

use std::collections::BTreeMap;

use zklora_artifacts::{
    activations::Activations, module_rows::ModuleRows, session_rows::SessionRows,
};
use zklora_proof::masks::os_bytes;
use zklora_session::ledger::{Entry, Ledger, LedgerIndex, Rows};

use super::{
    EzklError, Python,
    child::Ezkl,
    circuit::Circuit,
    folder::{Artifacts, CIRCUIT},
    manifest::Module,
    rows,
};
use crate::Error;

/// Computes every delta with EZKL, row by row, and enters the session in the ledger. Also says how
/// many rows of each module were served then, over all sessions.
///
/// `session` is the user's 32 fresh bytes; none: they are drawn here. `max_rows` is the most that a
/// module may serve over all sessions.
///
/// # Errors
/// [`Error::Budget`] if the limit would be exceeded: then nothing was served.
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
    let pinned = &artifacts.public.pinned;
    let scratch = zklora_files::scratch()?;
    let mut ezkl = Ezkl::start(python, scratch.path())?;
    let mut modules = Vec::new();
    for (place, module) in pinned.modules().iter().enumerate() {
        modules.push(match activations.modules.get(&module.name) {
            None => ModuleRows::none(&module.shape()),
            Some(inputs) => {
                let mut rows = rows::quantized(module, inputs)?;
                let circuit = Circuit::new(scratch.path().join(place.to_string()), &module.name)?;
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
    let trace = SessionRows { adapter: pinned.id(), session, modules };
    let counts: Rows = pinned
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

/// Rows of these modules over all sessions, with `more` of them. (No server serves an EZKL folder:
/// none is open.)
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
    let own = rows::row(module, rows, row);
    let input = rows::input_data(module, &own);
    let (witness, _) = circuit.witness(
        ezkl,
        what,
        &input,
        compiled,
        None,
        super::circuit_options::Visibility::Private,
    )?;
    check_witness(module, &own, &witness, what)?;
    Ok(witness.output)
}

/// Whether a witness is about the row that it was made for.
pub(super) fn check_witness(
    module: &Module,
    row: &[&[i32]],
    witness: &super::witness::Witness,
    what: &str,
) -> Result<(), Error> {
    let same = witness.inputs.len() == row.len()
        && witness
            .inputs
            .iter()
            .zip(row)
            .all(|(theirs, own)| theirs.iter().copied().eq(own.iter().map(|v| i64::from(*v))));
    if !same {
        return Err(EzklError::answer(
            format!("EZKL's witness of {what}"),
            "its inputs are not those of the row",
        )
        .into());
    }
    if witness.output.len() != module.d_out {
        let why =
            format!("{} output values, the manifest has {}", witness.output.len(), module.d_out);
        return Err(EzklError::answer(format!("EZKL's witness of {what}"), why).into());
    }
    Ok(())
}
