//! `zklora offer`

use std::process::ExitCode;

use serde_json::{Value, json};
use zklora_artifacts::{folder::Artifacts, srs_file};
use zklora_evaluation::{
    identity::Identity,
    offer::{Bits, Limits, Offer, SignedOffer},
};
use zklora_proof::keys::KeyStore;
use zklora_runtime::{
    evaluate::{self, OfferOptions},
    registration::Registration,
};

use super::outcome::{Outcome, policy};
use crate::{
    args::offer::{OfferCommand, OfferMake, OfferRotate, OfferShow},
    output::{Output, count},
};

pub fn offer(command: &OfferCommand, output: &Output) -> Outcome {
    match command {
        OfferCommand::Make(args) => make(args, output),
        #[cfg(feature = "server")]
        OfferCommand::Fetch(args) => fetch::fetch(args, output),
        OfferCommand::Show(args) => show(args, output),
        OfferCommand::Rotate(args) => rotate(args, output),
    }
}

fn number(value: u64) -> String {
    count(usize::try_from(value).unwrap_or(usize::MAX))
}

fn make(args: &OfferMake, output: &Output) -> Outcome {
    let srs = srs_file::load(args.srs.srs.as_deref())?;
    let artifacts = Artifacts::load(&args.artifacts, &srs, &KeyStore::default())?;
    let options = OfferOptions {
        identity: args.identity.clone(),
        lineage: args.lineage.clone(),
        model: args.model.model.clone(),
        base: args.model.base_model(),
        tokenizer: args.model.tokenizer.clone(),
        budget: Bits {
            bits: args.bits,
            bits_per_client: args.bits_per_client.unwrap_or(args.bits / 4).min(args.bits),
        },
        limits: Limits {
            tokens: u64::from(args.max_tokens),
            unit_tokens: args.max_unit_tokens.map_or(0, u64::from),
            units: u64::from(args.max_units),
        },
        per_unit: args.per_unit,
        contact: args.contact.clone(),
    };
    let spinner = output.spinner();
    spinner.set_message("read the base model, and make its integer model if there is none");
    let made = evaluate::make_offer(artifacts, &srs, &options);
    spinner.finish_and_clear();
    let made = made?;
    let mut rows = rows(&made.offer);
    rows.push(("Weights", made.registration.to_string()));
    rows.push(("Written", made.path.display().to_string()));
    rows.push(("Identity", format!("{} (keep it secret, back it up)", args.identity.display())));
    rows.push(("Lineage", format!("{}, {} bits are spent", made.lineage, number(made.spent))));
    if !made.others.is_empty() {
        rows.push((
            "",
            format!(
                "it shares its budget with {} earlier adapters: another adapter needs --lineage",
                made.others.len()
            ),
        ));
    }
    let mut json = object(&made.offer);
    json["lineage"] = json!(made.lineage);
    json["bits_spent"] = json!(made.spent);
    json["registered"] = json!(made.registration.is_registered());
    json["path"] = json!(made.path.display().to_string());
    output.result(&json, &rows);
    Ok(ExitCode::SUCCESS)
}

fn object(signed: &SignedOffer) -> Value {
    json!({ "digest": signed.digest, "offer": signed.offer, "keys": signed.keys })
}

fn rows(signed: &SignedOffer) -> Vec<(&'static str, String)> {
    let Offer {
        adapter_id, base_model, budget, contact, integer_model, key, limits, per_unit, ..
    } = &signed.offer;
    let contact = if contact.is_empty() { "(nothing)" } else { contact };
    let mut rows = vec![
        ("Offer", signed.digest.to_string()),
        ("Key", key.to_string()),
        ("", format!("says of itself, not checked: {contact}")),
        ("Adapter id", adapter_id.to_string()),
        ("Base model", base_model.clone()),
        ("Integer model", integer_model.to_string()),
        (
            "Budget",
            format!(
                "{} bits to all clients, {} to each",
                number(budget.bits),
                number(budget.bits_per_client)
            ),
        ),
        (
            "Limits",
            format!(
                "{} units and {} tokens a request, {} tokens a sequence",
                number(limits.units),
                number(limits.tokens),
                number(limits.unit_tokens)
            ),
        ),
        (
            "Single units",
            if *per_unit { "their scores are answered, too" } else { "no" }.to_string(),
        ),
    ];
    if signed.keys.len() > 1 {
        rows.push(("Earlier keys", number(signed.keys.len() as u64 - 1)));
    }
    rows
}

