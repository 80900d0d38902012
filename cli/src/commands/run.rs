//! `zklora run`

use std::{path::Path, process::ExitCode};

use serde_json::json;
use zklora_runtime::{
    pipeline,
    pipeline::{Options, PipelineStep, RunRows, Summary},
};

use super::outcome::{Outcome, policy};
use crate::{
    args,
    output::{Output, bytes, count, path, seconds},
};

/// Rows per module without --rows and --trace, if the adapter's folder has no activations.
const DEFAULT_ROWS: usize = 64;

pub fn run(args: &args::Run, output: &Output) -> Outcome {
    let scratch = match &args.out {
        Some(_) => None,
        None => Some(zklora_files::scratch()?),
    };
    let out = args
        .out
        .as_deref()
        .or(scratch.as_ref().map(zklora_files::Scratch::path))
        .unwrap_or(Path::new("."));
    let rows = rows(args);
    let options = Options {
        adapter: &args.adapter,
        base: args.base.as_deref(),
        rows: rows.clone(),
        out,
        srs: args.srs.file.srs.as_deref(),
        policy: policy(&args.srs),
    };
    let spinner = output.spinner();
    let result =
        pipeline::run(&options, &mut |stage: PipelineStep| spinner.set_message(stage.to_string()));
    spinner.finish_and_clear();
    print(&result?, &rows, args.out.as_deref(), output);
    Ok(ExitCode::SUCCESS)
}

fn rows(args: &args::Run) -> RunRows {
    let adapter_inputs = args.adapter.join("activations.safetensors");
    match (&args.trace, args.rows) {
        (Some(file), _) => RunRows::File(file.clone()),
        (None, Some(rows)) => RunRows::Synthetic(rows as usize),
        (None, None) if adapter_inputs.is_file() => RunRows::File(adapter_inputs),
        (None, None) => RunRows::Synthetic(DEFAULT_ROWS),
    }
}

fn print(summary: &Summary, rows: &RunRows, out: Option<&Path>, output: &Output) {
    let (modules, called) = summary.modules;
    let total: std::time::Duration = summary.times.iter().map(|(_, time)| *time).sum();
    let source = match rows {
        RunRows::File(path) => format!("activations of {}", path.display()),
        RunRows::Synthetic(_) => "pseudo-random activations".into(),
    };
    let times: serde_json::Map<_, _> = summary
        .times
        .iter()
        .map(|(stage, time)| {
            (json!(stage).as_str().unwrap_or_default().to_string(), json!(time.as_secs_f64()))
        })
        .collect();
    let json = json!({
        "accepted": true,
        "adapter_id": summary.verdict.adapter.to_string(),
        "base_model": summary.base_model,
        "ceremony": summary.ceremony.to_string(),
        "manifest_bytes": summary.manifest_bytes,
        "modules": modules,
        "modules_called": called,
        "parameters": summary.parameters,
        "peak_memory_bytes": summary.peak_memory,
        "precision": summary.precision,
        "proof_bytes": summary.proof_bytes,
        "rows": summary.rows,
        "seconds": times,
        "out": out.map(path),
    });
    let worst = summary
        .precision
        .worst
        .as_ref()
        .map_or(String::new(), |(name, error)| format!(" (worst module {name}: {error:.1e})"));
    let stages: Vec<(String, String)> =
        summary.times.iter().map(|(stage, time)| (format!("  {stage}"), seconds(*time))).collect();
    let mut table: Vec<(&str, String)> = vec![
        (
            "Adapter",
            format!(
                "{} modules, {} parameters, for {}",
                count(modules),
                count(summary.parameters),
                summary.base_model
            ),
        ),
        ("Session", format!("{} rows in {} modules, {source}", count(summary.rows), count(called))),
        (
            "Precision",
            format!(
                "relative RMS error {:.1e} against the float adapter{worst}",
                summary.precision.relative_rms
            ),
        ),
        ("Time", seconds(total)),
    ];
    table.extend(stages.iter().map(|(stage, time)| (stage.as_str(), time.clone())));
    table.extend([
        ("Peak memory", summary.peak_memory.map_or("unknown".into(), bytes)),
        ("Proof", format!("{} for the whole session", bytes(summary.proof_bytes as u64))),
        ("Manifest", bytes(summary.manifest_bytes as u64)),
        ("SRS", summary.ceremony.to_string()),
        ("Adapter id", summary.verdict.adapter.to_string()),
    ]);
    if let Some(out) = out {
        table.push(("Files", format!("{} (keep private/ and onnx/ private)", out.display())));
    }
    table.push((
        "Verdict",
        "ACCEPTED: every delta of the session came from the adapter with this id".into(),
    ));
    output.result(&json, &table);
}
