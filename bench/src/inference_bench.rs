//! What inference proofs take, by tokens: the figures of one model and adapter. Each proof is made
//! in its own process, which the caller runs.

use serde::Deserialize;
use zklora_runtime::html::count;

use crate::proof_bench::loglog::{self, Line, Panel};

/// One proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Tokens.
    pub tokens: u32,
    /// Scored tokens at the end; none for all after the first.
    pub scored: Option<u32>,
    /// Threads; none for all cores.
    pub threads: Option<u32>,
    /// Without wide vector instructions.
    pub portable: bool,
}

/// All proofs: by tokens, with few scored tokens, on one thread, and without vector instructions.
pub fn cases() -> Vec<Case> {
    let of = |tokens| Case { tokens, scored: None, threads: None, portable: false };
    let mut cases: Vec<Case> = [16, 32, 64, 128].map(of).to_vec();
    cases.push(Case { scored: Some(4), ..of(64) });
    cases.push(Case { threads: Some(1), ..of(64) });
    cases.push(Case { portable: true, ..of(64) });
    cases
}

/// What `zklora integer prove` measured.
#[derive(Debug, Clone, PartialEq, Deserialize, serde::Serialize)]
pub struct Figures {
    /// Tokens.
    pub tokens: usize,
    /// Scored tokens.
    pub scored: usize,
    /// Committed integers.
    pub values: usize,
    /// Looked up integers.
    pub lookups: usize,
    /// Making the proof, with its own verification.
    pub prove_s: f64,
    /// The processors' time of that.
    pub prove_cpu_s: f64,
    /// Verifying.
    pub verify_s: f64,
    /// Bytes of the proof.
    pub bytes: usize,
    /// Peak memory of the process, the base model's included.
    pub peak_memory: Option<u64>,
}

/// First line of the section of docs/benchmarks.md.
pub const BEGIN: &str = "<!-- Written by `zklora bench --inference`. -->";

/// What the cells of a row are.
pub const HEADER: [&str; 9] = [
    "tokens, scored",
    "",
    "values",
    "lookups",
    "prove, wall",
    "prove, CPU",
    "memory",
    "verify",
    "proof",
];

/// The section.
pub fn section(machine: &str, measured: &[(Case, Figures)]) -> String {
    let mut out = format!("Machine: {machine}.\n\n");
    out += &format!("| {} |\n|{}\n", HEADER.join(" | "), " -- |".repeat(HEADER.len()));
    for (case, of) in measured {
        out += &format!("| {} |\n", cells(case, of).join(" | "));
    }
    out
}

/// The cells of a row.
pub fn cells(case: &Case, of: &Figures) -> [String; HEADER.len()] {
    let how = match (case.threads, case.portable) {
        (Some(threads), _) => format!("{threads} thread"),
        (None, true) => "portable".into(),
        (None, false) => String::new(),
    };
    let millions = |number: usize| format!("{:.1} M", number as f64 / 1e6);
    let memory =
        of.peak_memory.map_or("unknown".into(), |bytes| format!("{:.2} GB", bytes as f64 / 1e9));
    [
        format!("{}, {}", count(of.tokens), count(of.scored)),
        how,
        millions(of.values),
        millions(of.lookups),
        format!("{:.1} s", of.prove_s),
        format!("{:.1} s", of.prove_cpu_s),
        memory,
        format!("{:.2} s", of.verify_s),
        format!("{:.0} kB", of.bytes as f64 / 1e3),
    ]
}

/// How the times grow with the tokens.
pub fn drawing(title: &str, measured: &[(Case, Figures)]) -> String {
    let plain = |case: &Case| case.scored.is_none() && case.threads.is_none() && !case.portable;
    let line = |name: &str, of: fn(&Figures) -> f64| Line {
        name: name.into(),
        points: measured
            .iter()
            .filter(|(case, _)| plain(case))
            .map(|(_, figures)| (figures.tokens as f64, of(figures)))
            .collect(),
    };
    let lines = vec![
        line("prove, CPU", |of| of.prove_cpu_s),
        line("prove, wall", |of| of.prove_s),
        line("verify", |of| of.verify_s),
    ];
    loglog::drawing(title, "seconds", &[Panel { axis: "tokens".into(), lines }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof_bench::replace_section;

    #[test]
    fn the_page_has_the_marker_and_every_row_as_many_cells() {
        let figures = Figures {
            tokens: 64,
            scored: 63,
            values: 41_500_000,
            lookups: 41_800_000,
            prove_s: 59.5,
            prove_cpu_s: 102.5,
            verify_s: 2.58,
            bytes: 801_000,
            peak_memory: Some(3_900_000_000),
        };
        let measured: Vec<(Case, Figures)> =
            cases().into_iter().map(|case| (case, figures.clone())).collect();
        let section = section("2 cores", &measured);
        assert!(section.contains(
            "| 64, 63 | 1 thread | 41.5 M | 41.8 M | 59.5 s | 102.5 s | 3.90 GB | 2.58 s | 801 kB |"
        ));
        let rows: Vec<&str> = section.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 2 + cases().len());
        assert!(rows.iter().all(|row| row.matches('|').count() == 10));
        let page = include_str!("../../docs/benchmarks.md");
        assert!(replace_section(page, BEGIN, "x").is_ok());
        assert!(drawing("t", &measured).contains("</svg>"));
    }
}
