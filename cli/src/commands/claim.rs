//! `zklora claim`

use std::process::ExitCode;

use serde_json::json;
use zklora_artifacts::{folder::Artifacts, srs_file};
use zklora_files::Access;
use zklora_proof::{keys::KeyStore, verifier::SrsPolicy};
use zklora_runtime::evaluate::{
    self, ContributorOptions, Source, TermsOptions, answering, make_claim,
};

use super::outcome::Outcome;
use crate::{
    args::evaluate::{Claim, Units},
    output::{Output, count},
};

/// Where the units come from.
pub fn source(args: &Units) -> anyhow::Result<Source> {
    match (&args.units, &args.text_file) {
        (Some(file), _) => Ok(Source::Units(file.clone())),
        (None, Some(file)) => {
            Ok(Source::Text { file: file.clone(), context: args.context as usize })
        }
        (None, None) => anyhow::bail!("name --units or --text-file"),
    }
}

pub fn claim(args: &Claim, output: &Output) -> Outcome {
    zklora_files::require_folder_of(&args.out)?;
    anyhow::ensure!(!args.out.is_dir(), "{}: this is a folder: name a file", args.out.display());
    let srs = srs_file::load(args.srs.srs.as_deref())?;
    let artifacts = Artifacts::load(&args.artifacts, &srs, &KeyStore::default())?;
    let options = ContributorOptions {
        identity: args.identity.clone(),
        model: args.model.model.clone(),
        base: args.model.base_model(),
        tokenizer: args.model.tokenizer.clone(),
        prove: None,
    };
    let spinner = output.spinner();
    spinner.set_message("read the base model");
    let answering = answering(artifacts, &srs, &options)?;
    let terms = TermsOptions {
        model: options.model,
        base: options.base,
        tokenizer: options.tokenizer,
        policy: SrsPolicy::TrustedOnly,
    };
    let longest = answering.offer.offer.limits.unit_tokens as usize;
    let groups = evaluate::groups(&source(&args.units)?, &terms, longest)?.groups;
    let made = make_claim(&answering, groups, args.units.list_unscored, &mut |scored, units| {
        spinner.set_message(format!("{scored} of {units} units are scored"));
    });
    spinner.finish_and_clear();
    let (claim, bytes) = made?;
    zklora_files::write(&args.out, &bytes, Access::Public)?;
    let names: Vec<&str> = claim.request.groups.iter().map(|group| group.name.as_str()).collect();
    let units = usize::try_from(claim.request.units()).unwrap_or(usize::MAX);
    output.result(
        &json!({
            "answer": claim.answer,
            "bits": claim.answer.bits,
            "written": args.out.display().to_string(),
        }),
        &[
            ("Claim", format!("{} units in {}", count(units), names.join(", "))),
            ("Signed by", claim.offer.offer.key.to_string()),
            ("Adapter id", claim.offer.offer.adapter_id.to_string()),
            ("Cost", format!("{} bits of the budget", claim.answer.bits)),
            ("Written", args.out.display().to_string()),
            ("Next", "publish it beside the offer and the units".into()),
        ],
    );
    Ok(ExitCode::SUCCESS)
}
