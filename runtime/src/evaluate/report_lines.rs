//! A report as lines for a terminal, and the words that its page has, too.

use super::{
    prove::Proven,
    report::{self, GroupReport, Interval, Report, Right},
    settle::Verdict,
};
use crate::numbers::{count, fixed, plural, signed};

/// Groups that are shown.
const GROUPS: usize = 100;

/// What is said of an answer that its own sample does not bear out.
pub(crate) const FAR_FROM_SAMPLE: &str = "what the contributor says of all units is outside of the \
                                          sample's interval, which chance does to one of twenty: \
                                          take the sample's value";

/// Where the buyer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// There is an answer, and no delivery.
    Claimed,
    /// There is a delivery, and settling was not tried.
    Delivered,
    /// What can be checked before payment is right.
    Payable,
    /// Settling was tried, and could not tell.
    Undecided,
    /// Every number is true.
    Settled,
    /// The contributor contradicts itself.
    Contradicted,
}

impl Stage {
    /// The stage of a report.
    pub fn of(report: &Report) -> Stage {
        match report.settlement.as_ref().map(|of| of.verdict) {
            Some(Verdict::Settled) => Stage::Settled,
            Some(Verdict::Contradicted) => Stage::Contradicted,
            Some(Verdict::Undecidable) => Stage::Undecided,
            Some(Verdict::Payable) => Stage::Payable,
            None if report.price.is_some() => Stage::Delivered,
            None => Stage::Claimed,
        }
    }
}

/// What the buyer does next. It has text of the contributor.
pub fn next_step(report: &Report) -> String {
    match Stage::of(report) {
        Stage::Claimed => "Do not pay yet. If the gain is worth money to you, ask the contributor \
                           for a delivery (zklora deliver)."
            .into(),
        Stage::Delivered => "Do not pay yet. The encrypted adapter is here: check what can be \
                             checked without the key (zklora settle)."
            .into(),
        Stage::Payable => {
            let found = report.settlement.as_ref();
            let price = report.price.as_deref().unwrap_or("the price");
            let until = found
                .and_then(|of| of.verdict_by.as_deref())
                .map_or(String::new(), |date| format!(", by {date} at the latest"));
            format!(
                "You can pay {price}: all that can be checked before payment is right. Then \
                 settle with the key (zklora settle --key){until}."
            )
        }
        Stage::Undecided => "Settling could not tell, which is nobody's fault so far. Mend what \
                             the reasons name, and settle again. Until then, do not pay, and \
                             release no escrow."
            .into(),
        Stage::Settled => {
            "You have what was promised. If an escrow holds the money, release it.".into()
        }
        Stage::Contradicted => "Do not pay, and release no escrow. If you paid, show the evidence \
                                file to whoever decides about the money: it convinces anybody who \
                                has the base model. It holds the adapter, readable by all who get \
                                it."
        .into(),
    }
}

/// A gain in nats a token.
pub fn in_nats(gain: &Interval) -> String {
    with_interval(gain, 3)
}

/// A gain of shares, in per cent points.
pub fn in_points(gain: &Interval, units: u64) -> String {
    let points =
        Interval { value: gain.value * 100.0, plus_minus: gain.plus_minus.map(|of| of * 100.0) };
    with_interval(&points, if units < 1000 { 1 } else { 2 })
}

fn with_interval(gain: &Interval, decimals: usize) -> String {
    let value = signed(gain.value, decimals);
    match gain.plus_minus.filter(|of| of.is_finite()) {
        Some(half) => format!("{value} ± {half:.decimals$}"),
        None => value,
    }
}

