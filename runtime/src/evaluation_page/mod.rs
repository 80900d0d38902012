//! Renders an evaluation's [`Report`] as one HTML page for a buyer. It loads nothing.
//!
//! Text of the report (contact, price, names, reasons) is the contributor's. It goes through
//! `html::text`.

mod facts;
mod results;

use std::fmt::Write;

use crate::{
    evaluate::{Report, Stage, next_step},
    html::{self, plural, text},
};

/// The page.
pub fn page(report: &Report) -> String {
    let model = text(&report.base_model);
    let tokens = report.groups.iter().map(|group| group.tokens).sum::<u64>();
    let mut out = html::begin(
        &format!("zklora evaluation: {model}"),
        &format!("What an adapter gains on {model}"),
        &format!(
            "Measured on {} of yours in {}, {} scored.",
            plural(report.units as usize, "unit"),
            plural(report.groups.len(), "group"),
            plural(tokens as usize, "token"),
        ),
    );
    verdict(&mut out, report);
    results::results(&mut out, report);
    facts::unscored(&mut out, report);
    facts::sample(&mut out, report);
    facts::left(&mut out, report);
    facts::signed(&mut out, report);
    html::end(&mut out, "Names, texts and reasons are as the contributor and the files gave them.");
    out
}

fn verdict(out: &mut String, report: &Report) {
    let stage = Stage::of(report);
    let (class, word) = match stage {
        Stage::Claimed | Stage::Delivered => ("unpinned", "! CLAIMED"),
        Stage::Payable => ("unpinned", "! CLAIMED, READY TO PAY"),
        Stage::Undecided => ("unpinned", "! CLAIMED, NOT DECIDED"),
        Stage::Settled => ("accepted", "✓ SETTLED"),
        Stage::Contradicted => ("rejected", "✕ CONTRADICTED"),
    };
    // Of a sample, until all numbers are known.
    let of_sample = match report.grade {
        "proven" => ", A SAMPLE PROVEN",
        "not proven" => ", NOT PROVEN",
        _ => "",
    };
    let _ = write!(
        out,
        "<section aria-labelledby=\"grade\"><h2 id=\"grade\">How certain this is</h2>\
         <article class=\"card verdict {class}\"><span class=\"word\">{word}{of_sample}</span><p>{}</p>\
         <p class=\"next\" dir=\"auto\"><strong>What to do:</strong> {}</p>",
        text(report.grade_text),
        text(&next_step(report)),
    );
    if let Some(found) = &report.settlement {
        for reason in &found.reasons {
            let _ = write!(
                out,
                "<p class=\"why\" dir=\"auto\"><strong>Why:</strong> {}</p>",
                text(reason)
            );
        }
        if let Some(path) = &found.evidence {
            let _ = write!(
                out,
                "<p><strong>Evidence:</strong> <code>{}</code></p>",
                text(&path.display().to_string())
            );
        }
    }
    let settled = stage == Stage::Settled;
    let steps = [
        ("Answer signed", true),
        ("Delivered, encrypted", report.price.is_some()),
        ("Checked before payment", settled || stage == Stage::Payable),
        ("Settled with the key", settled),
    ];
    out.push_str("<ol class=\"steps\" aria-label=\"Steps\">");
    for (name, done) in steps {
        let _ = match done {
            true => write!(out, "<li class=\"done\">✓ {name}</li>"),
            false if stage == Stage::Contradicted => Ok(()),
            false => write!(out, "<li>{name}</li>"),
        };
    }
    if stage == Stage::Contradicted {
        out.push_str("<li class=\"bad\">✕ Contradicted</li>");
    }
    out.push_str("</ol></article></section>");
}

#[cfg(test)]
mod tests;
