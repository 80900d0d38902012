//! `zklora trace`, `prove` and `verify`

use std::{path::Path, process::ExitCode};

use serde_json::json;
use zklora_artifacts::{
    activation_file::ActivationFile,
    activation_source::ActivationSource,
    folder::{Artifacts, Public},
    own_session::OwnSession,
    session_rows::SessionRows,
    srs_file,
    trace_reader::TraceReader,
    verify,
};
use zklora_files::Access;
use zklora_proof::{keys::KeyStore, manifest::Module};
use zklora_runtime::{
    process::{cpu_seconds, peak_memory},
    registration::Registration,
};
use zklora_session::{prove, record};

use super::{
    leak,
    outcome::{Outcome, left_out_row, policy},
};
use crate::{
    args,
    output::{Output, bytes, count, path},
};

pub fn record(args: &args::Record, output: &Output) -> Outcome {
    let srs = srs_file::load(args.srs.srs.as_deref())?;
    let artifacts = Artifacts::load(&args.artifacts, &srs, &KeyStore::default())?;
    // Rows are counted before they are written, so check first that the trace can be written.
    zklora_files::require_folder_of(&args.out)?;
    let activations =
        ActivationFile::open(&args.inputs, artifacts.manifest.modules(), args.module.as_deref())?;
    let session = args.session_id.map(|args::SessionId(id)| id);
    let record::Recorded { session, counts, served, .. } =
        record::record_to(&artifacts, &activations, session, args.max_rows, &args.out)?;
    let rows: usize = counts.iter().sum();
    let limit = args
        .max_rows
        .map_or("no limit".into(), |limit| format!("the limit is {}", count(limit as usize)));
    let modules = artifacts.manifest.modules().iter().map(|module| module.name.as_str());
    let in_all: std::collections::BTreeMap<&str, u64> =
        modules.zip(served.total.iter().copied()).filter(|(_, rows)| *rows > 0).collect();
    let called = activations.called();
    let mut table = vec![
        ("Recorded", format!("{} rows in {called} of {} modules", count(rows), counts.len())),
        (
            "Ignored",
            format!("{} tensors that are not inputs of the adapter", activations.ignored.len()),
        ),
        ("Session id", hex::encode(session)),
        (
            "Served in all",
            format!("up to {} rows a module, {limit}", count(served.most() as usize)),
        ),
    ];
    let (given_away, measured) = leak::given_away(&args.artifacts, &artifacts.manifest.id());
    table.extend(given_away);
    table.push(("Trace", args.out.display().to_string()));
    output.result(
        &json!({
            "rows": rows,
            "session_id": hex::encode(session),
            "ignored": activations.ignored,
            "out": path(&args.out),
            "rows_served_in_all": in_all,
            "max_rows": args.max_rows,
            "leak_measured": measured,
        }),
        &table,
    );
    Ok(ExitCode::SUCCESS)
}

pub fn info(file: &Path, output: &Output) -> Outcome {
    let info = SessionRows::info(file)?;
    let rows: usize = info.rows.values().sum();
    let mut table = vec![
        ("Adapter id", info.adapter_id.clone()),
        ("Session id", info.session_id.clone()),
        ("Size", bytes(info.bytes as u64)),
        ("Rows", format!("{} in {} modules", count(rows), info.rows.len())),
    ];
    table
        .extend(info.rows.iter().map(|(module, rows)| ("", format!("{module}: {}", count(*rows)))));
    output.result(&json!(info), &table);
    Ok(ExitCode::SUCCESS)
}

pub fn prove(args: &args::Prove, output: &Output) -> Outcome {
    let srs = srs_file::load(args.srs.srs.as_deref())?;
    let keys = KeyStore::default();
    let artifacts = Artifacts::load(&args.artifacts, &srs, &keys)?;
    zklora_files::require_folder_of(&args.out)?;
    let trace = TraceReader::trace(&args.trace, &artifacts.manifest)?;
    let spinner = output.spinner();
    spinner.set_message("prove");
    let proof = prove::prove(&artifacts, &trace, &srs, &keys);
    spinner.finish_and_clear();
    let proof = proof?;
    zklora_files::write(&args.out, &proof, Access::Public)?;
    output.result(
        &json!({
            "adapter_id": artifacts.manifest.id().to_string(),
            "bytes": proof.len(),
            "out": path(&args.out),
            "rows": trace.rows(),
        }),
        &[
            (
                "Proven",
                format!("{} rows of adapter {}", count(trace.rows()), artifacts.manifest.id()),
            ),
            ("Proof", format!("{}, {}", args.out.display(), bytes(proof.len() as u64))),
        ],
    );
    Ok(ExitCode::SUCCESS)
}

