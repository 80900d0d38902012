//! The recorded counts, and their comparison with new ones.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

/// Largest growth of a count that passes, in per cent.
const GROWTH: u128 = 10;

/// Advice about a difference.
pub const ADVICE: &str = "If the change is intended, renew the file and say why in the commit:\n\
    ZKLORA_WRITE_INSTRUCTIONS=1 cargo test --release --workspace --test instructions";

/// Instructions of every hot function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Whether the machine has AVX2.
    pub avx2: bool,
    /// Counts by name of the function.
    pub instructions: BTreeMap<String, u64>,
    /// The compiler.
    pub rustc: String,
}

impl Counts {
    /// The recorded ones.
    pub fn read(path: &Path) -> Counts {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// As they are recorded.
    pub fn to_json(&self) -> String {
        format!("{}\n", serde_json::to_string_pretty(self).unwrap())
    }
}

/// The problems. Empty if no function takes more than a tenth more instructions than recorded.
pub fn compare(recorded: &Counts, counted: &Counts) -> Vec<String> {
    let compilers = if recorded.rustc == counted.rustc {
        String::new()
    } else {
        format!(" (recorded with {}, this is {})", recorded.rustc, counted.rustc)
    };
    let mut problems = Vec::new();
    for (name, now) in &counted.instructions {
        match recorded.instructions.get(name) {
            None => problems.push(format!("`{name}` is not in the file")),
            Some(before) => {
                let growth = *now as f64 / *before as f64 - 1.0;
                println!("{name}: {now} instructions, {:+.1} %", growth * 100.0);
                if u128::from(*now) * 100 > u128::from(*before) * (100 + GROWTH) {
                    problems.push(format!(
                        "`{name}` takes {now} instructions, not {before}: {:+.1} %{compilers}",
                        growth * 100.0
                    ));
                }
            }
        }
    }
    let gone =
        recorded.instructions.keys().filter(|name| !counted.instructions.contains_key(*name));
    problems
        .extend(gone.map(|name| format!("`{name}` is in the file, but there is no such function")));
    problems
}

fn counts(rustc: &str, instructions: &[(&str, u64)]) -> Counts {
    let instructions =
        instructions.iter().map(|(name, count)| ((*name).to_string(), *count)).collect();
    Counts { avx2: true, instructions, rustc: rustc.into() }
}

#[test]
fn a_tenth_more_passes_and_more_than_that_does_not() {
    let recorded = counts("rustc 1", &[("a", 1000), ("b", 1000)]);
    assert!(compare(&recorded, &counts("rustc 1", &[("a", 1100), ("b", 10)])).is_empty());
    let problems = compare(&recorded, &counts("rustc 1", &[("a", 1101), ("b", 1000)]));
    assert_eq!(problems, ["`a` takes 1101 instructions, not 1000: +10.1 %"]);
}

#[test]
fn functions_that_are_new_or_gone_are_named_and_so_is_another_compiler() {
    let recorded = counts("rustc 1", &[("a", 1000), ("old", 5)]);
    let problems = compare(&recorded, &counts("rustc 2", &[("a", 2000), ("new", 5)]));
    assert_eq!(problems.len(), 3);
    assert!(problems[0].contains("(recorded with rustc 1, this is rustc 2)"), "{problems:?}");
    assert!(
        problems[1].contains("`new` is not in the file")
            && problems[2].contains("`old` is in the file")
    );
}

#[test]
fn counts_are_read_as_they_were_written() {
    let counts = counts("rustc 1", &[("a", u64::MAX)]);
    assert_eq!(serde_json::from_str::<Counts>(&counts.to_json()).unwrap(), counts);
}
