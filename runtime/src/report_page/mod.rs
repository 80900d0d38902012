//! Renders an [`EffectReport`] as one HTML page that loads nothing: no scripts, fonts or pictures.
//!
//! Text of the report (names, URLs, errors, generated text) is untrusted. It goes through
//! `html::text`, and the page's content security policy forbids scripts and loading.

mod point_groups;

use std::fmt::Write;

use crate::{
    effect_report::{ContributorReport, EffectReport, Generated, Losses, PointReport, Verdict},
    html::{self, bytes, count, number, percent, plural, seconds, text, tile},
    svg,
};

/// The page.
pub fn page(report: &EffectReport) -> String {
    let model = text(&report.base_model);
    let mut out = html::begin(
        &format!("zklora report: {model}"),
        &format!("What the adapter did to {model}"),
        &format!(
            "{}. {} in {} with deltas, {}.",
            plural(report.contributors.len(), "contributor"),
            match report.mode.as_str() {
                "add-delta" => "Deltas added to the outputs of the base model's layers".to_string(),
                "replace" => "Outputs of the base model's layers replaced".to_string(),
                other => format!("Mode {}", text(other)),
            },
            plural(report.forward_passes, "forward pass"),
            seconds(report.forward_seconds),
        ),
    );
    verdicts(&mut out, &report.contributors);
    if let Some(loss) = &report.loss {
        losses(&mut out, loss);
    }
    effects(&mut out, &report.points);
    traffic(&mut out, &report.contributors);
    if let Some(generated) = &report.generated {
        generation(&mut out, generated);
    }
    html::end(
        &mut out,
        "Names, messages and texts are as the model files, the contributors and the model gave \
         them.",
    );
    out
}

/// The meaning of a verdict in one sentence.
pub fn meaning(contributor: &ContributorReport) -> &'static str {
    match (contributor.verdict, contributor.pinned) {
        (Verdict::Accepted, true) => {
            "Every delta of the session came from the adapter that was pinned beforehand."
        }
        (Verdict::Accepted, false) => {
            "Every delta of the session came from one adapter, but it was not pinned beforehand: it may have been made to fit the rows."
        }
        (Verdict::Rejected, _) => {
            "There is a proof, and it does not prove what was recorded: do not rely on these deltas."
        }
        (Verdict::Failed, _) => "There is no proof: nothing is known about these deltas.",
    }
}

fn verdicts(out: &mut String, contributors: &[ContributorReport]) {
    out.push_str("<section aria-labelledby=\"verdict\"><h2 id=\"verdict\">Verdict</h2>");
    let proven = contributors.iter().filter(|c| c.verdict == Verdict::Accepted && c.pinned).count();
    let _ = match contributors.len() {
        0 => write!(out, "<p>There was no contributor, so there is nothing to prove.</p>"),
        1 if proven == 1 => {
            write!(out, "<p>The session is proven, for the adapter that was pinned.</p>")
        }
        all if proven == all => {
            write!(out, "<p>All {all} sessions are proven, for the adapters that were pinned.</p>")
        }
        1 => write!(out, "<p><strong>The session is not proven for a pinned adapter.</strong></p>"),
        all => write!(
            out,
            "<p><strong>{proven} of {all} sessions {} proven for a pinned adapter.</strong> What follows is about all deltas together, those that are not proven \
             included.</p>",
            if proven == 1 { "is" } else { "are" }
        ),
    };
    out.push_str("<div class=\"grid2\">");
    for (index, contributor) in contributors.iter().enumerate() {
        let (class, word) = match (contributor.verdict, contributor.pinned) {
            (Verdict::Accepted, true) => ("accepted", "✓ ACCEPTED"),
            (Verdict::Accepted, false) => ("unpinned", "! ACCEPTED, NOT PINNED"),
            (Verdict::Rejected, _) => ("rejected", "✕ REJECTED"),
            (Verdict::Failed, _) => ("failed", "✕ FAILED"),
        };
        let _ = write!(
            out,
            "<article class=\"card verdict {class}\"><h3>Contributor {}</h3><span class=\"word\">{word}</span><p>{}</p>",
            index + 1,
            meaning(contributor)
        );
        if let Some(why) = &contributor.why {
            let _ = write!(
                out,
                "<p class=\"why\" dir=\"auto\"><strong>Why:</strong> {}</p>",
                text(why)
            );
        }
        let _ = write!(
            out,
            "<dl><dt>At</dt><dd><bdi>{}</bdi></dd><dt>Pinned</dt><dd>{}</dd><dt>Adapter</dt><dd><code>{}</code></dd>\
             <dt>Session</dt><dd><code>{}</code></dd><dt>Modules</dt><dd>{} of {} called</dd></dl></article>",
            text(&contributor.url),
            if contributor.pinned { "yes, before the session" } else { "no" },
            text(&contributor.adapter_id),
            text(&contributor.session_id),
            count(contributor.modules_called),
            count(contributor.modules),
        );
    }
    out.push_str("</div></section>");
}

