//! `zklora export`, `compile` and `audit`

use std::{path::Path, process::ExitCode};

use serde_json::json;
use zklora_artifacts::{
    folder::{Public, REGISTRATION},
    secret_files, srs_file,
};
use zklora_compiler::calibrate::Measured;
use zklora_models::{Adapter, Form, Kind, LoadOptions};
use zklora_proof::{cost::Estimate, keys::KeyStore};
use zklora_runtime::{
    Error, audit, compile,
    compile::{FileCheck, FileState},
    registration::Registration,
};

use super::{
    leak,
    outcome::{Outcome, answer, left_out_row, policy},
};
use crate::{
    args,
    output::{Output, bytes, count, path, seconds},
};

pub fn export(args: &args::Export, output: &Output) -> Outcome {
    let options = LoadOptions {
        base: args.base.as_deref(),
        base_name: args.base_name.as_deref(),
        modules: &args.module,
        rename: &args.rename,
        lora_only: args.lora_only,
        left_out: &[],
    };
    let adapter = Adapter::load_with(&args.adapter, &options).map_err(Error::from)?;
    adapter.warnings().iter().for_each(|warning| output.warn(warning));
    let index =
        zklora_models::export::export(&adapter, &args.module, &args.out).map_err(Error::from)?;
    let mut table = vec![
        ("Exported", format!("{} modules to {}", count(index.modules.len()), args.out.display())),
        ("Base model", index.base_model.name.clone()),
        (
            "Fingerprint",
            index
                .base_model
                .fingerprint
                .clone()
                .unwrap_or("none (pass --base DIR to bind the base model's weights)".into()),
        ),
    ];
    for module in index.modules.iter().filter(|module| module.form == Form::Whole) {
        let inputs: usize = module.inputs.iter().map(|input| input.dim).sum();
        let numbers = adapter
            .modules
            .iter()
            .find(|of| of.name == module.name)
            .map_or(0, |of| of.parameters());
        let what = format!(
            "{}: the difference from the base layer, {inputs} × {}, {} numbers beside the {} of the rest",
            module.name,
            module.d_out,
            count(numbers),
            count(adapter.parameters().saturating_sub(numbers)),
        );
        table.push(("Trained whole", what));
    }
    if let Some(module) = index.modules.iter().find(|module| module.kind == Kind::Embedding) {
        let what = "its deltas are of the rows looked up, before any scaling by the model (Gemma)";
        table.push(("Embedding", format!("{}: {what}", module.name)));
    }
    table.push(("Keep", "these files private: they contain the weights".into()));
    output.result(
        &json!({
            "base_model": index.base_model.name,
            "fingerprint": index.base_model.fingerprint,
            "left_out": index.left_out,
            "modules": index.modules.len(),
            "out": path(&args.out),
        }),
        &table,
    );
    Ok(ExitCode::SUCCESS)
}

