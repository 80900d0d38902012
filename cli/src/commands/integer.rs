//! `zklora integer`

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use zklora_artifacts::{folder::Artifacts, srs_file};
use zklora_files::Access;
use zklora_proof::keys::KeyStore;
use zklora_runtime::{
    integer::{
        self, BaseModel, CheckOptions, Comparison, PlanSize, Provable, ProveOptions, RunOptions,
        Score, Scored, Setup, Side,
    },
    process::peak_memory,
};

use super::outcome::Outcome;
use crate::{
    args::integer::{
        IntegerCheck, IntegerCommand, IntegerCompile, IntegerProve, IntegerRun, Model,
    },
    exit_code::NO,
    output::{self, Output, count},
};

pub fn integer(command: &IntegerCommand, output: &Output) -> Outcome {
    match command {
        IntegerCommand::Compile(args) => compile(args, output),
        IntegerCommand::Run(args) => run(args, output),
        IntegerCommand::Check(args) => check(args, output),
        IntegerCommand::Prove(args) => prove(args, output),
    }
}

fn compile(args: &IntegerCompile, output: &Output) -> Outcome {
    let spinner = output.spinner();
    spinner.set_message("read the base model, calibrate, choose scales");
    let started = Instant::now();
    let base = &args.base;
    let made =
        integer::compile(&base.base, base.tokenizer.as_deref(), args.generated_tokens, &args.out);
    spinner.finish_and_clear();
    let made = made?;
    output.result(
        &json!({
            "integer_model": made.digest,
            "operators": made.operators,
            "parameters": made.parameters,
            "tokens": made.tokens,
            "score_bits": made.score_bits,
            "model": output::path(&made.model),
            "tables": output::path(&made.tables),
        }),
        &[
            ("Integer model", made.digest.clone()),
            ("Operators", format!("{}, {} public weights", made.operators, count(made.parameters))),
            ("Longest unit", format!("{} tokens", count(made.tokens))),
            ("Written", made.model.display().to_string()),
            ("Tables", format!("{} (for other implementations)", made.tables.display())),
            ("Time", cost(started.elapsed())),
        ],
    );
    Ok(ExitCode::SUCCESS)
}

fn setup(args: &Model) -> anyhow::Result<Setup> {
    let srs = srs_file::load(args.srs.srs.as_deref())?;
    let artifacts = match &args.artifacts {
        None => None,
        Some(folder) if !folder.join("private").is_dir() => anyhow::bail!(
            "{}: there is no private/ folder here: an adapter's weights are needed, which only its \
             contributor has, and whoever it was delivered to; name the folder that `zklora \
             compile` wrote",
            folder.display()
        ),
        Some(folder) => Some(Artifacts::load(folder, &srs, &KeyStore::default())?),
    };
    let base = BaseModel {
        base: args.base.base.clone(),
        base_weights: args.base_weights.clone(),
        allow_other_base: args.allow_other_base,
        maps: args.map.clone(),
        digest: args.digest.clone(),
    };
    Ok(Setup::load(&args.model, &base, artifacts, &srs)?)
}

