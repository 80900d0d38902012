//! `zklora evaluate`

use std::process::ExitCode;

use serde_json::json;
use zklora_artifacts::srs_file;
use zklora_runtime::evaluate::{
    self, BuyOptions, ClaimComparison, EarlierSamples, Folder, Memory, SampleOptions, Step, lines,
};
use zklora_session::client::{Evaluator, Network};

use super::{
    claim::source,
    outcome::{Outcome, policy},
};
use crate::{
    args::evaluate::Evaluate,
    exit_code::NO,
    output::{Output, count},
};

pub fn evaluate(args: &Evaluate, output: &Output) -> Outcome {
    let srs = srs_file::load(args.srs.file.srs.as_deref())?;
    let options = BuyOptions {
        offer: args.offer.clone(),
        terms: args.model.terms(policy(&args.srs)),
        source: source(&args.units)?,
        per_unit: args.per_unit,
        prove: args.prove.map(|units| SampleOptions { units, metric: args.prove_metric }),
        list_unscored: args.units.list_unscored,
        check_base: args.check_base,
        claims: args.claim.clone(),
        memory: Memory::usual(args.sent.clone()),
        out: args.out.clone(),
    };
    if options.memory.sent.is_none() {
        output.warn("there is no home folder for the memory of sent units: name one with --sent");
    }
    if options.memory.secret.is_none() {
        output.warn(
            "there is no home folder for the secret that marks what was proven and settled: \
             `zklora report` will not show it",
        );
    }
    let connection = args.connection.options();
    let network = Network::start()?;
    let mut contributor = Evaluator::new(&connection, &network)?;
    let spinner = output.spinner();
    let bought = evaluate::buy(&mut contributor, &srs, &options, &mut |step| {
        spinner.set_message(match step {
            Step::Local(what) => what.to_string(),
            Step::Price { bits, left } => format!("the request costs {bits} of {left} bits"),
            Step::Sending => "send the units".into(),
            Step::Waiting(0) => "the contributor begins".into(),
            Step::Waiting(ahead) => format!("{ahead} requests before this one"),
            Step::Scoring(scored, units) => format!("{scored} of {units} units are scored"),
            Step::Proving(proven, parts) => format!("{proven} of {parts} parts are proven"),
            Step::Retrying => "the contributor is not reachable, trying again".into(),
        });
    });
    spinner.finish_and_clear();
    let bought = bought?;
    let report = bought.report(&Folder::new(&args.out, &options.memory))?;
    let mut rows: Vec<(String, String)> = lines(&report);
    let mut claims = bought.claims.iter();
    if claims.any(|(_, found)| matches!(found, ClaimComparison::Contradicts(_))) {
        rows.retain(|(label, _)| label != "Next" && label != "Grade");
        let why = "the contributor signed other values for everybody: do not pay";
        rows.insert(0, ("Verdict".into(), format!("CONTRADICTED: {why}")));
    }
    let mut add = |label: &str, value: String| rows.push((label.into(), value));
    add("Weights", bought.terms.registration.to_string());
    if bought.base_checked {
        add("Base values", "equal to those of your own base model".into());
    }
    let mut contradicted = false;
    for (at, (path, comparison)) in bought.claims.iter().enumerate() {
        let said = match comparison {
            ClaimComparison::NothingInCommon => "no group has the same units".into(),
            ClaimComparison::Same(groups) => format!("the same values in {}", groups.join(", ")),
            ClaimComparison::OtherOffer => "of another contributor, adapter or model".into(),
            ClaimComparison::Contradicts(group) => {
                contradicted = true;
                let evidence = args.out.join(format!("claim-evidence-{}.tar", at + 1));
                format!(
                    "CONTRADICTED: other values for the units of group {group}; evidence without \
                     the adapter: {}",
                    evidence.display()
                )
            }
        };
        add("Claim", format!("{}: {said}", path.display()));
    }
    let mut before: Vec<_> = bought.earlier.iter().filter(|of| of.before_adapter).collect();
    before.sort_by_key(|of| of.units);
    if let Some(most) = before.last() {
        output.warn(format!(
            "units that you sent before ({}, for adapter {}) are among these, and you first saw \
             this adapter after that: it may be trained on them",
            count(usize::try_from(most.units).unwrap_or(usize::MAX)),
            most.adapter_id
        ));
    }
    if let Some(EarlierSamples { asked, unproven: unproven @ 1.. }) = bought.earlier_samples {
        output.warn(format!(
            "of {asked} earlier samples of these units, {unproven} were not proven: a contributor \
             that refuses until a sample flatters chooses the sample"
        ));
    }
    add("Written", args.out.display().to_string());
    let rows: Vec<(&str, String)> =
        rows.iter().map(|(label, value)| (label.as_str(), value.clone())).collect();
    output.result(
        &json!({
            "report": report,
            "per_unit": bought.per_unit(),
            "base_checked": bought.base_checked,
            "registered": bought.terms.registration.is_registered(),
            "sent_before": bought.earlier,
            "samples_before": bought.earlier_samples,
            "contradicted": contradicted,
            "folder": args.out.display().to_string(),
        }),
        &rows,
    );
    let unproven = bought.proven.as_ref().is_some_and(|proven| proven.values.is_none());
    Ok(if contradicted || unproven { ExitCode::from(NO) } else { ExitCode::SUCCESS })
}
