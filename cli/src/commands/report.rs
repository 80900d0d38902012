//! `zklora report`

use std::process::ExitCode;

use serde_json::json;
use zklora_files::Access;
use zklora_runtime::{
    effect_report::{EffectReport, Verdict},
    evaluate::{self, Folder, Memory, lines},
    evaluation_page, report_page,
};

use super::outcome::Outcome;
use crate::{
    args::report::Report,
    output::{Output, bytes, count},
};

/// The report of an evaluation.
fn evaluation(args: &Report, folder: &Folder, output: &Output) -> Outcome {
    let report = evaluate::Report::of(folder)?;
    let mut rows = lines(&report);
    if let Some(page) = &args.html {
        let html = evaluation_page::page(&report);
        zklora_files::write(page, html.as_bytes(), Access::Private)?;
        rows.push(("Page".into(), page.display().to_string()));
    }
    let rows: Vec<(&str, String)> =
        rows.iter().map(|(label, value)| (label.as_str(), value.clone())).collect();
    output.result(&json!(report), &rows);
    Ok(ExitCode::SUCCESS)
}

pub fn report(args: &Report, output: &Output) -> Outcome {
    if let Some(page) = &args.html {
        zklora_files::require_folder_of(page)?;
    }
    let folder = Folder::new(&args.dir, &Memory::usual(None));
    if folder.has_request() {
        return evaluation(args, &folder, output);
    }
    let report = EffectReport::read(&args.dir.join("report.json"))?;
    if let Some(page) = &args.html {
        // Like the report, the page contains the user's text.
        zklora_files::write(page, report_page::page(&report).as_bytes(), Access::Private)?;
    }
    let mut rows = vec![("Base model", report.base_model.clone())];
    for contributor in &report.contributors {
        let word = match contributor.verdict {
            Verdict::Accepted if contributor.pinned => "ACCEPTED",
            Verdict::Accepted => "ACCEPTED, NOT PINNED",
            Verdict::Rejected => "REJECTED",
            Verdict::Failed => "FAILED",
        };
        rows.push(("Contributor", contributor.url.clone()));
        rows.push(("  Verdict", format!("{word}: {}", report_page::meaning(contributor))));
        rows.extend(contributor.why.iter().map(|why| ("  Why", why.clone())));
        rows.push(("  Adapter id", contributor.adapter_id.clone()));
        let (called, all) = (contributor.modules_called, contributor.modules);
        rows.push(("  Rows", format!("{} in {called} of {all} modules", count(contributor.rows))));
        let (sent, received) = (bytes(contributor.bytes_sent), bytes(contributor.bytes_received));
        rows.push((
            "  Traffic",
            format!("{} calls, {sent} sent, {received} received", count(contributor.calls)),
        ));
        if let Some(latency) = &contributor.latency {
            let times =
                [latency.p50, latency.p90, latency.p99, latency.max].map(|ms| format!("{ms:.1}"));
            rows.push((
                "  Latency",
                format!("{} ms (median, 90 %, 99 %, longest)", times.join(" / ")),
            ));
        }
    }
    if let Some(loss) = &report.loss {
        rows.push((
            "Loss",
            format!(
                "{:.4} base, {:.4} adapted, over {} tokens",
                loss.base,
                loss.adapted,
                count(loss.tokens)
            ),
        ));
        rows.push((
            "Perplexity",
            format!("{:.4} base, {:.4} adapted", loss.base_perplexity, loss.adapted_perplexity),
        ));
    }
    let largest = report
        .points
        .iter()
        .filter_map(|p| Some((p.relative?, p)))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((relative, point)) = largest {
        rows.push((
            "Largest deltas",
            format!("{:.3} % of the base's output, in {}", relative * 100.0, point.module),
        ));
    }
    if let Some(generated) = &report.generated {
        rows.push(("Prompt", generated.prompt.clone()));
        rows.extend(generated.base.iter().map(|words| ("Base", words.clone())));
        rows.push(("Adapted", generated.adapted.clone()));
    }
    rows.extend(args.html.iter().map(|page| ("Page", page.display().to_string())));
    output.result(&json!(report), &rows);
    Ok(ExitCode::SUCCESS)
}