/// The report as labels and values. Values have text of others: escape it.
pub fn lines(report: &Report) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut line = |label: &str, value: String| out.push((label.to_string(), value));
    line("Grade", format!("{}: {}", report.grade, report.grade_text));
    line("Next", next_step(report));
    for group in report.groups.iter().take(GROUPS) {
        line("Group", format!("{}, {}", group.name, size(group)));
        of_group(group, &mut line);
    }
    let more = report.groups.len().saturating_sub(GROUPS);
    if more > 0 {
        line("", format!("{} more: see --json", plural(more, "group")));
    }
    if let Some(proven) = &report.proven {
        sample(proven).into_iter().for_each(|(label, value)| line(&label, value));
    }
    if report.is_far_from_sample() {
        line("", FAR_FROM_SAMPLE.into());
    }
    if report.base_unscored > 0 {
        line(
            "No base score",
            format!("{}: they count nowhere", plural(report.base_unscored as usize, "unit")),
        );
    }
    if !report.unscored.is_empty() || report.more_unscored {
        line("No score", format!("{}: scored worst", unscored(report)));
    }
    line("Rows revealed", count(report.rows_revealed as usize));
    let bits = report.bits_revealed();
    line("Bits revealed", format!("{} at most", count(bits as usize)));
    if report.per_unit {
        line("Scores of units", "answered, one by one".into());
    }
    line("Base model", report.base_model.clone());
    line("Adapter id", report.adapter_id.to_string());
    line("Request", format!("{} (the contributor delivers for it)", report.request));
    line("Key", report.key.to_string());
    let contact = if report.contact.is_empty() { "nothing" } else { &report.contact };
    line("Contact", format!("{contact} (says of itself, not checked)"));
    if let Some(price) = &report.price {
        line("Price", price.clone());
    }
    if let Some(found) = &report.settlement {
        for reason in &found.reasons {
            line("Reason", reason.clone());
        }
        if let Some(path) = &found.evidence {
            line("Evidence", path.display().to_string());
        }
        if let Some(path) = &found.adapter {
            line("Adapter", path.display().to_string());
        }
    }
    out
}

/// The units that only the adapted model has no score of.
pub(crate) fn unscored(report: &Report) -> String {
    let numbers: Vec<String> = report.unscored.iter().map(u64::to_string).collect();
    match (numbers.as_slice(), report.more_unscored) {
        ([], _) => "some units, which are not listed".into(),
        ([one], false) => format!("unit {one}"),
        (all, false) => format!("units {}", all.join(", ")),
        (all, true) => format!("units {} and others", all.join(", ")),
    }
}

/// What was proven of a sample, as labels and values.
pub fn sample(proven: &Proven) -> Vec<(String, String)> {
    let group =
        report::of_group("", proven.units.len() as u64, proven.tokens, proven.values.as_ref());
    let mut out = Vec::new();
    let mut line = |label: &str, value: String| out.push((label.to_string(), value));
    if proven.values.is_some() {
        line("Sample", format!("{}, proven", size(&group)));
        of_group(&group, &mut line);
    } else {
        let why = "nothing is proven; the contributor says that a unit leaves a range of the \
                   integer model, which is not checked";
        line("Sample", format!("{}: {why}", size(&group)));
    }
    out
}

/// How large a group is.
pub(crate) fn size(group: &GroupReport) -> String {
    let tokens = plural(group.tokens as usize, "token");
    format!("{tokens} in {}", plural(group.units as usize, "unit"))
}

fn of_group(group: &GroupReport, line: &mut impl FnMut(&str, String)) {
    if let Some(loss) = &group.loss {
        line(
            "  Loss",
            format!(
                "base {}, adapted {}, gain {} nats a token",
                fixed(loss.base, 3),
                fixed(loss.adapted, 3),
                in_nats(&loss.gain)
            ),
        );
    }
    let mut right = |label: &str, right: &Option<Right>| {
        if let Some(right) = right {
            line(
                label,
                format!(
                    "base {} %, adapted {} %, gain {} points ({} gained, {} lost)",
                    fixed(right.base * 100.0, 1),
                    fixed(right.adapted * 100.0, 1),
                    in_points(&right.gain, group.units),
                    count(right.gained as usize),
                    count(right.lost as usize)
                ),
            );
        }
    };
    right("  Right", &group.accuracy);
    right("  Right by length", &group.accuracy_normalised);
    right("  All greedy", &group.greedy);
    if group.confusion.is_some() {
        line("  Confusion", "see the page (--html)".into());
    }
    if group.signed.is_none() {
        line("  No values", "the base model has no score of any unit".into());
    }
}
