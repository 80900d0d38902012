//! `zklora bench`

use std::process::ExitCode;

use serde_json::json;
use zklora_circuit::verifier::SrsPolicy;
use zklora_runtime::pipeline::{self, Options, Rows, Stage};

use super::Outcome;
use crate::{
    args,
    output::{Output, bytes, count, seconds},
};

pub fn bench(args: &args::Bench, output: &Output) -> Outcome {
    let stages = [Stage::Srs, Stage::Export, Stage::Compile, Stage::Record, Stage::Prove, Stage::Verify];
    let mut table = vec![
        ["rows a module", "SRS", "export", "compile", "record", "prove", "verify", "proof", "peak memory"]
            .map(String::from)
            .to_vec(),
    ];
    let mut results = Vec::new();
    for rows in &args.rows {
        let out = tempfile::tempdir()?;
        let options = Options {
            adapter: &args.adapter,
            base: args.base.as_deref(),
            rows: Rows::Synthetic(*rows as usize),
            out: out.path(),
            srs: args.srs.srs.as_deref(),
            policy: SrsPolicy::AllowUntrusted,
        };
        let spinner = output.spinner();
        let summary = pipeline::run(&options, &mut |stage| spinner.set_message(format!("{rows} rows: {stage}")));
        spinner.finish_and_clear();
        let summary = summary?;
        let time =
            |stage: Stage| summary.times.iter().find(|(s, _)| *s == stage).map(|(_, time)| *time).unwrap_or_default();
        let mut line = vec![count(*rows as usize)];
        line.extend(stages.map(|stage| seconds(time(stage))));
        line.push(bytes(summary.proof_bytes as u64));
        line.push(summary.peak_memory.map_or("unknown".into(), bytes));
        table.push(line);
        let times: serde_json::Map<_, _> = stages
            .map(|stage| (json!(stage).as_str().unwrap_or_default().to_string(), json!(time(stage).as_secs_f64())))
            .into_iter()
            .collect();
        results.push(json!({ "rows": rows, "seconds": times, "proof_bytes": summary.proof_bytes, "peak_memory_bytes": summary.peak_memory }));
    }
    output.table(&table);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    output.result(
        &json!({ "cores": cores, "runs": results }),
        &[("Machine", format!("{cores} cores; peak memory is of the process so far"))],
    );
    Ok(ExitCode::SUCCESS)
}
