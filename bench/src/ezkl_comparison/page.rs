//! Renders a [`Comparison`] as one HTML page that loads nothing, with bars on a scale of powers of
//! ten.

use std::fmt::Write;

use zklora_runtime::{
    html::{self, STYLE, bytes, number, seconds, text},
    svg::Scale,
};

use super::comparison::{ComparedStage, Comparison, Figures, Outcome, SystemReport};

/// Style of the bars, beside that of all pages.
const BARS: &str = ".native{fill:var(--two)}.other{fill:var(--warn)}.box{display:inline-block;width:.8em;height:.8em;margin:0 .4em 0 1em}";

/// The page.
pub fn page(comparison: &Comparison) -> String {
    let mut out = String::new();
    let module = text(&comparison.module);
    let sides = [&comparison.native, &comparison.ezkl];
    let names = sides.map(|side| text(&side.name));
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"referrer\" content=\"no-referrer\"><title>zklora and EZKL: {module}</title><style>{STYLE}{BARS}</style></head><body>\
         <header><h1>zklora and EZKL on {module}</h1><p class=\"soft\">Rows: {}; {} cores; limit of each stage {}; circuits of {} and {} rows.</p>\
         <p><svg class=\"box\" style=\"width:.8em;display:inline\" viewBox=\"0 0 8 8\" aria-hidden=\"true\"><rect class=\"native\" width=\"8\" height=\"8\"/></svg> {} \
         <svg class=\"box\" style=\"width:.8em;display:inline\" viewBox=\"0 0 8 8\" aria-hidden=\"true\"><rect class=\"other\" width=\"8\" height=\"8\"/></svg> {}</p></header><main>",
        html::count(comparison.rows),
        comparison.cores,
        seconds(comparison.limit_seconds),
        logrows(sides[0]),
        logrows(sides[1]),
        names[0],
        names[1],
    );
    let plots = [
        Plot { title: "Wall time", of: |f| Some(f.seconds), shown: seconds },
        Plot { title: "Processor time", of: |f| Some(f.cpu_seconds), shown: seconds },
        Plot {
            title: "Peak memory",
            of: |f| f.peak_bytes.map(|b| b as f64),
            shown: |b| bytes(b as u64),
        },
    ];
    for Plot { title, of, shown } in plots {
        let rows: Vec<Row> = ComparedStage::ALL
            .iter()
            .map(|stage| {
                let [native, other] = sides.map(|side| match side.stage(*stage) {
                    Outcome::Done(figures) => of(figures).ok_or_else(|| "not measured".to_string()),
                    outcome => Err(words(outcome)),
                });
                Row { name: stage.name().into(), native, other }
            })
            .collect();
        figure(&mut out, title, &rows, shown);
    }
    let absent = || "none".to_string();
    let size = |name: &str, of: fn(&SystemReport) -> Option<f64>| Row {
        name: name.into(),
        native: of(sides[0]).ok_or_else(absent),
        other: of(sides[1]).ok_or_else(absent),
    };
    let rows = [
        size("proofs", |s| s.proof_bytes.map(|b| b as f64)),
        size("public files", |s| {
            s.stage(ComparedStage::Setup).figures().map(|_| s.public_bytes as f64)
        }),
        size("private files", |s| {
            s.stage(ComparedStage::Setup).figures().map(|_| s.private_bytes as f64)
        }),
    ];
    figure(&mut out, "Sizes", &rows, |b| bytes(b as u64));
    let rows = [
        size("relative RMS", |s| s.accuracy.map(|a| a.relative_rms)),
        size("largest", |s| s.accuracy.map(|a| a.largest)),
    ];
    figure(&mut out, "Error of the deltas against the float adapter", &rows, number);
    let mut rows = vec![["EZKL over zklora", "ratio"].map(String::from).to_vec()];
    rows.extend(
        comparison
            .ratios
            .iter()
            .map(|ratio| vec![text(&ratio.what), format!("× {}", number(ratio.ratio))]),
    );
    out.push_str("<section><h2>Ratios</h2>");
    html::table(&mut out, "Above 1: EZKL takes more", &rows);
    let srs = comparison.ezkl_srs_seconds.map_or(String::new(), |time| {
        format!(" EZKL's insecure SRS was made in {} and is in no stage.", seconds(time))
    });
    let _ = writeln!(
        out,
        "<p class=\"soft\">zklora chooses its circuit within setup.{srs}</p></section></main>\
         <footer>Made by <code>zklora bench --against ezkl</code> {}.</footer></body></html>",
        env!("CARGO_PKG_VERSION")
    );
    out
}

fn logrows(side: &SystemReport) -> String {
    side.logrows.map_or("unknown".into(), |k| format!("2<sup>{k}</sup>"))
}

/// The label of a stage without figures.
pub(super) fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(_) => String::new(),
        Outcome::InNext => "part of the next stage".into(),
        Outcome::Stopped(why) => why.chars().take(80).collect(),
        Outcome::NotRun => "not run".into(),
    }
}

/// A figure of every stage.
struct Plot {
    title: &'static str,
    of: fn(&Figures) -> Option<f64>,
    shown: fn(f64) -> String,
}

struct Row {
    name: String,
    native: Result<f64, String>,
    other: Result<f64, String>,
}

const LEFT: f64 = 110.0;
const WIDTH: f64 = 820.0;
const RIGHT: f64 = 110.0;
const STEP: f64 = 46.0;

fn figure(out: &mut String, title: &str, rows: &[Row], shown: impl Fn(f64) -> String) {
    let values = rows
        .iter()
        .flat_map(|row| [&row.native, &row.other])
        .filter_map(|v| v.as_ref().ok().copied());
    let positive = values.filter(|v| v.is_finite() && *v > 0.0);
    let (least, most) = (positive.clone().fold(f64::MAX, f64::min), positive.fold(0.0, f64::max));
    if most <= 0.0 {
        return;
    }
    // The axis begins at most a decade below the least value, so that it has a bar, too.
    let low = (least.log10() - 0.05).floor() as i32;
    let scale = Scale::Decades(low, (most.log10().ceil() as i32).max(low + 1));
    let height = STEP * rows.len() as f64 + 30.0;
    let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * scale.fraction(value);
    let heading = text(title);
    let _ = write!(
        out,
        "<section><h2>{heading}</h2><figure class=\"card wide\"><figcaption>Scale of powers of ten.</figcaption>\
         <div class=\"scroll\" role=\"region\" aria-label=\"Plot: {heading}\" tabindex=\"0\">\
         <svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{heading}, stage by stage; the values stand at the bars\">"
    );
    for mark in scale.marks() {
        let at = x(mark);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{:.1}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            height - 24.0,
            height - 8.0,
            text(&shown(mark))
        );
    }
    for (index, row) in rows.iter().enumerate() {
        let top = STEP * index as f64 + 4.0;
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            top + 22.0,
            text(&row.name)
        );
        for (class, value, y) in [("native", &row.native, top), ("other", &row.other, top + 18.0)] {
            let (end, label) = match value {
                Ok(value) => (x(*value), shown(*value)),
                Err(why) => (LEFT, why.clone()),
            };
            let _ = write!(
                out,
                "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"14\" rx=\"2\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                end - LEFT,
                end + 6.0,
                y + 11.5,
                text(&label)
            );
        }
    }
    out.push_str("</svg></div></figure></section>");
}
