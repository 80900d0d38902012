//! `zklora leak`, and what other commands say of its result

use std::{path::Path, process::ExitCode};

use serde_json::{Value, json};
use zklora_artifacts::{folder::Artifacts, srs_store};
use zklora_files::Access;
use zklora_proof::{keys::KeyStore, manifest::AdapterId};
use zklora_runtime::leak::{self, Measurement, Options, percent};

use super::Outcome;
use crate::{
    args::leak::Leak,
    output::{Output, count},
};

pub fn leak(args: &Leak, output: &Output) -> Outcome {
    // What can fail is asked before minutes are spent.
    if let Some(file) = &args.plot {
        zklora_files::require_folder_of(file)?;
    }
    let srs = srs_store::load(args.srs.srs.as_deref())?;
    let artifacts = Artifacts::load(&args.artifacts, &srs, &KeyStore::default())?;
    let spinner = output.spinner();
    let measured = leak::measure(artifacts, &options(args), &mut |step| spinner.set_message(step));
    spinner.finish_and_clear();
    let measured = measured?;
    let kept = measured.write(&args.artifacts)?;
    if let Some(file) = &args.plot {
        zklora_files::write(file, leak::plot(&measured).as_bytes(), Access::Private)?;
    }
    if measured.recovered.iter().any(|recovered| recovered.gain.is_none()) {
        output.warn(
            "the adapter gains nothing on the held-out text, so there is no share of a gain: name a text that the adapter is good at \
             with --held-out",
        );
    }
    output.table(&table(&measured));
    let mut rows = vec![
        ("Adapter id", measured.adapter_id.clone()),
        (
            "Held out",
            format!(
                "{} tokens: loss {:.4} without the adapter, {:.4} with it",
                count(measured.held_out_tokens),
                measured.base_loss,
                measured.adapted_loss
            ),
        ),
        (
            "Left the machine",
            "no row: nobody was shown anything, so the ledger counts nothing".into(),
        ),
        (
            "Not measured",
            "what chosen inputs, better fits or more training get: these are lower bounds".into(),
        ),
        ("Result", format!("{} (serve and trace record print it)", kept.display())),
    ];
    rows.extend(args.plot.iter().map(|file| ("Plot", file.display().to_string())));
    output.result(&json!(measured), &rows);
    Ok(ExitCode::SUCCESS)
}

fn options(args: &Leak) -> Options {
    Options {
        base: args.base.clone(),
        tokenizer: args.tokenizer.clone(),
        base_weights: args.base_weights.clone(),
        allow_other_base: args.allow_other_base,
        maps: args.map.clone(),
        text: args.text.clone(),
        held_out: args.held_out.clone(),
        rows: args.rows as usize,
        held_out_tokens: args.held_out_tokens as usize,
        context: args.context as usize,
    }
}

fn table(measured: &Measurement) -> Vec<Vec<String>> {
    let header =
        ["rows a module", "loss", "gain recovered", "deltas' energy: least", "median", "most"];
    let lines = measured.recovered.iter().map(|recovered| {
        let energy =
            recovered.energy.map(|energy| [energy.least, energy.median, energy.most].map(percent));
        let mut line = vec![
            count(recovered.rows),
            format!("{:.4}", recovered.loss),
            recovered.gain.map_or("no gain".into(), percent),
        ];
        line.extend(energy.unwrap_or_else(|| ["no deltas", "", ""].map(String::from)));
        line
    });
    std::iter::once(header.map(String::from).to_vec()).chain(lines).collect()
}

/// Whom rows are for: said wherever rows leave.
pub const FOR_WHOM: &str = "rows are for users who may have what the adapter does: after payment or under contract. Before it, \
                            none should leave (docs/security.md)";

/// Lines for people, and the measurement (or null) for machines.
pub type Said = (Vec<(&'static str, String)>, Value);

/// What commands say of what rows give away.
pub fn said(artifacts: &Path, adapter: &AdapterId) -> Said {
    let (sentence, measured) = leak::known(artifacts, adapter);
    (vec![("What rows give away", sentence), ("", FOR_WHOM.into())], json!(measured))
}

/// The same of the adapter that was compiled into a folder, if there is one.
pub fn said_of_folder(out: &Path) -> Said {
    let adapter = zklora_artifacts::folder::adapter_in(out);
    said(out, &adapter.unwrap_or(AdapterId([0; 32])))
}