pub fn compile(args: &args::Compile, output: &Output) -> Outcome {
    let srs = srs_file::load(args.srs.srs.as_deref())?;
    let keys = KeyStore::default();
    let spinner = output.spinner();
    spinner.set_message("compile and commit");
    let options = compile::Options {
        paths: &args.paths,
        out: &args.out,
        seed_file: args.seed_file.as_deref(),
        calibrate: args.calibrate.as_deref(),
        registered: args.registered,
        k: args.k,
    };
    if args.explain {
        let explanations = compile::explain(&options);
        spinner.finish_and_clear();
        let explanations = explanations?;
        let mut lines = Vec::new();
        for explanation in &explanations {
            // A blank line between two modules.
            lines.extend((!lines.is_empty()).then(String::new));
            lines.extend(explanation.lines());
        }
        output.lines(&json!(explanations), lines);
        return Ok(ExitCode::SUCCESS);
    }
    if args.plan {
        let estimate = compile::plan(&options, &srs);
        spinner.finish_and_clear();
        return print_plan(&estimate?, &args.out, output);
    }
    if args.locked {
        let checks = compile::check_locked(&options, &srs, &keys);
        spinner.finish_and_clear();
        return print_checks(&checks?, output);
    }
    let compiled = compile::compile(&options, &srs, &keys);
    spinner.finish_and_clear();
    let compiled = compiled?;
    // The last two columns hold measured errors.
    let calibrated = compiled.reports.iter().any(|r| r.measured.is_some());
    let columns = if calibrated { 7 } else { 5 };
    let header =
        ["module", "shape", "integers", "bits x/A/B", "bound", "RMS error", "largest error"];
    let mut table = vec![header[..columns].iter().map(ToString::to_string).collect::<Vec<_>>()];
    for r in &compiled.reports {
        let [x, a, b, delta] = r.bits;
        let error = |of: fn(&Measured) -> f64| {
            r.measured.as_ref().map_or("not measured".into(), |m| format!("{:.1e}", of(m)))
        };
        let mut line = vec![
            r.name.clone(),
            format!("{}×{}×{}", r.d_in, r.pairs, r.d_out),
            count(r.parameters),
            format!("{x}/{a}/{b}"),
            format!("2^{delta}"),
            error(|m| m.relative_rms),
            error(|m| m.largest),
        ];
        line.truncate(columns);
        table.push(line);
        for warning in &r.warnings {
            output.warn(warning);
        }
    }
    output.table(&table);
    let manifest = &compiled.artifacts.manifest;
    if let Some(old) = compiled.replaced {
        output
            .warn(format!("this replaces adapter {old} in this folder, which had served no rows"));
    }
    let layout = manifest.layout();
    let mut json = json!({
        "adapter_id": manifest.id().to_string(),
        "ceremony": srs.provenance().to_string(),
        "files": compiled.files.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "layout": layout,
        "left_out": manifest.contents().left_out,
        "modules": compiled.reports,
    });
    let mut rows = vec![
        ("Circuit", format!("k = {}, {} committed columns", layout.k, layout.committed_columns())),
        ("SRS", srs.provenance().to_string()),
        ("Public", format!("{} (give it to users)", args.out.join("public").display())),
        (
            "Private",
            format!(
                "{} (mode 0600: keep it; a lost seed cannot be recreated)",
                args.out.join("private").display()
            ),
        ),
        (
            "Manifest",
            bytes(
                compiled
                    .files
                    .iter()
                    .find(|(name, _)| name.ends_with("manifest.json"))
                    .map_or(0, |(_, size)| *size as u64),
            ),
        ),
        ("Adapter id", format!("{} (what users pin before a session)", manifest.id())),
    ];
    rows.extend(left_out_row(&manifest.contents().left_out));
    if let Some(how) = compiled.registered {
        json["registration"] = json!(how);
        rows.push(("Weights", Registration::Registered.to_string()));
        let path = args.out.join("public").join(REGISTRATION);
        let how = match how {
            compile::Registered::Made => "the proof of that",
            compile::Registered::Kept => "the proof of that, which was there and is valid",
        };
        rows.push(("", format!("{}: {how}", path.display())));
    }
    output.result(&json, &rows);
    Ok(ExitCode::SUCCESS)
}

fn print_plan(estimate: &Estimate, out: &Path, output: &Output) -> Outcome {
    let layout = &estimate.layout;
    let time = |s: f64| seconds(std::time::Duration::from_secs_f64(s));
    let also = ", and the pass over its rows";
    let mut table = vec![
        (
            "Circuit",
            format!(
                "k = {}: {} rows, {} committed columns",
                layout.k,
                count(layout.rows()),
                layout.committed_columns()
            ),
        ),
        (
            "Weights",
            format!(
                "{} integers in {} pairs, {} commitments",
                count(estimate.integers),
                count(estimate.pairs),
                count(estimate.commitments)
            ),
        ),
        ("Manifest", bytes(estimate.manifest_bytes as u64)),
        ("Proof", format!("{} for a session of any length", bytes(estimate.proof_bytes as u64))),
        ("Commit", format!("{}, once", time(estimate.commit_seconds))),
        ("Prove", format!("{} a session{also}", time(estimate.prove_seconds))),
        ("Verify", format!("{} a session{also}", time(estimate.verify_seconds))),
        (
            "Memory",
            format!(
                "{} to prove, in addition to program and rows",
                bytes(estimate.prove_bytes as u64)
            ),
        ),
        (
            "Accuracy",
            "times are extrapolated from short measurements on this machine, within a factor of two"
                .into(),
        ),
    ];
    // Of the adapter that is already in the folder: a plan commits to nothing, so it has no id.
    let (given_away, measured) = leak::given_away_by_folder(out);
    table.extend(given_away);
    let mut json = json!(estimate);
    json["leak_measured"] = measured;
    output.result(&json, &table);
    Ok(ExitCode::SUCCESS)
}

