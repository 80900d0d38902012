//! `zklora bench`: --adapter, and the choice of what is measured

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::Context;
use serde_json::json;
use zklora_artifacts::{folder::Artifacts, srs_file};
use zklora_bench::{
    evaluation_bench,
    long_session::LongTask,
    network_bench::{self, Compared},
    proof_bench::Task,
};
use zklora_files::MAX_FILE;
use zklora_proof::{keys::KeyStore, verifier::SrsPolicy};
use zklora_runtime::{
    pipeline,
    pipeline::{Options, PipelineStep, RunRows},
};

use super::{inference_bench, long_bench, outcome::Outcome, profile_bench};
use crate::{
    args,
    output::{Output, bytes, count, seconds},
};

pub fn bench(args: &args::Bench, output: &Output) -> Outcome {
    if let (Some(artifacts), Some(model), Some(text)) = (&args.evaluate, &args.model, &args.text) {
        return evaluations(args, artifacts, model, text, output);
    }
    if let (Some(artifacts), Some(model), Some(text)) = (&args.inference, &args.model, &args.text) {
        return inference_bench::bench(args, artifacts, model, text, output);
    }
    if let Some(task) = &args.task {
        return run_task(task, output);
    }
    if args.long {
        return long_bench::bench(args, output);
    }
    let Some(adapter) = &args.adapter else { return profile_bench::bench(args, output) };
    if let Some(model) = &args.model {
        return network(args, adapter, model, output);
    }
    let rows: &[u32] = if args.rows.is_empty() { &[64, 640, 6400] } else { &args.rows };
    let stages = [
        PipelineStep::Srs,
        PipelineStep::Export,
        PipelineStep::Compile,
        PipelineStep::Record,
        PipelineStep::Prove,
        PipelineStep::Verify,
    ];
    let mut table = vec![
        [
            "rows a module",
            "SRS",
            "export",
            "compile",
            "record",
            "prove",
            "verify",
            "proof",
            "peak memory",
        ]
        .map(String::from)
        .to_vec(),
    ];
    let mut results = Vec::new();
    for rows in rows {
        let out = zklora_files::scratch()?;
        let options = Options {
            adapter,
            base: args.base.as_deref(),
            rows: RunRows::Synthetic(*rows as usize),
            out: out.path(),
            srs: args.srs.srs.as_deref(),
            policy: SrsPolicy::AllowUntrusted,
        };
        let spinner = output.spinner();
        let summary = pipeline::run(&options, &mut |stage| {
            spinner.set_message(format!("{rows} rows: {stage}"))
        });
        spinner.finish_and_clear();
        let summary = summary?;
        let time = |stage: PipelineStep| {
            summary
                .times
                .iter()
                .find(|(s, _)| *s == stage)
                .map(|(_, time)| *time)
                .unwrap_or_default()
        };
        let mut line = vec![count(*rows as usize)];
        line.extend(stages.map(|stage| seconds(time(stage))));
        line.push(bytes(summary.proof_bytes as u64));
        line.push(summary.peak_memory.map_or("unknown".into(), bytes));
        table.push(line);
        let times: serde_json::Map<_, _> = stages
            .map(|stage| {
                (
                    json!(stage).as_str().unwrap_or_default().to_string(),
                    json!(time(stage).as_secs_f64()),
                )
            })
            .into_iter()
            .collect();
        results.push(json!({
            "rows": rows,
            "seconds": times,
            "proof_bytes": summary.proof_bytes,
            "peak_memory_bytes": summary.peak_memory,
        }));
    }
    output.table(&table);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    output.result(
        &json!({ "cores": cores, "runs": results }),
        &[("Machine", format!("{cores} cores; peak memory is of the process so far"))],
    );
    Ok(ExitCode::SUCCESS)
}

/// Runs one stage of a profile, or one part of a long session, in this process.
fn run_task(path: &Path, output: &Output) -> Outcome {
    let bytes = zklora_files::read(path, MAX_FILE)?;
    let report = match serde_json::from_slice::<LongTask>(&bytes) {
        Ok(task) => json!(task.run()?),
        Err(_) => json!(serde_json::from_slice::<Task>(&bytes).context("not a task")?.run()?),
    };
    output.result(&report, &[("Measured", report.to_string())]);
    Ok(ExitCode::SUCCESS)
}

