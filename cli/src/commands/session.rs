//! `zklora trace`, `prove` and `verify`

use std::{path::Path, process::ExitCode};

use anyhow::Context;
use serde_json::json;
use zklora_circuit::keys::KeyStore;
use zklora_runtime::{
    activations::Activations,
    artifacts::{Artifacts, Public},
    files::{self, Access},
    ledger, record, session, srs_store,
    trace_file::TraceFile,
};

use super::{Outcome, policy};
use crate::{
    args,
    output::{Output, bytes, count},
};

pub fn record(args: &args::Record, output: &Output) -> Outcome {
    let srs = srs_store::load(args.srs.srs.as_deref())?;
    let artifacts = Artifacts::load(&args.artifacts, &srs, &KeyStore::default())?;
    let session = args.session_id.as_deref().map(session_id).transpose()?;
    // Rows are counted before they are written: what can fail is asked first.
    files::require_folder_of(&args.out)?;
    let activations = Activations::read(&args.inputs, artifacts.pinned.modules(), args.module.as_deref())?;
    let trace = record::record(&artifacts, &activations, session)?;
    trace.write(&args.out, &artifacts.pinned)?;
    let total: usize = ledger::total_rows(&artifacts.ledger())?.values().sum();
    output.result(
        &json!({ "rows": trace.rows(), "session_id": hex::encode(trace.session), "ignored": activations.ignored, "out": args.out, "rows_served_in_all": total }),
        &[
            ("Recorded", format!("{} rows in {} of {} modules", count(trace.rows()), activations.modules.len(), trace.modules.len())),
            ("Ignored", format!("{} tensors that are no input of the adapter", activations.ignored.len())),
            ("Session id", hex::encode(trace.session)),
            ("Served in all", format!("{} rows (see docs/security.md for what rows reveal)", count(total))),
            ("Trace", args.out.display().to_string()),
        ],
    );
    Ok(ExitCode::SUCCESS)
}

fn session_id(text: &str) -> anyhow::Result<[u8; 32]> {
    let mut id = [0u8; 32];
    hex::decode_to_slice(text, &mut id).context("--session-id takes 64 hex digits: 32 random bytes")?;
    Ok(id)
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
    table.extend(info.rows.iter().map(|(module, rows)| ("", format!("{module}: {}", count(*rows)))));
    output.result(&json!(info), &table);
    Ok(ExitCode::SUCCESS)
}

pub fn prove(args: &args::Prove, output: &Output) -> Outcome {
    let srs = srs_store::load(args.srs.srs.as_deref())?;
    let keys = KeyStore::default();
    let artifacts = Artifacts::load(&args.artifacts, &srs, &keys)?;
    files::require_folder_of(&args.out)?;
    let trace = TraceFile::read(&args.trace, &artifacts.pinned)?;
    let spinner = output.spinner();
    spinner.set_message("prove");
    let proof = session::prove(&artifacts, &trace, &srs, &keys);
    spinner.finish_and_clear();
    let proof = proof?;
    files::write(&args.out, &proof, Access::Public)?;
    output.result(
        &json!({ "adapter_id": artifacts.pinned.id().to_string(), "bytes": proof.len(), "out": args.out, "rows": trace.rows() }),
        &[
            ("Proven", format!("{} rows of adapter {}", count(trace.rows()), artifacts.pinned.id())),
            ("Proof", format!("{}, {}", args.out.display(), bytes(proof.len() as u64))),
        ],
    );
    Ok(ExitCode::SUCCESS)
}

pub fn verify(args: &args::Verify, output: &Output) -> Outcome {
    let srs = srs_store::load(args.srs.file.srs.as_deref())?;
    let keys = KeyStore::default();
    let public = Public::load(&args.public, args.adapter_id.as_ref(), &srs, &keys)?;
    let trace = TraceFile::read(&args.trace, &public.pinned)?;
    let proof = files::read(&args.proof, session::MAX_PROOF)?;
    let verdict = session::verify(&public.pinned, &trace, &proof, &srs, &keys, policy(&args.srs))?;
    let rows: usize = verdict.rows.iter().map(|(_, rows)| rows).sum();
    let empty: Vec<&str> = verdict.rows.iter().filter(|(_, rows)| *rows == 0).map(|(name, _)| name.as_str()).collect();
    let pinned = args.adapter_id.is_some();
    if !pinned {
        output.warn(
            "THE ADAPTER WAS NOT PINNED. This shows that some adapter computes these rows, not that it was fixed before you sent \
             them: for up to r rows a module that is next to nothing. Pass --adapter-id with the id that you had before the session.",
        );
    }
    let mut table = vec![
        ("Adapter id", format!("{}{}", verdict.adapter, if pinned { " (your pin)" } else { " (NOT PINNED)" })),
        ("Rows", format!("{} in {} modules", count(rows), verdict.rows.len() - empty.len())),
    ];
    table.extend(
        verdict.rows.iter().filter(|(_, rows)| *rows > 0).map(|(name, rows)| ("", format!("{name}: {}", count(*rows)))),
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
            "pinned": pinned,
            "proof_bytes": proof.len(),
            "rows": verdict.rows.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        }),
        &table,
    );
    Ok(ExitCode::SUCCESS)
}
