//! Compares the instruction counts of the hot functions with `bench/benches/instructions.json`. In
//! CI, wall time is noise and counts are not.
//!
//! Valgrind's callgrind counts, on one core. Its processor has AVX2 if the real one has, and
//! nothing wider, so counts are the same on all machines with AVX2. To renew the file after an
//! intended change:
//!
//! ```text
//! ZKLORA_WRITE_INSTRUCTIONS=1 cargo test --release --workspace --test instructions
//! ```
//!
//! Without valgrind (`.ci/run` installs it where it can), the test says so and counts nothing.
//! Another compiler gives other counts, which are not compared. Renew the file with each new
//! compiler.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod callgrind;
mod counts;

use std::{collections::BTreeMap, path::Path};

use counts::{Counts, compare};
use zklora_bench::hot_functions::{hot_functions, run_counted};

const COUNTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.json");

#[test]
fn hot_functions_take_no_more_instructions_than_recorded() {
    if cfg!(debug_assertions) || !cfg!(target_arch = "x86_64") {
        println!("NOT COUNTED: counts are of a release build for x86-64");
        return;
    }
    if !callgrind::is_installed() {
        println!(
            "NOT COUNTED: valgrind or taskset is missing. Install valgrind to check that no function became slower."
        );
        return;
    }
    let names: Vec<&str> = hot_functions().unwrap().iter().map(|function| function.name).collect();
    let instructions = callgrind::count("hot_function_driver");
    assert_eq!(instructions.len(), names.len(), "one dump for each function: {instructions:?}");
    let counted = Counts {
        avx2: cfg!(target_arch = "x86_64") && std::arch::is_x86_feature_detected!("avx2"),
        instructions: names
            .iter()
            .map(ToString::to_string)
            .zip(instructions)
            .collect::<BTreeMap<_, _>>(),
        rustc: rustc(),
    };
    if std::env::var_os("ZKLORA_WRITE_INSTRUCTIONS").is_some() {
        std::fs::write(COUNTS, counted.to_json()).unwrap();
    }
    let recorded = Counts::read(Path::new(COUNTS));
    if recorded.avx2 != counted.avx2 {
        println!("NOT COMPARED: one of both machines has no AVX2");
        return;
    }
    if recorded.rustc != counted.rustc {
        println!("NOT COMPARED: recorded with {}, this is {}", recorded.rustc, counted.rustc);
        return;
    }
    let problems = compare(&recorded, &counted);
    assert!(problems.is_empty(), "{}\n{}", problems.join("\n"), counts::ADVICE);
}

/// Callgrind runs this: every function once as a warm-up, then once to be counted, all in this
/// thread.
#[test]
#[ignore = "run by the test above, under callgrind"]
fn hot_function_driver() {
    // This thread is the only one of the pool, so the work that functions hand to threads is
    // counted, too.
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global().unwrap();
    for function in hot_functions().unwrap() {
        function.run();
        run_counted(&function);
    }
}

fn rustc() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out = std::process::Command::new(rustc).arg("--version").output();
    out.map_or_else(
        |_| "unknown".into(),
        |out| String::from_utf8_lossy(&out.stdout).trim().to_string(),
    )
}
