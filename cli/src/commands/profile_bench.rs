//! `zklora bench --profile` and `--scaling`: starts a process for each stage and prints tables of
//! the measurements.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context, bail};
use serde_json::json;
use zklora_bench::{
    Error, proof_bench,
    proof_bench::{
        ALL_STAGES, BenchStage, Cost, Curve, Item, Measured, PROFILES, Profile, StageReport, Task,
        files_of, targets,
    },
};
use zklora_files::{Access, MAX_FILE};
use zklora_proof::checked_manifest::CheckedManifest;

use super::outcome::Outcome;
use crate::{
    args,
    output::{Output, bytes, count},
};

/// Number of runs of `zklora verify`; the fastest counts.
const STARTS: usize = 3;

pub fn bench(args: &args::Bench, output: &Output) -> Outcome {
    if args.scaling { scaling(args, output) } else { profiles(args, output) }
}

/// Runs a stage in its own process, so that its peak memory is not that of another stage.
fn in_own_process(task: &Task) -> Result<StageReport, Error> {
    let path = task.folder.join("task.json");
    zklora_files::write(&path, json!(task).to_string().as_bytes(), Access::Private)?;
    let failed = |why: String| {
        Error::input(format!("stage `{}` of profile {}: {why}", task.stage, task.profile.name))
    };
    let run = || -> anyhow::Result<StageReport> {
        let out = Command::new(std::env::current_exe()?)
            .args(["--json", "bench", "--task"])
            .arg(&path)
            .output()?;
        if !out.status.success() {
            bail!("{}: {}", out.status, messages(&out.stderr));
        }
        Ok(serde_json::from_slice(&out.stdout)?)
    };
    run().map_err(|e| failed(e.to_string()))
}

/// The messages of a process, on one line.
pub(super) fn messages(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr).lines().collect::<Vec<_>>().join(" | ")
}

/// Runs `zklora prove` as a contributor does: on the files, in a new process.
fn prove_in_own_process(
    folder: &Path,
    rows: usize,
    srs: Option<&Path>,
) -> anyhow::Result<(Cost, Option<u64>)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--json", "prove", "--artifacts"]).arg(folder.join("artifacts"));
    command.arg("--trace").arg(files_of(folder, rows).0);
    command.arg("--out").arg(folder.join("by-process.pf"));
    if let Some(srs) = srs {
        command.arg("--srs").arg(srs);
    }
    measure_command(&mut command, "zklora prove")
}

/// Runs `zklora verify` as a user does: on the files, with the pin, in a new process.
fn verify_in_own_process(
    folder: &Path,
    rows: usize,
    srs: Option<&Path>,
) -> anyhow::Result<(Cost, Option<u64>)> {
    let artifacts = folder.join("artifacts");
    let pin = CheckedManifest::parse(&zklora_files::read(
        &artifacts.join("public/manifest.json"),
        MAX_FILE,
    )?)?
    .id()
    .to_string();
    let (trace, proof) = files_of(folder, rows);
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--json", "verify", "--adapter-id", &pin, "--public"])
        .arg(artifacts.join("public"));
    command.arg("--trace").arg(trace).arg("--proof").arg(proof);
    if let Some(srs) = srs {
        command.arg("--insecure-srs").arg("--srs").arg(srs);
    }
    measure_command(&mut command, "zklora verify")
}

/// The shortest of some runs from start to exit, and the peak memory of it.
fn measure_command(command: &mut Command, name: &str) -> anyhow::Result<(Cost, Option<u64>)> {
    let mut best: Option<(Cost, Option<u64>)> = None;
    for _ in 0..STARTS {
        let start = Instant::now();
        let out = command.output()?;
        let seconds = start.elapsed().as_secs_f64();
        if !out.status.success() {
            bail!("{name}: {}: {}", out.status, messages(&out.stderr));
        }
        let printed: serde_json::Value = serde_json::from_slice(&out.stdout)?;
        let cost =
            Cost { seconds, cpu_seconds: printed["cpu_seconds"].as_f64().unwrap_or_default() };
        if best.is_none_or(|(best, _)| seconds < best.seconds) {
            best = Some((cost, printed["peak_memory_bytes"].as_u64()));
        }
    }
    best.with_context(|| format!("{name} was not started"))
}

fn measure(
    profile: &Profile,
    rows: usize,
    srs: Option<&Path>,
    progress: &mut dyn FnMut(String),
) -> anyhow::Result<Measured> {
    let folder = zklora_files::scratch()?;
    let mut run = |task: &Task| {
        progress(format!("{}, {rows} rows: {}", profile.name, task.stage));
        in_own_process(task)
    };
    let mut measured =
        proof_bench::measure(profile, rows, folder.path(), srs, &ALL_STAGES, &mut run)?;
    progress(format!("{}, {rows} rows: {}", profile.name, BenchStage::Process));
    let mut report = StageReport::default();
    let (cost, _) = prove_in_own_process(folder.path(), 1, srs)?;
    report.costs.insert(Item::ProveProcessOneRow, cost);
    for (item, rows) in [(Item::ProcessOneRow, 1), (Item::Process, rows)] {
        let (cost, peak) = verify_in_own_process(folder.path(), rows, srs)?;
        report.costs.insert(item, cost);
        report.peak_memory = peak;
    }
    measured.add(BenchStage::Process, report);
    Ok(measured)
}

