//! `zklora bench --against`

use std::{path::PathBuf, process::ExitCode, time::Duration};

use serde_json::json;
use zklora_bench::{
    ezkl_comparison::{
        self, ComparedStage, Comparison, Options, Outcome as Stopped, Shape, SystemReport,
    },
    proof_bench::Profile,
};
use zklora_files::Access;
use zklora_runtime::Error;

use super::outcome::Outcome;
use crate::{
    args,
    output::{Output, bytes, count, seconds},
};

pub fn bench(args: &args::Bench, output: &Output) -> Outcome {
    let against = &args.against;
    if let Some(html) = &against.html {
        zklora_files::require_folder_of(html)?;
    }
    let rows = match args.rows.as_slice() {
        [] => 1,
        [rows] => *rows as usize,
        _ => return Err(Error::input("a comparison takes one number of --rows").into()),
    };
    let scratch = zklora_files::scratch()?;
    let (adapter, module) = subject(args, &scratch.path().join("adapter"))?;
    let options = Options {
        adapter: &adapter,
        base: args.base.as_deref(),
        module: &module,
        rows,
        circuit: super::ezkl::circuit_options(&against.circuit),
        ezkl_srs: against.ezkl_srs.as_deref(),
        srs: args.srs.srs.as_deref(),
    };
    let spinner = output.spinner();
    let compared =
        ezkl_comparison::compare(&options, &super::ezkl::python(&against.python), &mut |step| {
            spinner.set_message(step.to_string())
        });
    spinner.finish_and_clear();
    let compared = compared?;
    if let Some(html) = &against.html {
        zklora_files::write(html, ezkl_comparison::page(&compared).as_bytes(), Access::Public)?;
    }
    print(&compared, output);
    Ok(ExitCode::SUCCESS)
}

/// The adapter's folder and the module's name, of the user's adapter or of a synthetic one.
fn subject(args: &args::Bench, scratch: &std::path::Path) -> anyhow::Result<(PathBuf, String)> {
    let shape = match (&args.adapter, &args.against.module, args.profile.as_slice()) {
        (Some(adapter), Some(module), []) => return Ok((adapter.clone(), module.clone())),
        (None, Some(shape), []) => shape.parse().map_err(Error::input)?,
        (None, None, [profile]) => {
            let shape = Profile::named(profile).and_then(|p| p.shapes.first().cloned());
            let shape =
                shape.ok_or_else(|| Error::input(format!("there is no profile `{profile}`")))?;
            Shape { d_in: shape.d_in, rank: shape.rank, d_out: shape.d_out }
        }
        _ => {
            return Err(Error::input(
                "name the module to compare on: --module 64x4x64, --profile NAME (its first \
                 module), or --adapter DIR --module NAME",
            )
            .into());
        }
    };
    Ok((scratch.to_path_buf(), ezkl_comparison::synthetic_adapter(shape, scratch)?.to_string()))
}

fn time(s: f64) -> String {
    seconds(Duration::from_secs_f64(s.max(0.0)))
}

fn cell(side: &SystemReport, stage: ComparedStage) -> Vec<String> {
    match side.stage(stage) {
        Stopped::Done(f) => {
            vec![time(f.seconds), time(f.cpu_seconds), f.peak_bytes.map_or("unknown".into(), bytes)]
        }
        Stopped::InNext => vec!["in the next".into(), String::new(), String::new()],
        Stopped::Stopped(_) => vec!["STOPPED".into(), String::new(), String::new()],
        Stopped::NotRun => vec!["not run".into(), String::new(), String::new()],
    }
}

fn print(compared: &Comparison, output: &Output) {
    let (native, ezkl) = (&compared.native, &compared.ezkl);
    let header = ["", "zklora wall", "CPU", "memory", "EZKL wall", "CPU", "memory", "ratio, wall"];
    let mut table = vec![header.map(String::from).to_vec()];
    let ratio_of = |what: &str| {
        let found = compared.ratios.iter().find(|ratio| ratio.what == what);
        found.map_or(String::new(), |ratio| ratio_text(ratio.ratio))
    };
    for stage in ComparedStage::ALL {
        let mut line = vec![stage.name().to_string()];
        line.extend(cell(native, stage));
        line.extend(cell(ezkl, stage));
        line.push(ratio_of(&format!("{}, wall time", stage.name())));
        table.push(line);
    }
    output.table(&table);
    let both = |native: String, ezkl: String, what: &str| {
        let ratio = ratio_of(what);
        format!(
            "zklora {native}, EZKL {ezkl}{}",
            if ratio.is_empty() { String::new() } else { format!(", ratio {ratio}") }
        )
    };
    let or_none = |value: Option<u64>| value.map_or("none".into(), bytes);
    let sum = |side: &SystemReport| side.seconds().map_or("unknown".into(), time);
    let error = |side: &SystemReport| {
        side.accuracy.map_or("unknown".into(), |a| {
            format!("{:.1e} (largest {:.1e})", a.relative_rms, a.largest)
        })
    };
    let logrows = |side: &SystemReport| side.logrows.map_or("unknown".into(), |k| format!("2^{k}"));
    let mut rows = vec![
        ("Module", format!("{}, rows: {}", compared.module, count(compared.rows))),
        ("Circuit", format!("zklora {} rows, EZKL {} rows", logrows(native), logrows(ezkl))),
        ("All stages", both(sum(native), sum(ezkl), "all stages, wall time")),
        (
            "Peak memory",
            both(or_none(native.peak_bytes()), or_none(ezkl.peak_bytes()), "peak memory"),
        ),
        ("Proofs", both(or_none(native.proof_bytes), or_none(ezkl.proof_bytes), "proofs, bytes")),
        (
            "Public files",
            both(bytes(native.public_bytes), bytes(ezkl.public_bytes), "public files, bytes"),
        ),
        (
            "Private files",
            both(bytes(native.private_bytes), bytes(ezkl.private_bytes), "private files, bytes"),
        ),
        ("RMS error", both(error(native), error(ezkl), "relative RMS error")),
    ];
    for side in [native, ezkl] {
        for (stage, outcome) in &side.stages {
            if let Stopped::Stopped(why) = outcome {
                rows.push(("STOPPED", format!("{}, {}: {why}", side.name, stage.name())));
            }
        }
    }
    if let Some(srs) = compared.ezkl_srs_seconds {
        rows.push((
            "EZKL's SRS",
            format!("{} (insecure, generated for this run, not part of any stage)", time(srs)),
        ));
    }
    rows.push((
        "Machine",
        format!("{} cores; limit of each stage {}", compared.cores, time(compared.limit_seconds)),
    ));
    output.result(&json!(compared), &rows);
}

fn ratio_text(ratio: f64) -> String {
    if ratio >= 100.0 { format!("{ratio:.0}") } else { format!("{ratio:.2}") }
}