fn prove(args: &IntegerProve, output: &Output) -> Outcome {
    let srs = srs_file::load(args.model.srs.srs.as_deref())?;
    let spinner = output.spinner();
    spinner.set_message("read the integer model");
    let setup = setup(&args.model)?;
    let base = &args.model.base;
    let tokenizer = zklora_runtime::infer::tokenizer(&base.base, base.tokenizer.as_deref())?;
    let options = ProveOptions {
        text: args.text_file.clone(),
        context: args.context as usize,
        sequences: args.sequences as usize,
        scored: args.scored.map_or(usize::MAX, |scored| scored as usize),
        prove: !args.plan,
        portable: args.portable,
    };
    spinner.set_message(if args.plan { "plan the proof" } else { "prove and verify" });
    let proved = integer::prove(&setup, &srs, &tokenizer, &options);
    spinner.finish_and_clear();
    let proved = match proved? {
        Provable::Yes(proved) => proved,
        Provable::No(why) => {
            let found = json!({ "supported": false, "why": why });
            output.result(&found, &[("Provable", format!("no: {why}"))]);
            return Ok(ExitCode::from(NO));
        }
    };
    let PlanSize { values, lookups, leaves, columns, tables } = proved.size;
    let (tokens, scored) = (proved.tokens, proved.scored);
    let mut rows = vec![
        ("Provable", "yes: low-rank terms and biases".to_string()),
        (
            "Sequences",
            format!("{}: {} tokens, {} scored", proved.sequences, count(tokens), count(scored)),
        ),
        ("Values", format!("{} in {} columns", count(values), count(columns))),
        ("Lookups", format!("{} in {} tables", count(lookups), count(tables))),
    ];
    let mut found = json!({
        "supported": true, "tokens": tokens, "scored": scored, "values": values,
        "lookups": lookups, "leaves": leaves, "columns": columns, "tables": tables,
    });
    match proved.measured {
        Some(measured) => {
            rows.push((
                "Prove",
                format!(
                    "{} ({:.1} s of processors' time, its own verification included)",
                    cost(measured.prove),
                    measured.prove_cpu.as_secs_f64()
                ),
            ));
            rows.push(("Verify", format!("{:.2} s", measured.verify.as_secs_f64())));
            rows.push(("Proof", format!("{} bytes", count(measured.bytes))));
            found["prove_s"] = measured.prove.as_secs_f64().into();
            found["prove_cpu_s"] = measured.prove_cpu.as_secs_f64().into();
            found["verify_s"] = measured.verify.as_secs_f64().into();
            found["bytes"] = measured.bytes.into();
            found["peak_memory"] = peak_memory().into();
        }
        None => {
            let estimate = integer::estimate(&proved.size);
            rows.push((
                "Takes about",
                format!(
                    "{:.0} s of processors' time, {} MiB, a proof of {} bytes",
                    estimate.cpu.as_secs_f64(),
                    count(estimate.memory >> 20),
                    count(estimate.bytes)
                ),
            ));
            found["estimate"] = json!({
                "cpu_s": estimate.cpu.as_secs_f64(),
                "memory": estimate.memory,
                "bytes": estimate.bytes,
            });
        }
    }
    output.result(&found, &rows);
    Ok(ExitCode::SUCCESS)
}

fn run(args: &IntegerRun, output: &Output) -> Outcome {
    if let Some(file) = &args.out {
        zklora_files::require_folder_of(file)?;
    }
    let source = args.units.as_ref().or(args.text_file.as_ref());
    if let (Some(out), Some(source)) = (&args.out, source)
        && same_file(out, source)
    {
        anyhow::bail!("{}: --out names the file that is read", out.display());
    }
    let options = match (&args.units, &args.text_file) {
        (Some(units), _) => RunOptions::Units(units.clone()),
        (None, Some(file)) => {
            RunOptions::Text { file: file.clone(), context: args.context as usize }
        }
        (None, None) => anyhow::bail!("name --units or --text-file"),
    };
    let spinner = output.spinner();
    spinner.set_message("read the integer model");
    let setup = setup(&args.model)?;
    spinner.set_message("score");
    let base = &args.model.base;
    let scored = integer::run(&setup, &base.base, base.tokenizer.as_deref(), &options);
    spinner.finish_and_clear();
    let scored = scored?;
    let units: Vec<Value> = (0..scored.scores.len()).map(|at| unit_json(&scored, at)).collect();
    if let Some(file) = &args.out {
        let lines: String = units.iter().map(|unit| format!("{unit}\n")).collect();
        zklora_files::write(file, lines.as_bytes(), Access::Private)?;
    }
    let missing = out_of_range(&scored, output);
    output.table(&table(&scored));
    let mut rows = vec![("Integer model", setup.bound.digest.clone())];
    rows.extend(setup.adapter_id().map(|id| ("Adapter id", id)));
    if setup.adapter_id().is_none() {
        rows.push(("Adapter", "none: the base model alone".into()));
    }
    if missing > 0 {
        let all = scored.scores.len();
        rows.push(("Mean loss", format!("none: {missing} of {all} units have no score")));
    }
    let totals = totals(&scored).filter(|_| missing == 0);
    let mean = totals.map(|(tokens, sum)| -(sum as f64) * unit(&scored) / tokens.max(1) as f64);
    if let (Some((tokens, _)), Some(mean)) = (totals, mean) {
        rows.push(("Mean loss", format!("{mean:.6} nats a token, {} tokens", count(tokens))));
    }
    rows.push(("Time", cost(scored.time)));
    rows.extend(args.out.iter().map(|file| ("Written", file.display().to_string())));
    let (chosen, correct) = answers(&scored);
    if chosen > 0 {
        rows.push(("Correct", format!("{correct} of {chosen} choices")));
    }
    output.result(
        &json!({
            "integer_model": setup.bound.digest,
            "adapter_id": setup.adapter_id(),
            "mean_loss": mean,
            "tokens": totals.map(|totals| totals.0),
            "choices": chosen,
            "correct": correct,
            "seconds": scored.time.as_secs_f64(),
            "score_bits": scored.bits,
            "units": units,
        }),
        &rows,
    );
    Ok(if missing > 0 { ExitCode::from(NO) } else { ExitCode::SUCCESS })
}

