//! `zklora sessions`

use std::{collections::BTreeMap, path::Path, process::ExitCode, time::Duration};

use serde_json::{Value, json};
use zklora_artifacts::folder::adapter_in;
use zklora_evaluation::{
    answering::Answering, digest::Digest, identity::Identity, spending::Spent,
};
use zklora_runtime::Error;
use zklora_session::stored_sessions::{Folder, State, Stored, upkeep};

use super::outcome::Outcome;
use crate::{
    args::sessions::{List, Prune, Sessions, SessionsCommand},
    exit_code::UNUSABLE,
    output::{Output, bytes, count},
};

/// Number of sessions to show without --limit and --all.
const SHOWN: usize = 50;

pub fn sessions(args: &Sessions, output: &Output) -> Outcome {
    let missing = || Error::input("--artifacts DIR is missing: name the folder that compile wrote");
    let artifacts = args.artifacts.as_deref().ok_or_else(missing)?;
    let folder = Folder::new(artifacts, args.data.as_deref())?;
    match &args.command {
        None => list(&List::default(), &folder, spent(args, artifacts)?, output),
        Some(SessionsCommand::List(of)) => list(of, &folder, spent(args, artifacts)?, output),
        Some(SessionsCommand::Show(args)) => show(&folder.session(&args.id)?, output),
        Some(SessionsCommand::Prune(args)) => prune(args, &folder, output),
        Some(SessionsCommand::Abandon(args)) => {
            abandon(&upkeep::abandon(&folder, &args.id)?, output)
        }
        Some(SessionsCommand::GiveUp(of)) => give_up(args, artifacts, &of.request, output),
        Some(SessionsCommand::Retry(args)) => {
            retry(&upkeep::retry(&folder, &args.id)?, &folder, output)
        }
    }
}

fn object(session: &Stored) -> Value {
    let seconds = |age: Option<Duration>| age.map(|age| age.as_secs());
    json!({
        "age_seconds": seconds(session.age),
        "attempts": session.attempts,
        "batches": session.batches,
        "client": session.client,
        "counted_in_ledger": session.is_counted(),
        "fetched_seconds_ago": seconds(session.fetched),
        "id": session.id,
        "log": session.log.as_ref().map(|log| log.display().to_string()),
        "log_bytes": session.log_bytes,
        "problem": session.problem,
        "proof_bytes": session.proof_bytes,
        "rows": session.rows,
        "rows_in_all": session.rows_in_all(),
        "state": session.state.name(),
    })
}

/// An age in its two largest units.
fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

fn rows(number: u64) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX))
}

/// The first digits of an id, to fit a table.
fn short(id: &str) -> String {
    id.chars().take(16).collect()
}

fn size(number: u64) -> String {
    if number == 0 { "-".into() } else { bytes(number) }
}

fn table_of(sessions: &[Stored]) -> Vec<Vec<String>> {
    let header = ["session", "client", "state", "rows", "batches", "log", "proof", "age"];
    let mut table = vec![header.map(String::from).to_vec()];
    table.extend(sessions.iter().map(|session| {
        vec![
            short(&session.id),
            session.client.clone(),
            session.state.name().into(),
            rows(session.rows_in_all()),
            session.batches.map_or("-".into(), rows),
            size(session.log_bytes),
            size(session.proof_bytes),
            session.age.map_or("-".into(), age),
        ]
    }));
    table
}

/// The adapter of a folder.
fn adapter(artifacts: &Path) -> Result<Digest, Error> {
    let adapter = adapter_in(artifacts).ok_or_else(|| {
        Error::input(format!("{}: there is no manifest in public/", artifacts.display()))
    })?;
    Ok(Digest(adapter.0))
}