fn show(args: &OfferShow, output: &Output) -> Outcome {
    let signed = evaluate::read_offer(&args.offer)?;
    evaluate::require_same_contributor(&signed, args.after.as_deref())?;
    let (mut rows, mut json) = (rows(&signed), object(&signed));
    let srs = srs_file::load(args.srs.file.srs.as_deref())?;
    let policy = policy(&args.srs);
    let registration = evaluate::registration_beside(&args.offer, &signed, &srs, policy)?;
    rows.push((
        "Weights",
        match registration {
            Some(registration) => registration.to_string(),
            None => "not looked at: the adapter's manifest is not beside the offer".into(),
        },
    ));
    json["registered"] = json!(registration.map(Registration::is_registered));
    if let Some(folder) = &args.identity {
        let identity = Identity::open(folder)?;
        let lineage = identity.lineage_of(&signed.offer.adapter_id)?;
        let lineage = lineage.ok_or_else(|| {
            anyhow::anyhow!("{}: this identity never offered this adapter", folder.display())
        })?;
        let spent = lineage.spending().read()?;
        rows.push(("Lineage", lineage.name.clone()));
        rows.push((
            "Spent",
            format!("{} bits in {} answers", number(spent.bits()), spent.charges.len()),
        ));
        let clients = spent.clients();
        rows.extend(clients.iter().map(|(name, bits)| ("", format!("{name}: {}", number(*bits)))));
        json["lineage"] = json!(lineage.name);
        json["bits_spent"] = json!(spent.bits());
        json["clients"] = clients.into_iter().map(|(name, bits)| (name, json!(bits))).collect();
        json["requests"] = json!(spent.charges);
    }
    output.result(&json, &rows);
    Ok(ExitCode::SUCCESS)
}

fn rotate(args: &OfferRotate, output: &Output) -> Outcome {
    let identity = Identity::open(&args.identity)?;
    let old = identity.key.public();
    let new = identity.rotate()?;
    output.result(
        &json!({ "old": old, "new": new }),
        &[
            ("Key", new.to_string()),
            ("Earlier", format!("{old}, which signed the new key and is destroyed")),
            (
                "Next",
                "make your offers again, with the terms that they had (zklora offer make), and \
                 restart your servers; answers to earlier offers can no longer be delivered"
                    .into(),
            ),
        ],
    );
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "server")]
mod fetch {
    use zklora_files::Access;
    use zklora_runtime::evaluate::{Memory, SentUnits};
    use zklora_session::client::{Evaluator, Network};

    use super::*;
    use crate::args::offer::OfferFetch;

    pub fn fetch(args: &OfferFetch, output: &Output) -> Outcome {
        zklora_files::require_folder_of(&args.out)?;
        anyhow::ensure!(
            !args.out.exists(),
            "{}: an offer is pinned here: name another file, and compare the two with --after",
            args.out.display()
        );
        let options = args.connection.options();
        let network = Network::start()?;
        let offered = Evaluator::new(&options, &network)?.offer()?;
        let signed = SignedOffer::parse(&offered.offer)?;
        evaluate::require_same_contributor(&signed, args.after.as_deref())?;
        if let Some(path) = Memory::usual(args.sent.clone()).sent {
            SentUnits::new(&path).saw(&signed)?;
        }
        zklora_files::write(&args.out, &offered.offer, Access::Public)?;
        let mut rows = rows(&signed);
        rows.push(("Left for you", format!("{} bits", number(offered.bits_left))));
        rows.push(("Written", args.out.display().to_string()));
        rows.push((
            "Next",
            "compare the key with one that you know from elsewhere, and keep this file: it is your \
             pin"
            .into(),
        ));
        let mut json = object(&signed);
        json["bits_left"] = json!(offered.bits_left);
        output.result(&json, &rows);
        Ok(ExitCode::SUCCESS)
    }
}
