//! `zklora infer`

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use zklora_artifacts::srs_file;
use zklora_models::language_model::Sampling;
use zklora_proof::keys::KeyStore;
use zklora_runtime::{
    effect_report::{ContributorReport, EffectReport, Verdict},
    infer,
    infer::{Event, Generation, InferOptions, Mode},
};
use zklora_session::client::{ContributorOptions, Progress};

use super::outcome::{Outcome, left_out_row, policy};
use crate::{
    args,
    exit_code::{NO, UNUSABLE},
    output::{Output, bytes, count},
};

/// Limit for the length of a text file, in bytes.
const MAX_TEXT: u64 = 64 << 20;

pub fn infer(args: &args::Infer, output: &Output) -> Outcome {
    let options = options(args)?;
    let srs = srs_file::load(args.srs.file.srs.as_deref())?;
    let spinner = output.spinner();
    let outcome = infer::run(&options, &srs, &KeyStore::default(), &mut |event| match event {
        Event::Step(step) => spinner.set_message(step),
        Event::Warning(warning) => spinner.suspend(|| output.warn(warning)),
        Event::Proof(url, Progress::Queued(ahead)) => {
            spinner.set_message(format!("{url}: {ahead} proofs before ours"))
        }
        Event::Proof(url, Progress::Proving) => spinner.set_message(format!("{url}: proving")),
        Event::Proof(url, Progress::Verifying) => spinner.set_message(format!("{url}: verifying")),
    });
    spinner.finish_and_clear();
    let outcome = outcome?;
    print(&outcome.report, &args.out, output)?;
    if let Some(error) = outcome.interrupted {
        return Err(error.into());
    }
    let verdicts = outcome.report.contributors.iter().map(|contributor| contributor.verdict);
    Ok(match verdicts.max_by_key(|verdict| severity(*verdict)) {
        Some(Verdict::Rejected) => ExitCode::from(NO),
        Some(Verdict::Failed) => ExitCode::from(UNUSABLE),
        _ => ExitCode::SUCCESS,
    })
}

/// A rejection takes precedence over a failure.
fn severity(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Accepted => 0,
        Verdict::Failed => 1,
        Verdict::Rejected => 2,
    }
}

fn options(args: &args::Infer) -> anyhow::Result<InferOptions> {
    let text = match (&args.text, &args.text_file) {
        (Some(text), _) => Some(text.clone()),
        (None, Some(file)) => Some(read_text(file)?),
        (None, None) => None,
    };
    let generation = match (args.generate, args.prompt.as_ref().or(text.as_ref())) {
        (0, _) => None,
        (_, None) => bail!("--generate needs --prompt, or a text to continue"),
        (tokens, Some(prompt)) => Some(Generation {
            prompt: prompt.clone(),
            sampling: Sampling {
                max_new_tokens: tokens as usize,
                temperature: args.temperature,
                top_k: args.top_k,
                top_p: args.top_p,
                seed: args.seed,
            },
            compare: !args.no_base_text,
        }),
    };
    if text.is_none() && generation.is_none() {
        bail!(
            "nothing to do: pass --text or --text-file to measure a loss, or --prompt with \
             --generate N"
        );
    }
    Ok(InferOptions {
        base: args.base.clone(),
        tokenizer: args.tokenizer.clone(),
        base_weights: args.base_weights.clone(),
        allow_other_base: args.allow_other_base,
        contributors: contributors(args)?,
        mode: match args.mode {
            args::Mode::AddDelta => Mode::AddDelta,
            args::Mode::Replace => Mode::Replace,
        },
        maps: args.map.clone(),
        text,
        context: args.context as usize,
        generation,
        out: args.out.clone(),
        policy: policy(&args.srs),
    })
}

fn read_text(file: &Path) -> anyhow::Result<String> {
    let bytes = zklora_files::read(file, MAX_TEXT)?;
    String::from_utf8(bytes).with_context(|| format!("{}: not text in UTF-8", file.display()))
}

