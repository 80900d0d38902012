//! `zklora serve`

use std::{process::ExitCode, time::Duration};

use serde_json::json;
use zklora_artifacts::{folder::Artifacts, srs_file};
use zklora_evaluation::{answering::Answering, proving::ProofLimits};
use zklora_proof::{
    checked_manifest::CheckedManifest, keys::KeyStore, srs::Srs, verifier::SrsPolicy,
};
use zklora_runtime::{
    evaluate::{self, ContributorOptions},
    integer::leaves_within,
    registration::Registration,
};
use zklora_session::server::{self, Limits, RowService, ServerOptions, ServerTls, Tokens};

use super::{
    leak::{self, Lines},
    outcome::{Outcome, left_out_row},
};
use crate::{
    args, log,
    output::{Output, bytes, count},
    stop_signal,
};

pub fn serve(args: &args::Serve, output: &Output) -> Outcome {
    log::to_stderr(args.log_format);
    let srs = srs_file::load(args.srs.srs.as_deref())?;
    let keys = KeyStore::default();
    let artifacts = Artifacts::load(&args.artifacts, &srs, &keys)?;
    // Users get the one of the folder: an invalid one would fail them all.
    let registration = Registration::of_public(
        &args.artifacts.join("public"),
        &artifacts.manifest,
        &srs,
        &keys,
        SrsPolicy::AllowUntrusted,
    )?;
    let answering = answering_of(args, &srs, &keys)?;
    let options = options(args)?;
    let manifest = artifacts.manifest.clone();
    let given_away = leak::given_away(&args.artifacts, &manifest.id());
    let offer = answering.as_ref().map(|of| offer_rows(of, prove_memory(args))).transpose()?;
    let listening = server::start_with_evaluations(artifacts, srs, keys, &options, answering)?;
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listening.address);
    let shown = (given_away, offer, registration);
    announce(&url, &manifest, &listening, &options, shown, output);
    listening.run_until(stop_signal::signal())?;
    Ok(ExitCode::SUCCESS)
}

/// What answers requests for evaluations, if the options ask for it.
fn answering_of(
    args: &args::Serve,
    srs: &Srs,
    keys: &KeyStore,
) -> anyhow::Result<Option<Answering>> {
    let (Some(identity), Some(model)) = (&args.identity, &args.model) else {
        anyhow::ensure!(
            args.model.is_none() || args.identity.is_some(),
            "--base is for evaluations: name your identity, too (--identity)"
        );
        return Ok(None);
    };
    let options = ContributorOptions {
        identity: identity.clone(),
        model: model.model.clone(),
        base: model.base_model(),
        tokenizer: model.tokenizer.clone(),
        prove: args.prove.map(|tokens| proof_limits(args, tokens)),
    };
    // Its own copy of the weights: scoring and serving rows share nothing that changes.
    let artifacts = Artifacts::load(&args.artifacts, srs, keys)?;
    Ok(Some(evaluate::answering(artifacts, srs, &options)?))
}

/// What samples are proven.
fn proof_limits(args: &args::Serve, tokens: u32) -> ProofLimits {
    ProofLimits {
        tokens: tokens.into(),
        leaves: leaves_within(prove_memory(args)),
        samples: args.proofs_per_client.into(),
    }
}

/// What a proof may take of memory, in bytes.
fn prove_memory(args: &args::Serve) -> u64 {
    match args.prove_memory {
        Some(mib) => u64::from(mib) << 20,
        // The rest is for the base model, twice, and for what else the server does.
        None => server::available_memory() / 2,
    }
}

