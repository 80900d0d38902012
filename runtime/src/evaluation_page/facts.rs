//! What a page says beside the results: units without a score, what has left, who signed.

use std::fmt::Write;

use zklora_evaluation::metric::WORST;

use crate::{
    evaluate::{Report, report_lines},
    html::{count, plural, text, tile},
    registration::Registration,
};

/// Units without a score.
pub fn unscored(out: &mut String, report: &Report) {
    let by_adapter = !report.unscored.is_empty() || report.more_unscored;
    if report.base_unscored == 0 && !by_adapter {
        return;
    }
    out.push_str(
        "<section aria-labelledby=\"unscored\"><h2 id=\"unscored\">Units without a score</h2>\
         <div class=\"card\"><p>A score is exact integer arithmetic, and an unusual unit can be \
         too much for its number range.</p>",
    );
    if report.base_unscored > 0 {
        let _ = write!(
            out,
            "<p><strong>{} of {}: too much for the base model.</strong> Such units count nowhere, \
             whatever the adapter does with them. Nothing on this page is about them.</p>",
            count(report.base_unscored as usize),
            plural(report.units as usize, "unit"),
        );
    }
    if by_adapter {
        let worst = WORST as f64 * (-f64::from(report.score_bits)).exp2();
        let _ = write!(
            out,
            "<p><strong>Too much for the adapted model alone: {}</strong> (counted from 0 over all \
             groups). Such a unit is scored worst, so that no seller can hide a unit that it would \
             lose: its answer is wrong, and its loss is {worst:.0} nats a token. A single one among 100 \
             units of equal length costs the mean {:.1} nats a token, and its interval becomes \
             wide.</p>",
            text(&report_lines::unscored(report)),
            worst / 100.0,
        );
    }
    out.push_str("</div></section>");
}

/// What was proven of a sample.
pub fn sample(out: &mut String, report: &Report) {
    let Some(proven) = &report.proven else { return };
    let shown = match proven.values {
        Some(_) => {
            "The units were drawn after the contributor had signed its answer. The proof shows that \
             these values are the pinned adapter's, and nothing else of it. The interval has the \
             value of all units that could be drawn with 95 %; from a few units it is a rough guess."
        }
        None => "A sample was drawn, and there is no proof of it.",
    };
    out.push_str(
        "<section aria-labelledby=\"sample\"><h2 id=\"sample\">The drawn sample</h2><div \
         class=\"card\">",
    );
    for (label, value) in report_lines::sample(proven) {
        let _ = write!(out, "<p>{}: <bdi>{}</bdi></p>", text(label.trim()), text(&value));
    }
    if report.is_far_from_sample() {
        let _ = write!(out, "<p><strong>! {}.</strong></p>", text(report_lines::FAR_FROM_SAMPLE));
    }
    let _ = write!(out, "<p>{shown}</p></div></section>");
}

/// What each side has given away.
pub fn left(out: &mut String, report: &Report) {
    out.push_str(
        "<section aria-labelledby=\"left\"><h2 id=\"left\">What has been given away</h2>\
         <div class=\"tiles\">",
    );
    tile(out, &count(report.rows_revealed as usize), "rows of the adapter that you saw");
    let bits = report.bits_revealed();
    tile(out, &count(bits as usize), "bits that you learnt of the adapter, at most");
    tile(out, &count(report.units as usize), "units of yours that the contributor saw");
    out.push_str(
        "</div><p>A bit is the answer to one question of yes or no. The contributor has a budget \
         of them, and every request uses some of it up.</p>",
    );
    if report.per_unit {
        out.push_str(
            "<div class=\"card verdict unpinned\"><span class=\"word\">! SCORES OF SINGLE UNITS\
             </span><p>You asked for them, and the contributor answered. They tell far more of the \
             adapter than means do: most of the bits above are theirs.</p></div>",
        );
    }
    out.push_str("</section>");
}

/// Who signed what.
pub fn signed(out: &mut String, report: &Report) {
    out.push_str(
        "<section aria-labelledby=\"signed\"><h2 id=\"signed\">Who signed, and what</h2>\
         <div class=\"grid2\"><article class=\"card\"><h3>Contributor</h3><dl>",
    );
    let words = |out: &mut String, name: &str, value: &str, note: &str| {
        let _ = write!(out, "<dt>{name}</dt><dd><bdi>{}</bdi>{note}</dd>", text(value));
    };
    let digest = |out: &mut String, name: &str, value: &dyn std::fmt::Display| {
        let _ = write!(out, "<dt>{name}</dt><dd><code>{}</code></dd>", text(&value.to_string()));
    };
    digest(out, "Key", &report.key);
    let note = " <span class=\"soft\">(says of itself, not checked)</span>";
    words(out, "Contact", &report.contact, note);
    digest(out, "Adapter id", &report.adapter_id);
    words(out, "Base model", &report.base_model, "");
    digest(out, "Integer model", &report.integer_model);
    out.push_str("</dl></article><article class=\"card\"><h3>Statements</h3><dl>");
    digest(out, "Offer", &report.offer);
    digest(out, "Request", &report.request);
    digest(out, "Answer", &report.answer);
    let Some(found) = &report.settlement else {
        match &report.price {
            Some(price) => words(out, "Price", price, ""),
            None => out.push_str("<dt>Delivery</dt><dd>none yet</dd>"),
        }
        out.push_str("</dl></article></div></section>");
        return;
    };
    if let Some(price) = report.price.as_ref().or(found.price.as_ref()) {
        words(out, "Price", price, "");
    }
    for (name, date) in [("Key handed over by", &found.key_by), ("Settle by", &found.verdict_by)] {
        if let Some(date) = date {
            words(out, name, date, "");
        }
    }
    if let Some(key) = &found.key_digest {
        digest(out, "Digest of the key", key);
    }
    let verdict = format!("{:?}", found.verdict).to_uppercase();
    words(out, "Settlement", &verdict, "");
    if found.units > 0 {
        words(out, "Scored again", &plural(found.units as usize, "unit"), "");
    }
    if let Some(registered) = found.registered {
        words(out, "Weights", &Registration::of(registered).to_string(), "");
    }
    let paths = [("Evidence", &found.evidence), ("Adapter", &found.adapter)];
    for (name, path) in paths {
        if let Some(path) = path {
            digest(out, name, &path.display());
        }
    }
    out.push_str("</dl></article></div></section>");
}