fn losses(out: &mut String, loss: &Losses) {
    out.push_str(
        "<section aria-labelledby=\"loss\"><h2 id=\"loss\">How well the text is predicted</h2><div class=\"tiles\">",
    );
    let change = loss.adapted_perplexity / loss.base_perplexity - 1.0;
    let word = if change < 0.0 { "better" } else { "worse" };
    tile(out, &number(loss.base_perplexity), "perplexity, base model");
    tile(out, &number(loss.adapted_perplexity), "perplexity, adapted");
    match change {
        change if !change.is_finite() => tile(out, "–", "change of perplexity"),
        0.0 => tile(out, "0 %", "change of perplexity"),
        change => tile(
            out,
            &format!("{}{}", if change > 0.0 { "+" } else { "−" }, percent(change.abs())),
            &format!("change of perplexity ({word})"),
        ),
    }
    tile(out, &number(loss.base), "loss, base (nats a token)");
    tile(out, &number(loss.adapted), "loss, adapted");
    tile(out, &count(loss.tokens), "tokens predicted");
    out.push_str("</div>");
    if !loss.windows.is_empty() {
        let pairs: Vec<(f64, f64)> = loss.windows.iter().map(|w| (w.base, w.adapted)).collect();
        let better = loss.windows.iter().filter(|w| w.adapted < w.base).count();
        let label = format!(
            "Loss of each of {} of text, base model and adapted; the adapted model is better in {better}. The table below has the numbers.",
            plural(pairs.len(), "window")
        );
        let _ = write!(
            out,
            "<figure class=\"card wide\"><figcaption>Loss of each window of text, nats a token; lower is better. The adapted model is better in \
             {} of {}.<br><span class=\"key one\"></span>base<span class=\"key\"></span>adapted</figcaption>\
             <div class=\"scroll\" role=\"region\" aria-label=\"Plot of losses\" tabindex=\"0\">{}</div></figure>",
            count(better),
            count(pairs.len()),
            svg::lines(&label, "window", &pairs, number)
        );
        let mut rows =
            vec![["window", "tokens", "base", "adapted", "difference"].map(String::from).to_vec()];
        rows.extend(loss.windows.iter().enumerate().map(|(index, w)| {
            vec![
                count(index + 1),
                count(w.tokens),
                number(w.base),
                number(w.adapted),
                number(w.adapted - w.base),
            ]
        }));
        out.push_str("<details><summary>All windows as a table</summary>");
        html::table(out, "Loss of each window, nats a token", &rows);
        out.push_str("</details>");
    }
    out.push_str("</section>");
}