fn profiles(args: &args::Bench, output: &Output) -> Outcome {
    let names: Vec<&str> = if args.all {
        PROFILES.to_vec()
    } else {
        args.profile.iter().map(String::as_str).collect()
    };
    let rows: &[u32] = if args.rows.is_empty() { &[64] } else { &args.rows };
    let page = args.markdown.as_deref().map(|path| page(path, proof_bench::BEGIN)).transpose()?;
    let spinner = output.spinner();
    let mut measured = Vec::new();
    for name in names {
        let profile = Profile::named(name).context("no such profile")?;
        for rows in rows {
            let mut progress = |step: String| spinner.set_message(step);
            measured.push(measure(
                &profile,
                *rows as usize,
                args.srs.srs.as_deref(),
                &mut progress,
            )?);
        }
    }
    spinner.finish_and_clear();
    let (judged, machine) = (targets::judge(&measured), proof_bench::machine());
    if let Some((path, text)) = page {
        let section = proof_bench::section(&machine, &measured, &judged);
        zklora_files::write(
            path,
            proof_bench::replace_section(&text, proof_bench::BEGIN, &section)?.as_bytes(),
            Access::Public,
        )?;
    }
    for profile in &measured {
        output.table(&figures(profile));
        output.table(&[vec![String::new()]]);
    }
    let mut table = vec![["profile", "what", "measured", "target", ""].map(String::from).to_vec()];
    table.extend(judged.iter().map(|judged| judged.cells().to_vec()));
    output.table(&table);
    output.result(
        &json!({ "machine": machine, "profiles": measured, "targets": judged }),
        &[("", String::new()), ("Machine", machine), ("Note", NOTE.into())],
    );
    Ok(ExitCode::SUCCESS)
}

const NOTE: &str = "the fastest of up to five runs in two seconds; one process per stage; targets \
                    are for two idle cores";

/// The file for figures and its text, after a check that it marks their place.
pub(super) fn page<'a>(path: &'a Path, begin: &str) -> anyhow::Result<(&'a Path, String)> {
    let text = String::from_utf8(zklora_files::read(path, MAX_FILE)?)?;
    // Fails here rather than after minutes of measuring.
    proof_bench::replace_section(&text, begin, "")?;
    Ok((path, text))
}

/// A time with three significant digits.
fn time(seconds: f64) -> String {
    targets::Quantity::Seconds(&[]).shown(seconds)
}

/// All measurements of a profile. The peak memory of a stage is in the row of its last figure.
fn figures(measured: &Measured) -> Vec<Vec<String>> {
    let title = format!(
        "{} ({}), {} rows a module",
        measured.profile,
        measured.shapes,
        count(measured.rows)
    );
    let mut table = vec![vec![title, "wall".into(), "CPU".into(), "peak memory".into()]];
    let last: BTreeMap<BenchStage, Item> =
        measured.figures.iter().map(|figure| (figure.stage, figure.item)).collect();
    for figure in &measured.figures {
        let mut line =
            vec![figure.item.to_string(), time(figure.cost.seconds), time(figure.cost.cpu_seconds)];
        let peak = measured
            .peak_memory
            .get(&figure.stage)
            .filter(|_| last.get(&figure.stage) == Some(&figure.item));
        line.push(peak.map_or(String::new(), |peak| bytes(*peak)));
        table.push(line);
    }
    table
        .extend(measured.sizes.iter().map(|(size, length)| vec![size.to_string(), bytes(*length)]));
    table
}

fn scaling(args: &args::Bench, output: &Output) -> Outcome {
    let name = args.profile.first().map_or("distilgpt2", String::as_str);
    let base = Profile::named(name).context("no such profile")?;
    let rows = args.rows.first().map_or(16, |rows| *rows as usize);
    let scratch = zklora_files::scratch()?;
    let spinner = output.spinner();
    let mut run = |task: &Task| {
        spinner.set_message(format!(
            "{}, {} rows: {}",
            task.profile.summary(),
            task.rows,
            task.stage
        ));
        in_own_process(task)
    };
    let curves =
        proof_bench::curves(&base, rows, scratch.path(), args.srs.srs.as_deref(), &mut run)?;
    spinner.finish_and_clear();
    if let Some(path) = &args.svg {
        let title = format!("{name} ({}), {rows} rows a module, and more of each", base.summary());
        zklora_files::write(
            path,
            proof_bench::drawing(&title, &curves).as_bytes(),
            Access::Public,
        )?;
    }
    for curve in &curves {
        output.table(&growth(curve));
        output.table(&[vec![String::new()]]);
    }
    let machine = proof_bench::machine();
    output.result(
        &json!({ "base": base, "curves": curves, "machine": machine, "rows": rows }),
        &[("Machine", machine)],
    );
    Ok(ExitCode::SUCCESS)
}

fn growth(curve: &Curve) -> Vec<Vec<String>> {
    let items = [
        Item::Commit,
        Item::Record,
        Item::Digest,
        Item::Projection,
        Item::PassInPieces,
        Item::ProveOneRow,
        Item::Prove,
        Item::VerifyOneRow,
        Item::Verify,
    ];
    let head = [curve.axis.to_string()].into_iter().chain(items.iter().map(Item::to_string));
    let mut table = vec![
        head.chain([
            "proof".into(),
            "peak, in pieces".into(),
            "peak, prove".into(),
            "peak, verify".into(),
        ])
        .collect(),
    ];
    for point in &curve.points {
        let measured = &point.measured;
        let mut line = vec![count(point.at)];
        line.extend(
            items.map(|item| measured.cost(item).map_or(String::new(), |cost| time(cost.seconds))),
        );
        line.push(measured.size(proof_bench::Size::Proof).map_or(String::new(), bytes));
        line.extend([BenchStage::Pieces, BenchStage::Prove, BenchStage::Verify].map(|stage| {
            measured.peak_memory.get(&stage).map_or(String::new(), |peak| bytes(*peak))
        }));
        table.push(line);
    }
    table
}
