//! `zklora trace`, `prove` and `verify`

use std::{path::Path, process::ExitCode};

use serde_json::json;
use zklora_proof::{checked_manifest::CheckedManifest, keys::KeyStore, trace::Trace};
use zklora_runtime::{
    Error,
    activations::Activations,
    artifacts::{Artifacts, Public},
    files::{self, Access},
    pipeline::peak_memory,
    proof_bench::cpu_seconds,
    record, session, srs_store,
    trace_file::TraceFile,
    trace_reader::TraceReader,
};

use super::{Outcome, leak, policy};
use crate::{
    args,
    output::{Output, bytes, count, path},
};

pub fn record(args: &args::Record, output: &Output) -> Outcome {
    let srs = srs_store::load(args.srs.srs.as_deref())?;
    let artifacts = Artifacts::load(&args.artifacts, &srs, &KeyStore::default())?;
    // Rows are counted before they are written: what can fail is asked first.
    files::require_folder_of(&args.out)?;
    let activations =
        Activations::read(&args.inputs, artifacts.pinned.modules(), args.module.as_deref())?;
    let session = args.session_id.map(|args::SessionId(id)| id);
    let (trace, served) = record::record(&artifacts, &activations, session, args.max_rows)?;
    trace.write(&args.out, &artifacts.pinned)?;
    let limit = args
        .max_rows
        .map_or("no limit".into(), |limit| format!("the limit is {}", count(limit as usize)));
    let modules = artifacts.pinned.modules().iter().map(|module| module.name.as_str());
    let in_all: std::collections::BTreeMap<&str, u64> =
        modules.zip(served.total.iter().copied()).filter(|(_, rows)| *rows > 0).collect();
    let called = activations.modules.len();
    let mut table = vec![
        (
            "Recorded",
            format!("{} rows in {called} of {} modules", count(trace.rows()), trace.modules.len()),
        ),
        (
            "Ignored",
            format!("{} tensors that are no input of the adapter", activations.ignored.len()),
        ),
        ("Session id", hex::encode(trace.session)),
        (
            "Served in all",
            format!("up to {} rows a module, {limit}", count(served.most() as usize)),
        ),
    ];
    let (given_away, measured) = leak::said(&args.artifacts, &artifacts.pinned.id());
    table.extend(given_away);
    table.push(("Trace", args.out.display().to_string()));
    output.result(
        &json!({
            "rows": trace.rows(),
            "session_id": hex::encode(trace.session),
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
    let info = TraceFile::info(file)?;
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
    let srs = srs_store::load(args.srs.srs.as_deref())?;
    let keys = KeyStore::default();
    let artifacts = Artifacts::load(&args.artifacts, &srs, &keys)?;
    files::require_folder_of(&args.out)?;
    let trace = TraceReader::trace(&args.trace, &artifacts.pinned)?;
    let spinner = output.spinner();
    spinner.set_message("prove");
    let proof = session::prove(&artifacts, &trace, &srs, &keys);
    spinner.finish_and_clear();
    let proof = proof?;
    files::write(&args.out, &proof, Access::Public)?;
    output.result(
        &json!({ "adapter_id": artifacts.pinned.id().to_string(), "bytes": proof.len(), "out": path(&args.out), "rows": trace.rows() }),
        &[
            ("Proven", format!("{} rows of adapter {}", count(trace.rows()), artifacts.pinned.id())),
            ("Proof", format!("{}, {}", args.out.display(), bytes(proof.len() as u64))),
        ],
    );
    Ok(ExitCode::SUCCESS)
}

/// What ties a trace that somebody else recorded to the user's own session.
fn check_yours(
    args: &args::Verify,
    pinned: &CheckedManifest,
    trace: &Trace<'_>,
) -> Result<(), Error> {
    if let Some(args::SessionId(own)) = &args.session_id
        && own != trace.context()
    {
        let found = hex::encode(trace.context());
        return Err(Error::NotYours(format!(
            "the trace is of session {found}, not of --session-id"
        )));
    }
    if let Some(path) = &args.inputs {
        let activations = Activations::read(path, pinned.modules(), args.module.as_deref())?;
        record::check_inputs(pinned, trace, &activations)?;
    }
    Ok(())
}

pub fn verify(args: &args::Verify, output: &Output) -> Outcome {
    let srs = srs_store::load(args.srs.file.srs.as_deref())?;
    let keys = KeyStore::default();
    let public = Public::load(&args.public, args.adapter_id.as_ref(), &srs, &keys)?;
    let trace = TraceReader::trace(&args.trace, &public.pinned)?;
    check_yours(args, &public.pinned, &trace)?;
    let proof = files::read(&args.proof, session::MAX_PROOF)?;
    let verdict = session::verify(&public.pinned, &trace, &proof, &srs, &keys, policy(&args.srs))?;
    let rows: usize = verdict.rows.iter().map(|(_, rows)| rows).sum();
    let empty: Vec<&str> =
        verdict.rows.iter().filter(|(_, rows)| *rows == 0).map(|(name, _)| name.as_str()).collect();
    let pinned = args.adapter_id.is_some();
    if !pinned {
        output.warn(
            "THE ADAPTER WAS NOT PINNED. This shows that some adapter computes these rows, not that it was fixed before you sent \
             them: for up to r rows a module that is next to nothing. Pass --adapter-id with the id that you had before the session.",
        );
    }
    let said = |given: bool, so: &'static str| if given { so } else { " (as the trace says)" };
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
                said(args.session_id.is_some(), " (yours)")
            ),
        ),
        ("Activations", said(args.inputs.is_some(), "yours").trim_start().to_string()),
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
            "peak_memory_bytes": peak_memory(),
            "pinned": pinned,
            "session_compared": args.session_id.is_some(),
            "session_id": hex::encode(trace.context()),
            "proof_bytes": proof.len(),
            "rows": verdict.rows.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        }),
        &table,
    );
    Ok(ExitCode::SUCCESS)
}