/// The offer and its budget, for the table.
fn offer_rows(answering: &Answering, prove_memory: u64) -> anyhow::Result<OfferRows> {
    let (spent, budget) = (answering.spent()?, answering.offer.offer.budget);
    let bits = |bits: u64| count(usize::try_from(bits).unwrap_or(usize::MAX));
    let rows = vec![
        ("Evaluations", format!("offer {}", answering.offer.digest)),
        (
            "Bits",
            format!(
                "{} of {} are told (lineage {}); a client gets up to {}",
                bits(spent.bits()),
                bits(budget.bits),
                answering.lineage(),
                bits(budget.bits_per_client)
            ),
        ),
        (
            "",
            "users choose which bits they learn, secrets that the adapter memorised included"
                .into(),
        ),
        (
            "Proofs",
            match answering.proof_limits() {
                ProofLimits { tokens: 0, .. } => {
                    "none (--prove N proves samples of up to N tokens)".into()
                }
                ProofLimits { tokens, samples, .. } => format!(
                    "{} for each client, of samples of up to {} tokens, with {} of memory \
                     (--prove-memory)",
                    bits(samples),
                    bits(tokens),
                    bytes(prove_memory)
                ),
            },
        ),
    ];
    let json = json!({
        "offer": answering.offer.digest,
        "key": answering.offer.offer.key,
        "bits_spent": spent.bits(),
        "bits": budget.bits,
        "bits_per_client": budget.bits_per_client,
        "proof_tokens": answering.proof_limits().tokens,
        "proof_leaves": answering.proof_limits().leaves,
        "proofs_per_client": answering.proof_limits().samples,
    });
    Ok((rows, json))
}

