//! `zklora leak`, and what other commands report of its result

use std::{path::Path, process::ExitCode};

use serde_json::{Value, json};
use zklora_artifacts::{folder::Artifacts, srs_file};
use zklora_files::Access;
use zklora_proof::{keys::KeyStore, manifest::AdapterId};
use zklora_runtime::{
    leak,
    leak::{Measurement, Options, percent},
};

use super::outcome::Outcome;
use crate::{
    args::leak::Leak,
    output::{Output, count},
};

pub fn leak(args: &Leak, output: &Output) -> Outcome {
    // Check this before minutes of work.
    if let Some(file) = &args.plot {
        zklora_files::require_folder_of(file)?;
    }
    let srs = srs_file::load(args.srs.srs.as_deref())?;
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
            "the adapter does not lower the loss of the held-out text, so there is no gain to \
             recover. Pass a text on which it does with --held-out",
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
        ("Left the machine", "nothing: no row was sent, so the ledger counts none".into()),
        (
            "Not measured",
            "chosen inputs, better fits, more training: the figures are lower bounds".into(),
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

/// Printed by every command that sends rows.
pub const FOR_WHOM: &str = "serve rows only to users who may learn what the adapter does: after \
                            payment or under contract, never before (docs/security.md)";

/// Lines of a table.
pub type Lines = Vec<(&'static str, String)>;

/// Lines for people, and the measurement (or null) for machines.
pub type GivenAway = (Lines, Value);

/// What rows give away, as commands report it.
pub fn given_away(artifacts: &Path, adapter: &AdapterId) -> GivenAway {
    let (sentence, measured) = leak::known(artifacts, adapter);
    (vec![("What rows give away", sentence), ("", FOR_WHOM.into())], json!(measured))
}

/// The same for the adapter that was compiled into a folder, if there is one.
pub fn given_away_by_folder(out: &Path) -> GivenAway {
    let adapter = zklora_artifacts::folder::adapter_in(out);
    given_away(out, &adapter.unwrap_or(AdapterId([0; 32])))
}
