//! `zklora bench --long`: starts a process for each part of a long session and prints their peak
//! memory.

use std::{
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

use anyhow::bail;
use serde_json::json;
use zklora_bench::{
    long_session::{LongFigures, LongPart, LongTask, forget_session},
    proof_bench,
};
use zklora_files::Access;

use super::{outcome::Outcome, profile_bench::messages};
use crate::{
    args,
    output::{Output, bytes, count, seconds},
};

/// Rows without --rows.
const DEFAULT_ROWS: [u32; 2] = [10_000, 1_000_000];

pub fn bench(args: &args::Bench, output: &Output) -> Outcome {
    let rows: &[u32] = if args.rows.is_empty() { &DEFAULT_ROWS } else { &args.rows };
    let scratch = zklora_files::scratch()?;
    let folder = scratch.path();
    let srs = args.srs.srs.as_deref();
    let spinner = output.spinner();
    run(&task(LongPart::Commit, 1, folder, srs))?;
    let head =
        LongPart::MEASURED.iter().flat_map(|part| [part.to_string(), format!("peak, {part}")]);
    let mut table = vec![["rows".to_string()].into_iter().chain(head).collect::<Vec<_>>()];
    let mut results = Vec::new();
    for rows in rows {
        let of = |part| task(part, *rows as usize, folder, srs);
        let mut figures = Vec::new();
        for part in [LongPart::Record, LongPart::Prove, LongPart::Verify] {
            spinner.set_message(format!("{rows} rows: {part}"));
            figures.push((part, run(&of(part))?));
        }
        spinner.set_message(format!("{rows} rows: session"));
        let server = start(&of(LongPart::Serve))?;
        of(LongPart::Serve).wait_for_server()?;
        let user = run(&of(LongPart::Use));
        let server = ended(LongPart::Serve, server)?;
        figures.extend([(LongPart::Serve, server), (LongPart::Use, user?)]);
        forget_session(folder)?;
        let mut line = vec![count(*rows as usize)];
        line.extend(figures.iter().flat_map(|(_, LongFigures { seconds: time, peak_memory })| {
            let time = std::time::Duration::from_secs_f64(*time);
            [seconds(time), peak_memory.map_or("unknown".into(), bytes)]
        }));
        table.push(line);
        let figures: serde_json::Map<_, _> =
            figures.iter().map(|(part, figures)| (part.to_string(), json!(figures))).collect();
        results.push(json!({ "rows": rows, "parts": figures }));
    }
    spinner.finish_and_clear();
    output.table(&table);
    let machine = proof_bench::machine();
    output.result(&json!({ "machine": machine, "runs": results }), &[("Machine", machine)]);
    Ok(ExitCode::SUCCESS)
}

fn task(long: LongPart, rows: usize, folder: &Path, srs: Option<&Path>) -> LongTask {
    LongTask { long, rows, folder: folder.to_path_buf(), srs: srs.map(Path::to_path_buf) }
}

/// Starts a process for a task. It ends at the latest when its standard input does.
fn start(task: &LongTask) -> anyhow::Result<Child> {
    let path = task.folder.join(format!("{}.json", task.long));
    zklora_files::write(&path, json!(task).to_string().as_bytes(), Access::Private)?;
    let child = Command::new(std::env::current_exe()?)
        .args(["--json", "bench", "--task"])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    Ok(child)
}

fn run(task: &LongTask) -> anyhow::Result<LongFigures> {
    ended(task.long, start(task)?)
}

fn ended(part: LongPart, child: Child) -> anyhow::Result<LongFigures> {
    // This also closes its standard input.
    let out = child.wait_with_output()?;
    if !out.status.success() {
        bail!("{part}: {}: {}", out.status, messages(&out.stderr));
    }
    Ok(serde_json::from_slice(&out.stdout)?)
}