fn effects(out: &mut String, points: &[PointReport]) {
    out.push_str("<section aria-labelledby=\"modules\"><h2 id=\"modules\">What the deltas did, module by module</h2>");
    if points.is_empty() {
        out.push_str("<p>No module was called.</p></section>");
        return;
    }
    let scale = svg::Scale::of_sizes(points.iter().filter_map(|point| point.relative));
    let note = if matches!(scale, svg::Scale::Decades(..)) {
        " The scale is of powers of ten."
    } else {
        ""
    };
    let _ = write!(
        out,
        "<p>Size of the deltas compared with what the base layer gives, ‖delta‖ / ‖base‖. All plots have the same scale.{note}</p><div class=\"plots\">"
    );
    for group in point_groups::groups(points) {
        let bars: Vec<svg::Bar> = group
            .points
            .iter()
            .map(|(name, point)| svg::Bar {
                name: name.clone(),
                full: point.module.clone(),
                value: point.relative,
            })
            .collect();
        let largest = group
            .points
            .iter()
            .filter_map(|(_, p)| Some((p.relative?, p)))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let most = largest.map_or("no base output to compare with".into(), |(value, point)| {
            format!("largest: {} in {}", percent(value), point.module)
        });
        let label = format!(
            "Relative size of the deltas of {}, {}; {most}",
            plural(bars.len(), "module"),
            group.title
        );
        let axis = if group.by_layer { "layer" } else { "place in the table" };
        let _ = write!(
            out,
            "<figure class=\"card\"><h3><bdi>{}</bdi></h3><figcaption>{}, {}</figcaption>{}</figure>",
            text(&group.title),
            plural(bars.len(), "module"),
            largest.map_or("no base output to compare with".into(), |(value, _)| format!(
                "at most {}",
                percent(value)
            )),
            svg::bars(&label, axis, &bars, scale, percent)
        );
    }
    out.push_str("</div>");
    let mut rows = vec![
        ["module", "#", "rows", "rms of base", "rms of deltas", "relative", "contributors"]
            .map(String::from)
            .to_vec(),
    ];
    rows.extend(points.iter().enumerate().map(|(index, point)| {
        let from: Vec<String> =
            point.contributors.iter().map(|c| c.saturating_add(1).to_string()).collect();
        vec![
            format!("<bdi>{}</bdi>", text(&point.module)),
            count(index + 1),
            count(point.rows),
            number(point.base_rms),
            number(point.delta_rms),
            point.relative.map_or("–".into(), percent),
            from.join(", "),
        ]
    }));
    let _ =
        write!(out, "<details><summary>All {} modules as a table</summary>", count(points.len()));
    html::table(out, "Root mean square of base and deltas, by module", &rows);
    out.push_str("</details></section>");
}

fn traffic(out: &mut String, contributors: &[ContributorReport]) {
    if contributors.is_empty() {
        return;
    }
    out.push_str(
        "<section aria-labelledby=\"cost\"><h2 id=\"cost\">What it cost</h2><div class=\"card\">",
    );
    let mut rows = vec![vec!["<span class=\"soft\">per contributor</span>".to_string()]];
    rows[0].extend((1..=contributors.len()).map(|number| format!("Contributor {number}")));
    let mut line = |label: &str, value: &dyn Fn(&ContributorReport) -> String| {
        rows.push(
            std::iter::once(label.to_string()).chain(contributors.iter().map(value)).collect(),
        );
    };
    let time = |t: Option<f64>| t.map_or("–".into(), seconds);
    let latency = |c: &ContributorReport, of: fn(&crate::effect_report::Latency) -> f64| {
        time(c.latency.as_ref().map(|l| of(l) / 1e3))
    };
    line("Rows sent and answered", &|c| count(c.rows));
    line("Rows answered from your record", &|c| count(c.rows_reused));
    line("Calls", &|c| count(c.calls));
    line("Reconnections", &|c| count(c.reconnections));
    line("Sent", &|c| bytes(c.bytes_sent));
    line("Received", &|c| bytes(c.bytes_received));
    line("Time of a call, median", &|c| latency(c, |l| l.p50));
    line("90 % of calls within", &|c| latency(c, |l| l.p90));
    line("99 % of calls within", &|c| latency(c, |l| l.p99));
    line("Longest call", &|c| latency(c, |l| l.max));
    line("Waiting for the proof", &|c| time(c.proof_seconds));
    line("Verifying it", &|c| time(c.verify_seconds));
    line("Size of the proof", &|c| c.proof_bytes.map_or("–".into(), |size| bytes(size as u64)));
    html::table(out, "Rows, calls, bytes and times", &rows);
    out.push_str("</div></section>");
}

fn generation(out: &mut String, generated: &Generated) {
    let _ = write!(
        out,
        "<section aria-labelledby=\"text\"><h2 id=\"text\">Generated text</h2><div class=\"card\"><h3>Prompt</h3>\
         <p class=\"words\" dir=\"auto\">{}</p></div><div class=\"grid2\" style=\"margin-top:16px\">",
        text(&generated.prompt)
    );
    let mut column = |title: &str, words: Option<&str>| {
        let words = words.map_or("<p class=\"soft\">Not generated.</p>".into(), |words| {
            format!("<p class=\"words\" dir=\"auto\">{}</p>", text(words.trim_start()))
        });
        let _ = write!(out, "<article class=\"card\"><h3>{title}</h3>{words}</article>");
    };
    column("Base model", generated.base.as_deref());
    column(&format!("Adapted, {} tokens", count(generated.tokens)), Some(&generated.adapted));
    out.push_str("</div></section>");
}