fn print_checks(checks: &[FileCheck], output: &Output) -> Outcome {
    let same = checks.iter().all(|check| check.state == FileState::Same);
    let word = |state| match state {
        FileState::Same => "same",
        FileState::Different => "DIFFERENT",
        FileState::Missing => "MISSING",
    };
    let mut table: Vec<(&str, String)> =
        checks.iter().map(|c| (c.path.as_str(), word(c.state).into())).collect();
    table.push((
        "Verdict",
        if same {
            "the folder is what its inputs give"
        } else {
            "REFUSED: the folder is not what its inputs give"
        }
        .into(),
    ));
    output.result(&json!({ "accepted": same, "files": checks }), &table);
    Ok(answer(same))
}

/// The result of comparing base models. The adapter's weights do not show their base model.
fn base_model(report: &audit::Report, name: &str) -> String {
    match (report.base_model, report.base_model.not_compared()) {
        (_, Some(why)) => why.into(),
        (audit::BaseModel::Different, _) => format!("DIFFERENT from the manifest's `{name}`"),
        _ => format!("{name}, with the manifest's fingerprint"),
    }
}

pub fn audit(args: &args::Audit, output: &Output) -> Outcome {
    let srs = srs_file::load(args.srs.file.srs.as_deref())?;
    policy(&args.srs).check(&srs).map_err(Error::from)?;
    let keys = KeyStore::default();
    let public = Public::load(&args.public, args.adapter_id.as_ref(), &srs, &keys)?;
    if args.adapter_id.is_none() {
        output
            .warn("no --adapter-id: the adapter is compared with a manifest that you did not pin");
    }
    let registration =
        Registration::of_folder(&args.public, &public.manifest, &srs, &keys, policy(&args.srs))?;
    let (adapter, key) = secret_files::read_opening(&args.opening)?;
    if adapter != public.manifest.id() {
        output.warn(format!(
            "the opening says that it is for adapter {adapter}, but this manifest is of {}",
            public.manifest.id()
        ));
    }
    let report = audit::audit(&args.adapter, args.base.as_deref(), &public.manifest, &key, &srs)?;
    let same = report.differences.is_empty();
    let mut table = vec![
        ("Adapter id", public.manifest.id().to_string()),
        ("SRS", srs.provenance().to_string()),
        ("Modules", count(report.modules)),
        ("Weights", registration.to_string()),
        ("Base model", base_model(&report, &public.manifest.contents().base_model.name)),
    ];
    table.extend(left_out_row(&public.manifest.contents().left_out));
    table
        .extend(report.differences.iter().map(|d| ("Differs", format!("{}: {}", d.module, d.why))));
    table.push((
        "Verdict",
        if same {
            "ACCEPTED: the delivered adapter gives exactly the committed integers".into()
        } else {
            "REFUSED: this is not the adapter that was committed to".into()
        },
    ));
    output.result(
        &json!({
            "accepted": same,
            "adapter_id": public.manifest.id().to_string(),
            "ceremony": srs.provenance().to_string(),
            "pinned": args.adapter_id.is_some(),
            "registered": registration.is_registered(),
            "left_out": public.manifest.contents().left_out,
            "modules": report.modules,
            "base_model": report.base_model,
            "differences": report.differences,
        }),
        &table,
    );
    Ok(answer(same))
}