fn give_up(args: &Sessions, artifacts: &Path, request: &Digest, output: &Output) -> Outcome {
    let missing = || Error::input("--identity DIR is missing: name the folder of your identity");
    let identity = Identity::open(args.identity.as_deref().ok_or_else(missing)?)?;
    Answering::give_up_proof(&identity, &adapter(artifacts)?, request)?;
    let rows = [("Given up", format!("the proof of a sample of request {request}"))];
    output.result(&json!({ "given_up": request }), &rows);
    Ok(ExitCode::SUCCESS)
}

/// What answers told of the adapter, if an identity is named.
fn spent(args: &Sessions, artifacts: &Path) -> anyhow::Result<Option<(String, Spent)>> {
    let Some(folder) = &args.identity else { return Ok(None) };
    let lineage = Identity::open(folder)?.lineage_of(&adapter(artifacts)?)?;
    let none = || Error::input(format!("{}: it never offered this adapter", folder.display()));
    let lineage = lineage.ok_or_else(none)?;
    let spent = lineage.spending().read()?;
    Ok(Some((lineage.name, spent)))
}

fn list(args: &List, folder: &Folder, spent: Option<(String, Spent)>, output: &Output) -> Outcome {
    let sessions = folder.sessions()?;
    let served = folder.is_served();
    let most = if args.all { usize::MAX } else { args.limit.unwrap_or(SHOWN) };
    let shown = &sessions[..sessions.len().min(most)];
    let mut states: BTreeMap<State, u64> = BTreeMap::new();
    sessions.iter().for_each(|session| *states.entry(session.state).or_default() += 1);
    let in_all = |of: fn(&Stored) -> u64| {
        sessions.iter().fold(0, |all: u64, session| all.saturating_add(of(session)))
    };
    let (log_bytes, proof_bytes, all_rows) =
        (in_all(|s| s.log_bytes), in_all(|s| s.proof_bytes), in_all(Stored::rows_in_all));
    if !shown.is_empty() {
        output.table(&table_of(shown));
    }
    let counts: Vec<String> =
        states.iter().map(|(state, n)| format!("{} {}", rows(*n), state.name())).collect();
    let mut summary = vec![
        (
            "Sessions",
            match counts.is_empty() {
                true => "none".into(),
                false => format!("{}: {}", count(sessions.len()), counts.join(", ")),
            },
        ),
        ("Rows", format!("{} of all modules", rows(all_rows))),
        ("Disk", format!("{} of logs, {} of proofs", bytes(log_bytes), bytes(proof_bytes))),
        ("Server", if served { "running".into() } else { "not running".to_string() }),
    ];
    if shown.len() < sessions.len() {
        summary.push(("Shown", format!("the newest {} (--limit N, --all)", count(shown.len()))));
    }
    for (state, what) in [
        (State::SetAside, "servers died while proving them: run zklora sessions retry, or abandon"),
        (
            State::LogMissing,
            "a server does not start without these logs: restore them from a backup",
        ),
        (State::Damaged, "zklora sessions show tells what is wrong"),
    ] {
        if states.contains_key(&state) {
            summary.push((state.name(), what.into()));
        }
    }
    if let Some((lineage, spent)) = &spent {
        let answers = rows(spent.charges.len() as u64);
        let bits = rows(spent.bits());
        summary.push(("Bits told", format!("{bits} in {answers} answers (lineage {lineage})")));
        let clients = spent.clients();
        summary.extend(clients.iter().map(|(name, bits)| ("", format!("{name}: {}", rows(*bits)))));
    }
    let states: serde_json::Map<String, Value> = State::ALL
        .iter()
        .map(|state| (state.name().into(), json!(states.get(state).unwrap_or(&0))))
        .collect();
    output.result(
        &json!({
            "bits_told": spent.as_ref().map(|(_, spent)| spent.bits()),
            "bits_told_to": spent.as_ref().map(|(_, spent)| {
                spent.clients().into_iter().collect::<BTreeMap<String, u64>>()
            }),
            "log_bytes": log_bytes,
            "proof_bytes": proof_bytes,
            "rows_in_all": all_rows,
            "server_runs": served,
            "sessions": shown.iter().map(object).collect::<Vec<_>>(),
            "sessions_in_all": sessions.len(),
            "states": states,
        }),
        &summary,
    );
    Ok(ExitCode::SUCCESS)
}