/// The activations that the user sent, if they were given.
pub(super) fn own_inputs(
    args: &args::Verify,
    modules: &[Module],
) -> Result<Option<ActivationFile<'static>>, zklora_artifacts::Error> {
    let open = |path| ActivationFile::open(path, modules, args.module.as_deref());
    args.inputs.as_deref().map(open).transpose()
}

/// What the user knows of the session without the trace.
pub(super) fn own_session<'a>(
    args: &args::Verify,
    inputs: Option<&'a ActivationFile<'_>>,
) -> OwnSession<'a> {
    let inputs = inputs.map(|inputs| inputs as &dyn ActivationSource);
    OwnSession { id: args.session_id.as_ref().map(|args::SessionId(id)| *id), inputs }
}

pub fn verify(args: &args::Verify, output: &Output) -> Outcome {
    let srs = srs_file::load(args.srs.file.srs.as_deref())?;
    let keys = KeyStore::default();
    let public = Public::load(&args.public, args.adapter_id.as_ref(), &srs, &keys)?;
    let policy = policy(&args.srs);
    let registration =
        Registration::of_folder(&args.public, &public.manifest, &srs, &keys, policy)?;
    let trace = TraceReader::trace(&args.trace, &public.manifest)?;
    // A session of another id is refused before the inputs are read.
    own_session(args, None).check_id(trace.context())?;
    let activations = own_inputs(args, public.manifest.modules())?;
    let own = own_session(args, activations.as_ref());
    let proof = zklora_files::read(&args.proof, verify::MAX_PROOF)?;
    let verdict = verify::verify(&public.manifest, &trace, &own, &proof, &srs, &keys, policy)?;
    let rows: usize = verdict.rows.iter().map(|(_, rows)| rows).sum();
    let empty: Vec<&str> =
        verdict.rows.iter().filter(|(_, rows)| *rows == 0).map(|(name, _)| name.as_str()).collect();
    let pinned = args.adapter_id.is_some();
    if !pinned {
        output.warn(
            "THE ADAPTER WAS NOT PINNED. This shows that some adapter computes these rows, not \
             that it was fixed before you sent them. With up to r rows a module, for rank r, that \
             shows almost nothing. Pass --adapter-id with the id that you had before the session.",
        );
    }
    let source = |given: bool, own: &'static str| if given { own } else { " (as the trace says)" };
    let mut table = vec![
        (
            "Adapter id",
            format!("{}{}", verdict.adapter, if pinned { " (your pin)" } else { " (NOT PINNED)" }),
        ),
        (
            "Session id",
            format!(
                "{}{}",
                hex::encode(trace.context()),
                source(args.session_id.is_some(), " (yours)")
            ),
        ),
        ("Activations", source(args.inputs.is_some(), "yours").trim_start().to_string()),
        ("Rows", format!("{} in {} modules", count(rows), verdict.rows.len() - empty.len())),
    ];
    table.extend(
        verdict
            .rows
            .iter()
            .filter(|(_, rows)| *rows > 0)
            .map(|(name, rows)| ("", format!("{name}: {}", count(*rows)))),
    );
    if !empty.is_empty() {
        table.push((
            "Not called",
            format!("{} modules: nothing is claimed about them: {}", empty.len(), empty.join(", ")),
        ));
    }
    table.extend(left_out_row(&public.manifest.contents().left_out));
    table.push(("Weights", registration.to_string()));
    table.push(("SRS", verdict.ceremony.to_string()));
    table.push(("Proof", bytes(proof.len() as u64)));
    table.push(("Verdict", "ACCEPTED: every delta of your trace came from this adapter".into()));
    output.result(
        &json!({
            "accepted": true,
            "adapter_id": verdict.adapter.to_string(),
            "ceremony": verdict.ceremony.to_string(),
            "activations_compared": args.inputs.is_some(),
            "cpu_seconds": cpu_seconds(),
            "left_out": public.manifest.contents().left_out,
            "peak_memory_bytes": peak_memory(),
            "pinned": pinned,
            "registered": registration.is_registered(),
            "session_compared": args.session_id.is_some(),
            "session_id": hex::encode(trace.context()),
            "proof_bytes": proof.len(),
            "rows": verdict.rows.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        }),
        &table,
    );
    Ok(ExitCode::SUCCESS)
}
