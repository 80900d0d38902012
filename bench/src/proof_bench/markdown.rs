//! Writes the generated section of `docs/benchmarks.md`.

use std::fmt::Write;

use zklora_runtime::html::{bytes, count};

use super::{
    bench_stage::BenchStage,
    figures::{Item, Measured, Size},
    targets::{Judged, Quantity},
};
use crate::Error;

/// First line of the section.
pub const BEGIN: &str = "<!-- Written by `zklora bench --all --markdown docs/benchmarks.md`. -->";
/// Last line of the section.
pub const END: &str = "<!-- End of what the command wrote. -->";

/// Replaces the text between a first line and the next last line.
///
/// # Errors
/// The text does not have the first line once, and a last line behind it.
pub fn replace_section(text: &str, begin: &str, section: &str) -> Result<String, Error> {
    let refuse = || {
        Error::input(format!(
            "the file needs these two lines, the first one once: {begin} and {END}"
        ))
    };
    let (before, rest) = text.split_once(begin).ok_or_else(refuse)?;
    let (_, after) = rest.split_once(END).ok_or_else(refuse)?;
    if [before, rest].iter().any(|part| part.contains(begin)) {
        return Err(refuse());
    }
    Ok(format!("{before}{begin}\n\n{}\n\n{END}{after}", section.trim()))
}

/// Formats a time with three significant digits.
fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 100.0 => format!("{s:.0} s"),
        s if s >= 10.0 => format!("{s:.1} s"),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 0.1 => format!("{:.0} ms", s * 1e3),
        s if s >= 1e-2 => format!("{:.1} ms", s * 1e3),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.1} µs", s * 1e6),
    }
}

impl Quantity {
    /// Formats a value with its unit. Memory and sizes are in decimal units, as in the targets.
    pub fn shown(self, value: f64) -> String {
        match self {
            Quantity::Seconds(_) => time(value),
            Quantity::Memory(_) => format!("{:.0} MB", value / 1e6),
            Quantity::Bytes(_) => format!("{:.2} KB", value / 1e3),
            Quantity::Speed(..) => format!("{:.0} %", value * 100.0),
        }
    }
}

impl Judged {
    /// The cells of a table row: profile, what, measured, target, and whether it is met.
    pub fn cells(&self) -> [String; 5] {
        let limit = self.target.quantity.shown(self.target.limit);
        let sign = if matches!(self.target.quantity, Quantity::Speed(..)) { "≥" } else { "≤" };
        let met = match self.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "not measured",
        };
        [
            self.target.profile.into(),
            self.target.what.into(),
            self.measured.map_or(String::new(), |value| self.target.quantity.shown(value)),
            format!("{sign} {limit}"),
            met.into(),
        ]
    }
}

/// Columns of the table of stages: name and figure.
const COLUMNS: [(&str, Item); 9] = [
    ("commit", Item::Commit),
    ("record", Item::Record),
    ("digest", Item::Digest),
    ("projection", Item::Projection),
    ("prove", Item::Prove),
    ("besides the pass", Item::ProveOneRow),
    ("verify", Item::Verify),
    ("besides the pass", Item::VerifyOneRow),
    ("`zklora verify`", Item::Process),
];

fn line(out: &mut String, cells: impl IntoIterator<Item = impl AsRef<str>>) {
    out.push('|');
    for cell in cells {
        let _ = write!(out, " {} |", cell.as_ref());
    }
    out.push('\n');
}

fn header(out: &mut String, cells: &[&str]) {
    line(out, cells);
    line(out, cells.iter().map(|_| "--"));
}

/// The section, in Markdown.
pub fn section(machine: &str, measured: &[Measured], judged: &[Judged]) -> String {
    let mut out = format!("Machine: {machine}.\n\n");
    if !judged.is_empty() {
        header(&mut out, &["profile", "what", "measured", "target", ""]);
        judged.iter().for_each(|judged| line(&mut out, judged.cells()));
        out.push('\n');
    }
    let mut names = vec!["profile", "modules", "weights", "rows a module"];
    names.extend(COLUMNS.map(|(name, _)| name));
    header(&mut out, &names);
    for profile in measured {
        let cells = [
            profile.profile.clone(),
            profile.shapes.clone(),
            count(profile.parameters),
            count(profile.rows),
        ];
        let times = COLUMNS
            .map(|(_, item)| profile.cost(item).map_or(String::new(), |cost| time(cost.seconds)));
        line(&mut out, cells.into_iter().chain(times));
    }
    out.push_str("\nCPU time of the same, and peak memory of the process of each stage:\n\n");
    let stages = [
        BenchStage::Commit,
        BenchStage::Record,
        BenchStage::Prove,
        BenchStage::Verify,
        BenchStage::Process,
    ];
    let peaks = stages.map(|stage| format!("peak, {stage}"));
    let mut names = vec!["profile", "commit", "record", "prove", "verify"];
    names.extend(peaks.iter().map(String::as_str));
    header(&mut out, &names);
    for profile in measured {
        let times = [Item::Commit, Item::Record, Item::Prove, Item::Verify]
            .map(|item| profile.cost(item).map_or(String::new(), |cost| time(cost.cpu_seconds)));
        let peaks = stages
            .map(|stage| profile.peak_memory.get(&stage).copied().map_or(String::new(), bytes));
        line(&mut out, [profile.profile.clone()].into_iter().chain(times).chain(peaks));
    }
    out.push_str("\nSizes:\n\n");
    let sizes = [Size::Proof, Size::Manifest, Size::VerifyingKey, Size::Weights, Size::Trace];
    let names: Vec<String> =
        ["profile".into()].into_iter().chain(sizes.map(|size| size.to_string())).collect();
    header(&mut out, &names.iter().map(String::as_str).collect::<Vec<_>>());
    for profile in measured {
        let cells = sizes.map(|size| profile.size(size).map_or(String::new(), bytes));
        line(&mut out, [profile.profile.clone()].into_iter().chain(cells));
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::proof_bench::{Profile, targets};

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let text = format!("# A\n\n{BEGIN}\nold\n{END}\n\nb\n");
        let replaced = replace_section(&text, BEGIN, "new\n").unwrap();
        assert_eq!(replaced, format!("# A\n\n{BEGIN}\n\nnew\n\n{END}\n\nb\n"));
        assert_eq!(replace_section(&replaced, BEGIN, "new").unwrap(), replaced);
        for bad in ["", BEGIN, &format!("{END}{BEGIN}"), &format!("{text}{text}")] {
            assert!(replace_section(bad, BEGIN, "new").is_err(), "{bad}");
        }
    }

    #[test]
    fn the_page_has_the_markers() {
        let page = include_str!("../../../docs/benchmarks.md");
        assert!(replace_section(page, BEGIN, "x").is_ok());
    }

    #[test]
    fn every_line_of_a_table_has_as_many_cells_as_its_header() {
        let measured = [
            Measured::of(&Profile::named("gpt2").unwrap(), 64),
            Measured::of(&Profile::named("module").unwrap(), 1),
        ];
        let section = section("2 cores", &measured, &targets::judge(&measured));
        for table in section.split("\n\n").filter(|part| part.starts_with('|')) {
            let cells: Vec<usize> = table.lines().map(|line| line.matches('|').count()).collect();
            assert!(cells.len() >= 3 && cells.iter().all(|count| *count == cells[0]), "{table}");
        }
    }
}
