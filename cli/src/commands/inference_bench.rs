//! `zklora bench --inference`

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::bail;
use serde_json::json;
use zklora_bench::{
    inference_bench::{self, Case, Figures, HEADER, cases, cells},
    proof_bench,
};
use zklora_files::Access;

use super::{
    outcome::Outcome,
    profile_bench::{messages, page},
};
use crate::{args::Bench, output::Output};

/// Measures proofs of a text's scores with the adapter of a folder.
pub fn bench(
    args: &Bench,
    artifacts: &Path,
    model: &Path,
    text: &Path,
    output: &Output,
) -> Outcome {
    let markdown = args.markdown.as_deref();
    let page = markdown.map(|path| page(path, inference_bench::BEGIN)).transpose()?;
    let scratch = zklora_files::scratch()?;
    let made = scratch.path().join("integer");
    let integer = args.integer.as_deref().unwrap_or(&made);
    let spinner = output.spinner();
    if !integer.join("integer-model.json").exists() {
        spinner.set_message("make the integer model");
        let mut compile = command(&["integer", "compile", "--out"])?;
        compile.arg(integer).arg("--base").arg(model);
        named(&mut compile, "--tokenizer", args.tokenizer.as_deref());
        run(compile)?;
    }
    let mut measured = Vec::new();
    let cases = cases();
    for case in &cases {
        let (at, all) = (measured.len() + 1, cases.len());
        spinner.set_message(format!("prove {} tokens: {at} of {all}", case.tokens));
        let mut prove = command(&["integer", "prove", "--model"])?;
        prove.arg(integer).arg("--base").arg(model).arg("--artifacts").arg(artifacts);
        prove.arg("--text-file").arg(text);
        named(&mut prove, "--tokenizer", args.tokenizer.as_deref());
        named(&mut prove, "--srs", args.srs.srs.as_deref());
        measured.push((*case, figures(prove, case)?));
    }
    spinner.finish_and_clear();
    let machine = proof_bench::machine();
    if let Some((path, text)) = page {
        let section = inference_bench::section(&machine, &measured);
        let text = proof_bench::replace_section(&text, inference_bench::BEGIN, &section)?;
        zklora_files::write(path, text.as_bytes(), Access::Public)?;
    }
    if let Some(path) = &args.svg {
        let drawing = inference_bench::drawing("Inference proofs, by tokens", &measured);
        zklora_files::write(path, drawing.as_bytes(), Access::Public)?;
    }
    let mut table = vec![HEADER.map(String::from).to_vec()];
    table.extend(measured.iter().map(|(case, figures)| cells(case, figures).to_vec()));
    output.table(&table);
    // The figures do not say how they were measured.
    let figures = measured.iter().map(|(case, figures)| {
        let mut of = json!(figures);
        (of["threads"], of["portable"]) = (case.threads.into(), case.portable.into());
        of
    });
    let figures: Vec<_> = figures.collect();
    output.result(&json!({ "machine": machine, "proofs": figures }), &[("Machine", machine)]);
    Ok(ExitCode::SUCCESS)
}

fn command(words: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--json").args(words);
    Ok(command)
}

fn named(command: &mut Command, name: &str, path: Option<&Path>) {
    if let Some(path) = path {
        command.arg(name).arg(path);
    }
}

fn run(mut command: Command) -> anyhow::Result<Vec<u8>> {
    let out = command.output()?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        bail!("{}: {} {said}", out.status, messages(&out.stderr));
    }
    Ok(out.stdout)
}

fn figures(mut command: Command, case: &Case) -> anyhow::Result<Figures> {
    command.args(["--context", &case.tokens.to_string()]);
    if let Some(scored) = case.scored {
        command.args(["--scored", &scored.to_string()]);
    }
    if let Some(threads) = case.threads {
        command.env("RAYON_NUM_THREADS", threads.to_string());
    }
    if case.portable {
        command.arg("--portable");
    }
    Ok(serde_json::from_slice(&run(command)?)?)
}