fn evaluations(
    args: &args::Bench,
    artifacts: &Path,
    model: &Path,
    text: &Path,
    output: &Output,
) -> Outcome {
    let srs = srs_file::load(args.srs.srs.as_deref())?;
    let artifacts = Artifacts::load(artifacts, &srs, &KeyStore::default())?;
    let scratch = zklora_files::scratch()?;
    let own = scratch.path().join("integer");
    let options = evaluation_bench::Options {
        base: model,
        tokenizer: args.tokenizer.clone(),
        integer: args.integer.as_deref().unwrap_or(&own),
        text,
        units: args.units as usize,
        tokens: args.tokens as usize,
        many: args.many_units as usize,
        scratch: scratch.path(),
    };
    let spinner = output.spinner();
    let measured = evaluation_bench::measure(artifacts, &srs, &options, &mut |step| {
        spinner.set_message(step);
    });
    spinner.finish_and_clear();
    let measured = measured?;
    let time = |s: f64| seconds(Duration::from_secs_f64(s));
    let of = |bytes_of: Option<u64>| bytes_of.map_or("-".into(), bytes);
    let Compared { zklora_seconds, other_seconds, ratio } = &measured.scoring;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    output.result(
        &json!({ "cores": cores, "measured": measured }),
        &[
            (
                "Scoring",
                format!(
                    "{} units of {} tokens, base and adapted: {}; one pass of the bare f32 graph in \
                     tract each: {}; ratio {ratio:.2}",
                    count(measured.units),
                    measured.tokens,
                    time(*zklora_seconds),
                    time(*other_seconds)
                ),
            ),
            ("On the wire", format!("{:.0} bytes a unit", measured.bytes_per_unit)),
            (
                "Around it",
                format!(
                    "{} units: {}, {:.3} % of their scoring; peak memory {}",
                    count(measured.many),
                    time(measured.handling_seconds),
                    measured.handling_share * 100.0,
                    of(measured.handling_memory)
                ),
            ),
            ("Peak memory", of(measured.memory)),
            ("Cores", cores.to_string()),
        ],
    );
    Ok(ExitCode::SUCCESS)
}

fn network(args: &args::Bench, adapter: &Path, model: &Path, output: &Output) -> Outcome {
    let srs = srs_file::load(args.srs.srs.as_deref())?;
    let scratch = zklora_files::scratch()?;
    let options = network_bench::Options {
        adapter,
        base: args.base.as_deref(),
        model,
        tokens: args.tokens as usize,
        repetitions: args.repetitions as usize,
        scratch: scratch.path(),
    };
    let spinner = output.spinner();
    let measured =
        network_bench::measure(&options, &srs, &mut |step| spinner.set_message(step.to_string()));
    spinner.finish_and_clear();
    let measured = measured?;
    let row = |what: &str, with: &str, compared: &Compared| {
        let time = |s: f64| {
            if s < 1e-3 {
                format!("{:.0} µs", s * 1e6)
            } else {
                seconds(Duration::from_secs_f64(s))
            }
        };
        vec![
            what.to_string(),
            time(compared.zklora_seconds),
            with.to_string(),
            time(compared.other_seconds),
            format!("{:.2}", compared.ratio),
        ]
    };
    output.table(&[
        ["", "zklora", "compared with", "", "ratio"].map(String::from).to_vec(),
        row("forward pass with remote deltas", "the same graph alone", &measured.forward),
        row("call of a contributor", "gRPC echo of as many bytes", &measured.call),
        row("deltas of a pass, one thread", "f32 by ndarray", &measured.deltas),
    ]);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    output.result(
        &json!({ "cores": cores, "measured": measured }),
        &[(
            "Machine",
            format!(
                "{cores} cores; {} tokens, {} modules, {} sent and {} received per pass; medians \
                 of {} passes",
                measured.tokens,
                measured.modules,
                bytes(measured.bytes.0),
                bytes(measured.bytes.1),
                args.repetitions
            ),
        )],
    );
    Ok(ExitCode::SUCCESS)
}