type OfferRows = (Vec<(&'static str, String)>, serde_json::Value);

fn options(args: &args::Serve) -> anyhow::Result<ServerOptions> {
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(ServerTls {
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: args.client_ca.clone(),
        }),
        _ => None,
    };
    let defaults = Limits::default();
    // Without authentication, all users share one identity.
    let alone = args.token_file.is_none() && args.client_ca.is_none();
    let share = if alone { args.max_sessions } else { (args.max_sessions / 2).max(1) };
    Ok(ServerOptions {
        listen: args.listen,
        tls,
        tokens: args.token_file.as_deref().map(Tokens::read).transpose()?,
        insecure: args.insecure,
        metrics: args.metrics,
        data: args.data.clone().unwrap_or_else(|| server::default_data(&args.artifacts)),
        limits: Limits {
            max_message_bytes: (args.max_message as usize) << 20,
            max_session_rows: args.max_session_rows,
            max_session_bytes: u64::from(args.max_session_size) << 20,
            max_sessions: args.max_sessions as usize,
            max_sessions_per_client: args.max_sessions_per_client.unwrap_or(share) as usize,
            max_connections: args
                .max_connections
                .map_or(defaults.max_connections, |most| most as usize),
            max_unknown_connections: args
                .max_connections
                .map_or(defaults.max_unknown_connections, |most| (most as usize / 4).clamp(1, 256)),
            max_held_bytes: args
                .max_held
                .map_or(defaults.max_held_bytes, |mib| (mib as usize) << 20),
            rows: args.max_rows.unwrap_or_default(),
            idle: Duration::from_secs(u64::from(args.idle)),
            proving_threads: args
                .proving_threads
                .map_or(defaults.proving_threads, |threads| threads as usize),
            ..defaults
        },
    })
}

/// The limitation of the row limit.
const BUDGET: &str = "rows are counted per folder: a copy of this folder has its own count, so \
                      serve from one only (docs/operations.md)";

/// The ids of the sessions that were set aside, abbreviated to fit a line.
fn set_aside(restored: &server::Restored) -> String {
    let ids = &restored.set_aside;
    let shown: Vec<&str> = ids.iter().take(4).map(String::as_str).collect();
    let more = if ids.len() > shown.len() {
        format!(" and {} more", count(ids.len() - shown.len()))
    } else {
        String::new()
    };
    format!("{}{more}", shown.join(", "))
}

fn announce(
    url: &str,
    manifest: &CheckedManifest,
    listening: &server::Listening,
    options: &ServerOptions,
    ((given_away, measured), offer, registration): (
        leak::GivenAway,
        Option<OfferRows>,
        Registration,
    ),
    output: &Output,
) {
    let restored = &listening.restored;
    let identity =
        match (&options.tokens, options.tls.as_ref().and_then(|tls| tls.client_ca.as_ref())) {
            (Some(_), _) => "by bearer token",
            (None, Some(_)) => "by client certificate",
            (None, None) => "any client that can connect (no --token-file, no --client-ca)",
        };
    let clients: serde_json::Map<String, serde_json::Value> = listening
        .served
        .clients
        .iter()
        .map(|(client, rows)| (client.clone(), json!(rows.iter().copied().max().unwrap_or(0))))
        .collect();
    let mut table = vec![
        (
            "Serving",
            format!(
                "{url}, {} modules for {}",
                manifest.modules().len(),
                manifest.contents().base_model.name
            ),
        ),
        ("Adapter id", format!("{} (users pin it before the session)", manifest.id())),
        ("Weights", registration.to_string()),
        ("Users", identity.to_string()),
        (
            "Sessions",
            format!(
                "{} open, {} to prove, {} proven",
                restored.open, restored.to_prove, restored.proven
            ),
        ),
        (
            "Served in all",
            format!("up to {} rows a module", count(listening.served.most() as usize)),
        ),
    ];
    table.extend(left_out_row(&manifest.contents().left_out));
    table.extend(listening.served.clients.iter().map(|(client, rows)| {
        ("", format!("{client}: up to {}", count(rows.iter().copied().max().unwrap_or(0) as usize)))
    }));
    if !restored.set_aside.is_empty() {
        table.push((
            "Set aside",
            format!(
                "{}: earlier servers died while proving them, so this one does not try",
                set_aside(restored)
            ),
        ));
        table.push((
            "",
            "zklora sessions retry ID lets the next server try again; zklora sessions abandon ID \
             gives one up"
                .into(),
        ));
    }
    table.extend(
        listening
            .metrics
            .map(|address| ("Metrics", format!("http://{address}/metrics (no TLS, no tokens)"))),
    );
    table.extend(rows_lines(options.limits.rows, given_away));
    let (rows, evaluations) = offer.unwrap_or_else(|| {
        let none = "none (--identity, --base and --model answer requests for evaluations)";
        (vec![("Evaluations", none.to_string())], json!(null))
    });
    table.extend(rows);
    output.result(
        &json!({
            "adapter_id": manifest.id().to_string(),
            "budget": BUDGET,
            "evaluations": evaluations,
            "leak_measured": measured,
            "max_rows": max_rows(options.limits.rows),
            "registered": registration.is_registered(),
            "metrics": listening.metrics.map(|address| format!("http://{address}/metrics")),
            "rows_served": listening.served.most(),
            "rows_served_per_client": clients,
            "sessions": {
                "open": restored.open,
                "to_prove": restored.to_prove,
                "proven": restored.proven,
                "set_aside": restored.set_aside,
            },
            "url": url,
        }),
        &table,
    );
}

/// Whether rows are served, and what they give away.
fn rows_lines(rows: RowService, given_away: Lines) -> Lines {
    let allowed = match rows {
        RowService::Off => {
            let none = "none (--max-rows N or unlimited switches the row service on)";
            return vec![("Rows", none.into())];
        }
        RowService::Limited(limit) => {
            format!("at most {} a module, over all sessions and users", count(limit.get() as usize))
        }
        RowService::Unlimited => "unlimited".into(),
    };
    let mut lines = vec![("Rows", allowed), ("", BUDGET.into())];
    lines.extend(given_away);
    lines
}

/// The choice of --max-rows: null if no rows are served.
fn max_rows(rows: RowService) -> serde_json::Value {
    match rows {
        RowService::Off => json!(null),
        RowService::Limited(limit) => json!(limit),
        RowService::Unlimited => json!("unlimited"),
    }
}
