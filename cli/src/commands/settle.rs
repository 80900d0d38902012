//! `zklora deliver`, `zklora settle` and `zklora verify-sample`

use std::process::ExitCode;

use serde_json::json;
use zklora_artifacts::{folder::Artifacts, srs_file};
use zklora_proof::keys::KeyStore;
use zklora_runtime::{
    evaluate::{self, DeliverOptions, Memory, SettleOptions, Verdict},
    registration::Registration,
};

use super::outcome::{Outcome, policy};
use crate::{
    args::settle::{Deliver, Settle, VerifySample},
    exit_code::{NO, UNUSABLE},
    output::Output,
};

pub fn deliver(args: &Deliver, output: &Output) -> Outcome {
    let srs = srs_file::load(args.srs.srs.as_deref())?;
    let artifacts = Artifacts::load(&args.artifacts, &srs, &KeyStore::default())?;
    let options = DeliverOptions {
        identity: args.identity.clone(),
        adapter: args.adapter.clone(),
        request: args.request,
        price: args.price.clone(),
        key_by: args.key_by.clone(),
        verdict_by: args.verdict_by.clone(),
        out: args.out.clone(),
    };
    let spinner = output.spinner();
    spinner.set_message("audit and encrypt the adapter");
    let delivered = evaluate::deliver(&artifacts, &srs, &options);
    spinner.finish_and_clear();
    let delivered = delivered?;
    let delivery = &delivered.delivery;
    let [ciphertext, statement] = &delivered.files;
    let mut rows = vec![
        ("For the buyer", format!("{} and {}", ciphertext.display(), statement.display())),
        ("Key", format!("{} (keep it until you are paid)", delivered.key.display())),
        ("Its digest", format!("{} (SHA-256 {})", delivery.key, delivery.key_sha256)),
        ("Price", delivery.price.clone()),
        ("Key by", delivery.key_by.clone()),
    ];
    if !delivery.verdict_by.is_empty() {
        rows.push(("Verdict by", delivery.verdict_by.clone()));
    }
    rows.push(("Answer", delivery.answer.to_string()));
    output.result(
        &json!({
            "delivery": delivery,
            "key_file": delivered.key.display().to_string(),
            "files": delivered.files.each_ref().map(|file| file.display().to_string()),
        }),
        &rows,
    );
    Ok(ExitCode::SUCCESS)
}

pub fn settle(args: &Settle, output: &Output) -> Outcome {
    let srs = srs_file::load(args.srs.file.srs.as_deref())?;
    let options = SettleOptions {
        terms: args.model.terms(policy(&args.srs)),
        delivery: args.delivery.clone(),
        key: args.key.clone(),
        adapter_out: args.adapter_out.clone(),
        signer: args.signer,
        memory: Memory::usual(None),
    };
    let spinner = output.spinner();
    spinner.set_message("check signatures, delivery and base model");
    let mut progress =
        |scored, units| spinner.set_message(format!("{scored} of {units} units are scored"));
    let found = match (&args.evidence, &args.dir) {
        (Some(evidence), _) => evaluate::settle_evidence(evidence, &srs, &options, &mut progress),
        (None, Some(folder)) => evaluate::settle(folder, &srs, &options, &mut progress),
        (None, None) => anyhow::bail!("name the folder that evaluate wrote, or --evidence"),
    };
    spinner.finish_and_clear();
    let found = found?;
    let word = match found.verdict {
        Verdict::Payable => "PAYABLE",
        Verdict::Settled => "SETTLED",
        Verdict::Contradicted => "CONTRADICTED",
        Verdict::Undecidable => "UNDECIDABLE",
    };
    let mut rows = vec![("Verdict", word.to_string())];
    rows.extend(found.reasons.iter().map(|reason| ("", reason.clone())));
    if found.units > 0 {
        rows.push(("Units", format!("{}, scored again", found.units)));
    }
    rows.extend(found.key.map(|key| ("Signed by", key.to_string())));
    if args.evidence.is_some() && args.signer.is_none() {
        rows.push(("", "whose key that is, --signer compares: you did not say".into()));
    }
    rows.extend(found.adapter_id.map(|id| ("Adapter id", id.to_string())));
    let registration = found.registered.map(Registration::of);
    rows.extend(registration.map(|registration| ("Weights", registration.to_string())));
    rows.extend(found.answer.map(|answer| ("Answer", answer.to_string())));
    rows.extend(found.price.iter().map(|price| ("Price", price.clone())));
    rows.extend(found.key_by.iter().map(|text| ("Key by", text.clone())));
    let verdict_by = found.verdict_by.iter().filter(|text| !text.is_empty());
    rows.extend(verdict_by.map(|text| ("Verdict by", text.clone())));
    if found.verdict == Verdict::Payable {
        rows.extend(found.key_digest.map(|key| ("Pay for", format!("the text with digest {key}"))));
    }
    rows.extend(found.adapter.iter().map(|path| ("Adapter", path.display().to_string())));
    if let Some(path) = &found.evidence {
        rows.push(("Evidence", path.display().to_string()));
        rows.push(("", "it holds the adapter, readable by everybody who gets it".into()));
    }
    output.result(&json!(found), &rows);
    Ok(match found.verdict {
        Verdict::Payable | Verdict::Settled => ExitCode::SUCCESS,
        Verdict::Contradicted => ExitCode::from(NO),
        Verdict::Undecidable => ExitCode::from(UNUSABLE),
    })
}

pub fn verify_sample(args: &VerifySample, output: &Output) -> Outcome {
    let srs = srs_file::load(args.srs.file.srs.as_deref())?;
    let terms = args.model.terms(policy(&args.srs));
    let spinner = output.spinner();
    spinner.set_message("verify the proof of the sample");
    let found = evaluate::verify_sample(&args.dir, &srs, &terms, args.signer);
    spinner.finish_and_clear();
    let (offer, proven) = found?;
    let key = offer.offer.key;
    let is_proven = proven.values.is_some();
    let word = if is_proven { "PROVEN" } else { "NOT PROVEN" };
    let mut rows = vec![("Verdict".to_string(), word.to_string())];
    rows.extend(evaluate::sample_lines(&proven));
    // A contributor that is its own buyer draws until a sample flatters.
    let drawn = "that chance drew the units, only the buyer who asked for the proof knows";
    rows.push((String::new(), drawn.into()));
    rows.push(("Signed by".into(), key.to_string()));
    if args.signer.is_none() {
        rows.push((String::new(), "whose key that is, --signer compares: you did not say".into()));
    }
    rows.push(("Adapter id".into(), offer.offer.adapter_id.to_string()));
    rows.push(("Base model".into(), offer.offer.base_model.clone()));
    rows.push(("Answer".into(), proven.answer.to_string()));
    let rows: Vec<(&str, String)> =
        rows.iter().map(|(label, value)| (label.as_str(), value.clone())).collect();
    output.result(
        &json!({
            "adapter_id": offer.offer.adapter_id,
            "key": key,
            "offer": offer.digest,
            "proven": proven,
            "verdict": word,
        }),
        &rows,
    );
    Ok(if is_proven { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}