fn show(session: &Stored, output: &Output) -> Outcome {
    let mut table = vec![
        ("Session id", session.id.clone()),
        ("Client", session.client.clone()),
        ("State", session.state.name().into()),
    ];
    if let Some(problem) = &session.problem {
        table.push(("Problem", problem.clone()));
    }
    if session.attempts > 0 {
        table.push(("Attempts", format!("{} to prove it that did not finish", session.attempts)));
    }
    let counted = if session.is_counted() { "counted in the ledger" } else { "counted in the log" };
    table.push((
        "Rows",
        format!("{} in {} modules, {counted}", rows(session.rows_in_all()), session.rows.len()),
    ));
    table.extend(session.rows.iter().map(|(module, n)| ("", format!("{module}: {}", rows(*n)))));
    if let Some(batches) = session.batches {
        table.push(("Batches", rows(batches)));
    }
    if let Some(log) = &session.log {
        let there =
            if session.log_bytes == 0 { "not there".into() } else { bytes(session.log_bytes) };
        table.push(("Log", format!("{}, {there}", log.display())));
    }
    if session.proof_bytes > 0 {
        table.push(("Proof", bytes(session.proof_bytes)));
    }
    table.extend(session.age.map(|then| ("Last change", format!("{} ago", age(then)))));
    table.extend(
        session.fetched.map(|then| ("Fetched", format!("{} ago, for the first time", age(then)))),
    );
    output.result(&object(session), &table);
    Ok(ExitCode::SUCCESS)
}

fn prune(args: &Prune, folder: &Folder, output: &Output) -> Outcome {
    let pruned = upkeep::prune(folder, args.older_than, args.dry_run)?;
    for (id, error) in &pruned.failed {
        output.warn(format_args!("session {id}: {error}"));
    }
    if !pruned.sessions.is_empty() {
        output.table(&table_of(&pruned.sessions));
    }
    let what = if args.dry_run { "Would remove" } else { "Removed" };
    let sum = pruned
        .sessions
        .iter()
        .fold(0, |all: u64, session| all.saturating_add(session.rows_in_all()));
    let number = count(pruned.sessions.len());
    let failed: Vec<Value> = pruned
        .failed
        .iter()
        .map(|(id, error)| json!({ "id": id, "why": error.to_string() }))
        .collect();
    output.result(
        &json!({
            "bytes": pruned.bytes,
            "dry_run": args.dry_run,
            "failed": failed,
            "rows_that_stay_counted": sum,
            "sessions": pruned.sessions.iter().map(object).collect::<Vec<_>>(),
        }),
        &[
            (what, format!("the files of {number} sessions, {}", bytes(pruned.bytes))),
            ("Rows", format!("{}: they stay counted in the ledger", rows(sum))),
        ],
    );
    // Not everything was removed.
    Ok(if pruned.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(UNUSABLE) })
}

fn abandon(session: &Stored, output: &Output) -> Outcome {
    output.result(
        &object(session),
        &[
            ("Abandoned", session.id.clone()),
            (
                "Rows",
                format!("{}: they stay counted, now in the ledger", rows(session.rows_in_all())),
            ),
            ("Log", format!("removed, {}", bytes(session.log_bytes))),
            ("User", "cannot resume it, and gets no proof of it".into()),
        ],
    );
    Ok(ExitCode::SUCCESS)
}

fn retry(session: &Stored, folder: &Folder, output: &Output) -> Outcome {
    let when = if folder.is_served() {
        "when the server is started again"
    } else {
        "when a server is started"
    };
    output.result(
        &object(session),
        &[("To prove", format!("{}, {when}", session.id)), ("Rows", rows(session.rows_in_all()))],
    );
    Ok(ExitCode::SUCCESS)
}