/// Warns of units without a score, and counts them. Only warnings say where a unit left its range,
/// because that tells of activations: a user gets the other output.
fn out_of_range(scored: &Scored, output: &Output) -> usize {
    let mut missing = 0;
    for (at, score) in scored.scores.iter().enumerate() {
        if let Score::OutOfRange(failure) = score {
            missing += 1;
            output.warn(format!("unit {at} has no score: {failure}"));
        }
    }
    missing
}

/// A time, and the memory of this process.
fn cost(time: Duration) -> String {
    let memory = peak_memory().map(|peak| format!(", peak memory {}", output::bytes(peak)));
    format!("{}{}", output::seconds(time), memory.unwrap_or_default())
}

/// Whether two paths are one file.
fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Nats of one step of a log-probability.
fn unit(scored: &Scored) -> f64 {
    (-f64::from(scored.bits)).exp2()
}

/// Tokens of all log-probabilities, and their sum; none if there are none.
fn totals(scored: &Scored) -> Option<(usize, i64)> {
    let found = scored.scores.iter().filter_map(|score| match score {
        Score::LogProbability(found) => Some((found.tokens.len(), found.sum())),
        _ => None,
    });
    found.reduce(|all, more| (all.0 + more.0, all.1 + more.1))
}

/// Choices that have an answer, and how many are right.
fn answers(scored: &Scored) -> (usize, usize) {
    let found = scored.scores.iter().filter_map(|score| match score {
        Score::Choice { correct, .. } => *correct,
        _ => None,
    });
    found.fold((0, 0), |(all, right), correct| (all + 1, right + usize::from(correct)))
}

fn unit_json(scored: &Scored, at: usize) -> Value {
    match &scored.scores[at] {
        Score::LogProbability(found) => json!({
            "unit": at,
            "tokens": found.tokens,
            "sum": found.sum(),
            "nats": found.sum() as f64 * unit(scored),
        }),
        Score::Choice { choices, chosen, correct } => json!({
            "unit": at,
            "choices": choices.iter().map(|choice| choice.sum()).collect::<Vec<_>>(),
            "chosen": chosen,
            "correct": correct,
        }),
        Score::Generated(ids) => json!({
            "unit": at,
            "generated": ids,
            "text": scored.texts[at],
        }),
        Score::OutOfRange(_) => json!({ "unit": at, "out_of_range": true }),
    }
}

fn table(scored: &Scored) -> Vec<Vec<String>> {
    let line = |at: usize| {
        let (what, score) = match &scored.scores[at] {
            Score::LogProbability(found) => {
                let sum = found.sum();
                let tokens = found.tokens.len();
                (
                    format!("{tokens} tokens"),
                    format!("{sum} ({:.4} nats)", sum as f64 * unit(scored)),
                )
            }
            Score::Choice { choices, chosen, correct } => {
                let verdict = match correct {
                    Some(true) => ", correct",
                    Some(false) => ", wrong",
                    None => "",
                };
                (format!("{} choices", choices.len()), format!("choice {chosen}{verdict}"))
            }
            Score::Generated(ids) => (
                format!("{} generated", ids.len()),
                scored.texts[at].clone().unwrap_or_else(|| format!("{ids:?}")),
            ),
            Score::OutOfRange(_) => ("no score".into(), "(see the warning)".into()),
        };
        vec![at.to_string(), what, score]
    };
    let header = ["unit", "scored", "score"].map(String::from).to_vec();
    std::iter::once(header).chain((0..scored.scores.len()).map(line)).collect()
}