fn contributors(args: &args::Infer) -> anyhow::Result<Vec<ContributorOptions>> {
    let mut options: Vec<ContributorOptions> = Vec::new();
    for contributor in &args.contributor {
        if options.iter().any(|other| other.url == contributor.url) {
            bail!("--contributor {}: given twice", contributor.url);
        }
        options.push(ContributorOptions {
            url: contributor.url.clone(),
            pin: contributor.pin,
            token_file: None,
            tls: args.transport.tls(),
            insecure: args.transport.insecure,
            call_timeout: args.transport.call_timeout(),
            patience: args.transport.patience(),
            proof_timeout: Duration::from_secs(u64::from(args.proof_timeout)),
            moved: args.moved,
        });
    }
    for token in &args.token_file {
        let several = options.len() > 1;
        let found = match &token.url {
            Some(url) => options.iter_mut().find(|contributor| contributor.url == *url),
            None if several => {
                bail!("--token-file: with several contributors, name the one it is for: URL=FILE")
            }
            None => options.first_mut(),
        };
        match found {
            Some(contributor) => contributor.token_file = Some(token.file.clone()),
            None => bail!(
                "--token-file: no --contributor has the URL {}",
                token.url.as_deref().unwrap_or_default()
            ),
        }
    }
    Ok(options)
}

fn print(report: &EffectReport, out: &Path, output: &Output) -> anyhow::Result<()> {
    let mut table: Vec<(&str, String)> = Vec::new();
    if let Some(loss) = &report.loss {
        table.push(("Tokens", count(loss.tokens)));
        table.push((
            "Base model",
            format!("loss {:.4}, perplexity {:.2}", loss.base, loss.base_perplexity),
        ));
        table.push((
            "With adapters",
            format!("loss {:.4}, perplexity {:.2}", loss.adapted, loss.adapted_perplexity),
        ));
    }
    if let Some(generated) = &report.generated {
        table.push(("Prompt", generated.prompt.clone()));
        if let Some(base) = &generated.base {
            table.push(("Base continues", base.clone()));
        }
        table.push(("Adapted continues", generated.adapted.clone()));
    }
    for contributor in &report.contributors {
        table.extend(lines(contributor));
    }
    table.push((
        "Files",
        format!(
            "{} (zklora report {} --html page.html shows what the deltas did)",
            out.display(),
            out.display()
        ),
    ));
    output.result(&serde_json::to_value(report)?, &table);
    Ok(())
}

fn lines(contributor: &ContributorReport) -> Vec<(&'static str, String)> {
    let pin = if contributor.pinned { "your pin" } else { "NOT PINNED" };
    let mut lines = vec![
        ("Contributor", contributor.url.clone()),
        ("  adapter id", format!("{} ({pin})", contributor.adapter_id)),
        ("  session", contributor.session_id.clone()),
        (
            "  rows",
            format!(
                "{} in {} of {} modules; {} were already in the record",
                count(contributor.rows),
                contributor.modules_called,
                contributor.modules,
                count(contributor.rows_reused)
            ),
        ),
        (
            "  network",
            format!(
                "{} calls, {} sent, {} received{}{}",
                count(contributor.calls),
                bytes(contributor.bytes_sent),
                bytes(contributor.bytes_received),
                contributor.latency.map_or(String::new(), |l| format!(
                    ", {:.1} ms (median), {:.1} ms (99 %)",
                    l.p50, l.p99
                )),
                match contributor.reconnections {
                    0 => String::new(),
                    n => format!(", {n} reconnections"),
                }
            ),
        ),
    ];
    let proof =
        match (contributor.proof_bytes, contributor.proof_seconds, contributor.verify_seconds) {
            (Some(size), Some(proof), Some(verify)) => {
                format!(
                    "one proof of {}, made in {proof:.2} s, verified in {verify:.2} s",
                    bytes(size as u64)
                )
            }
            _ => "none".into(),
        };
    lines.push(("  proof", proof));
    if let Some((_, tensors)) = left_out_row(&contributor.left_out) {
        lines.push(("  left out", tensors));
    }
    if let (Verdict::Accepted, Some(why)) = (contributor.verdict, &contributor.why) {
        lines.push(("  but", why.clone()));
    }
    lines.push((
        "  verdict",
        match (contributor.verdict, &contributor.why) {
            (Verdict::Accepted, _) if contributor.pinned => {
                "ACCEPTED: every delta of your record came from the adapter that you pinned".into()
            }
            (Verdict::Accepted, _) => {
                "ACCEPTED: every delta of your record came from this adapter, which you did not pin"
                    .into()
            }
            (Verdict::Rejected, why) => format!("REJECTED: {}", why.as_deref().unwrap_or_default()),
            (Verdict::Failed, why) => {
                format!("FAILED, nothing is proven: {}", why.as_deref().unwrap_or_default())
            }
        },
    ));
    lines
}
