//! What this process has used so far: memory and processor time.

use cpu_time::ProcessTime;

/// Largest resident memory of this process so far (Linux: `VmHWM`).
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// CPU time of this process so far, user and system, all threads.
pub fn cpu_seconds() -> Option<f64> {
    ProcessTime::try_now().ok().map(|time| time.as_duration().as_secs_f64())
}