fn check(args: &IntegerCheck, output: &Output) -> Outcome {
    if let Some(file) = &args.plot {
        zklora_files::require_folder_of(file)?;
    }
    let spinner = output.spinner();
    spinner.set_message("read the integer model");
    let setup = setup(&args.model)?;
    let options = CheckOptions {
        base: args.model.base.base.clone(),
        tokenizer: args.model.base.tokenizer.clone(),
        text: args.text.clone(),
        context: args.context as usize,
        units: args.max_units as usize,
    };
    let compared = integer::check(&setup, &options, &mut |step| spinner.set_message(step));
    spinner.finish_and_clear();
    let compared = compared?;
    if let Some(file) = &args.plot {
        zklora_files::write(file, integer::plot(&compared).as_bytes(), Access::Public)?;
    }
    let exceeded = args.limit.is_some_and(|limit| exceeds(&compared, limit));
    let missing = sides(&compared).any(|(_, side)| !side.out_of_range.is_empty());
    print_check(args, &setup, &compared, exceeded, output);
    Ok(if exceeded || missing { ExitCode::from(NO) } else { ExitCode::SUCCESS })
}

fn sides(compared: &Comparison) -> impl Iterator<Item = (&'static str, &Side)> {
    [("base model", Some(&compared.base)), ("with the adapter", compared.adapted.as_ref())]
        .into_iter()
        .filter_map(|(name, side)| Some((name, side?)))
}

fn exceeds(compared: &Comparison, limit: f64) -> bool {
    // A limit that is no number is exceeded by everything.
    let within = |side: &Side| side.largest <= limit && side.out_of_range.is_empty();
    !sides(compared).all(|(_, side)| within(side))
}

fn print_check(
    args: &IntegerCheck,
    setup: &Setup,
    compared: &Comparison,
    exceeded: bool,
    output: &Output,
) {
    for (name, side) in sides(compared) {
        for (unit, why) in &side.out_of_range {
            output.warn(format!("{name}: unit {unit} has no score: {why}"));
        }
    }
    let header =
        ["", "tokens", "float loss", "integer loss", "difference", "mean |d|", "largest |d|"];
    let mut lines = vec![header.map(String::from).to_vec()];
    for (name, side) in sides(compared) {
        if side.tokens == 0 {
            lines.push(vec![name.into(), "0".into(), "no score".into()]);
            continue;
        }
        let mut add = |name: String, tokens: usize, float: f64, integer: f64, d: [f64; 2]| {
            lines.push(vec![
                name,
                count(tokens),
                format!("{float:.5}"),
                format!("{integer:.5}"),
                format!("{:+.5}", integer - float),
                format!("{:.5}", d[0]),
                format!("{:.5}", d[1]),
            ]);
        };
        for unit in &side.units {
            let losses = (unit.float_loss, unit.integer_loss);
            let differences = [unit.mean, unit.largest];
            add(format!("unit {}", unit.unit), unit.tokens, losses.0, losses.1, differences);
        }
        add(
            name.into(),
            side.tokens,
            side.float_loss,
            side.integer_loss,
            [side.mean, side.largest],
        );
    }
    output.table(&lines);
    let mut worst = vec![
        ["worst tokens", "unit", "place", "float", "integer", "text"].map(String::from).to_vec(),
    ];
    worst.extend(compared.worst.iter().map(|token| {
        vec![
            if token.adapted { "with the adapter" } else { "base model" }.into(),
            token.unit.to_string(),
            token.token.to_string(),
            format!("{:.4}", token.float),
            format!("{:.4}", token.integer),
            format!("{:?}", token.text),
        ]
    }));
    output.table(&worst);
    let mut headroom = vec![
        ["closest to the end of their range", "operator", "layer", "used"]
            .map(String::from)
            .to_vec(),
    ];
    headroom.extend(compared.headroom.iter().map(|entry| {
        vec![
            entry.name.clone(),
            entry.operator.to_string(),
            entry.layer.clone().unwrap_or_default(),
            format!("{:.0} %", entry.used * 100.0),
        ]
    }));
    output.table(&headroom);
    let mut rows = vec![("Integer model", setup.bound.digest.clone())];
    rows.extend(setup.adapter_id().map(|id| ("Adapter id", id)));
    let (integers, floats) = compared.seconds;
    rows.push((
        "Time",
        format!(
            "{integers:.2} s in integers, {floats:.2} s in floats ({:.1} times)",
            integers / floats
        ),
    ));
    if let Some(limit) = args.limit {
        let verdict = if exceeded { "EXCEEDED" } else { "kept" };
        rows.push(("Limit", format!("{limit} nats a token: {verdict}")));
    }
    rows.extend(args.plot.iter().map(|file| ("Plot", file.display().to_string())));
    let json = json!({
        "integer_model": setup.bound.digest,
        "adapter_id": setup.adapter_id(),
        "context": args.context,
        "comparison": compared,
        "limit": args.limit,
        "exceeded": exceeded,
    });
    output.result(&json, &rows);
}
