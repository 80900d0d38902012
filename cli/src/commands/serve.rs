//! `zklora serve`

use std::{process::ExitCode, time::Duration};

use serde_json::json;
use zklora_artifacts::{folder::Artifacts, srs_file};
use zklora_proof::{checked_manifest::CheckedManifest, keys::KeyStore};
use zklora_session::{
    leakage::Leakage,
    row_totals::RowTotals,
    server::{self, Limits, ServerOptions, ServerTls, Tokens},
};

use super::{leak, outcome::Outcome};
use crate::{
    args, log,
    output::{Output, count},
    stop_signal,
};

pub fn serve(args: &args::Serve, output: &Output) -> Outcome {
    log::to_stderr(args.log_format);
    let srs = srs_file::load(args.srs.srs.as_deref())?;
    let keys = KeyStore::default();
    let artifacts = Artifacts::load(&args.artifacts, &srs, &keys)?;
    let options = options(args)?;
    let manifest = artifacts.manifest.clone();
    let given_away = leak::given_away(&args.artifacts, &manifest.id());
    let listening = server::start(artifacts, srs, keys, &options)?;
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listening.address);
    announce(&url, &manifest, &listening, &options, given_away, output);
    listening.run_until(stop_signal::signal())?;
    Ok(ExitCode::SUCCESS)
}

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
            max_rows: args.max_rows,
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
    (given_away, measured): leak::GivenAway,
    output: &Output,
) {
    let figures = Figures::of(manifest, &listening.served, options.limits.max_rows);
    let restored = &listening.restored;
    let identity =
        match (&options.tokens, options.tls.as_ref().and_then(|tls| tls.client_ca.as_ref())) {
            (Some(_), _) => "by bearer token",
            (None, Some(_)) => "by client certificate",
            (None, None) => "any client that can connect (no --token-file, no --client-ca)",
        };
    let limit = options.limits.max_rows;
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
    table.push((
        "Limit",
        limit.map_or_else(
            || "none (--max-rows)".into(),
            |limit| format!("{} rows a module, over all sessions and users", count(limit as usize)),
        ),
    ));
    table.push(("", BUDGET.into()));
    table.extend(given_away);
    table.extend(
        figures
            .lines()
            .into_iter()
            .enumerate()
            .map(|(line, text)| (if line == 0 { "Exact recovery" } else { "" }, text)),
    );
    output.result(
        &json!({
            "adapter_id": manifest.id().to_string(),
            "budget": BUDGET,
            "leakage": {
                "some": figures.least.b_up_to_basis,
                "packed": figures.least.packed,
                "lattice": figures.least.lattice,
                "ordinary": figures.least.ordinary,
                "modules_within_reach": figures.within_reach,
                "measured": measured,
            },
            "max_rows": limit,
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

/// The numbers of rows after which a user can recover the integers exactly.
struct Figures {
    least: Leakage,
    /// Number of modules of which an attacker with crafted inputs can recover all of A·B within
    /// the limit; all modules without a limit.
    within_reach: usize,
    modules: usize,
    limited: bool,
}

impl Figures {
    fn of(manifest: &CheckedManifest, served: &RowTotals, limit: Option<u64>) -> Figures {
        let each: Vec<Leakage> = manifest.modules().iter().map(Leakage::of).collect();
        let least = |of: fn(&Leakage) -> u64| each.iter().map(of).min().unwrap_or(0);
        let reach = |leakage: &Leakage, rows: u64| {
            limit.is_none_or(|limit| limit.max(rows) >= leakage.packed)
        };
        Figures {
            least: Leakage {
                b_up_to_basis: least(|l| l.b_up_to_basis),
                packed: least(|l| l.packed),
                lattice: least(|l| l.lattice),
                ordinary: least(|l| l.ordinary),
            },
            within_reach: each
                .iter()
                .zip(&served.total)
                .filter(|(leakage, rows)| reach(leakage, **rows))
                .count(),
            modules: each.len(),
            limited: limit.is_some(),
        }
    }

    fn lines(&self) -> [String; 3] {
        let rows = |rows: u64| count(rows as usize);
        let under = if self.limited { "under this limit" } else { "without a limit" };
        [
            format!(
                "a module's B, up to a small change, after {} rows; all of A·B after {} crafted \
                 rows, after about {} ordinary rows by lattice reduction, after {} by linear \
                 algebra (minimum over the modules)",
                rows(self.least.b_up_to_basis),
                rows(self.least.packed),
                rows(self.least.lattice),
                rows(self.least.ordinary)
            ),
            format!(
                "{under}, an attacker with crafted inputs can recover {} of {} modules exactly",
                count(self.within_reach),
                count(self.modules)
            ),
            "an attacker who wants the adapter's effect instead of its integers needs far fewer \
             rows; no proof system changes this"
                .into(),
        ]
    }
}
