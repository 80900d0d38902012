//! Runs a test of this program under callgrind.

use std::process::{Command, Stdio};

/// Whether valgrind and taskset can be started.
pub fn is_installed() -> bool {
    ["valgrind", "taskset"].iter().all(|program| {
        Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    })
}

/// Instructions between each two calls of `count_boundary` in the test `driver`: from the first to
/// the second, from the third to the fourth, and so on.
///
/// It uses one core, because the multi-exponentiation divides its work by the number of cores.
pub fn count(driver: &str) -> Vec<u64> {
    let folder = tempfile::tempdir().unwrap();
    let core = first_core();
    let out = Command::new("taskset")
        .args(["--cpu-list", &core, "valgrind", "--tool=callgrind"])
        .arg("--dump-before=*count_boundary*")
        .arg(format!("--callgrind-out-file={}", folder.path().join("out").display()))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", driver, "--ignored", "--test-threads=1"])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    // A dump (out.1, out.2, …) has the counts since the previous dump.
    (1..)
        .map(|number| folder.path().join(format!("out.{number}")))
        .map_while(|path| std::fs::read_to_string(path).ok())
        .map(|dump| total(&dump))
        .skip(1)
        .step_by(2)
        .collect()
}

/// A core that this process may use.
fn first_core() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list =
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("0");
    list.trim().split(['-', ',']).next().unwrap_or("0").to_string()
}

/// The sum of a dump: the line `totals: N` (or `summary: N`).
fn total(dump: &str) -> u64 {
    let line =
        |name: &str| dump.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    line("totals:").or_else(|| line("summary:")).unwrap_or(0)
}
