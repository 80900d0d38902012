//! Measures wall time, processor time and memory of work in this process.

use std::{path::Path, time::Instant};

use zklora_runtime::process::{cpu_seconds, peak_memory};

use super::comparison::Figures;
use crate::Error;

/// Does work and measures it. The peak is that of this process during the work, if the system can
/// reset it (Linux).
pub(super) fn measured<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<(T, Figures), Error> {
    let reset = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    let (wall, cpu) = (Instant::now(), cpu_seconds().unwrap_or(0.0));
    let made = work()?;
    let figures = Figures {
        seconds: wall.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds().unwrap_or(cpu) - cpu,
        peak_bytes: peak_memory().filter(|_| reset),
    };
    Ok((made, figures))
}

/// Size of a file, or of all files below a folder except those with these names.
pub(super) fn size(path: &Path, without: &[&str]) -> u64 {
    let Ok(metadata) = std::fs::metadata(path) else { return 0 };
    if metadata.is_file() {
        return metadata.len();
    }
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let kept = entries
        .flatten()
        .filter(|entry| !without.contains(&entry.file_name().to_string_lossy().as_ref()));
    kept.map(|entry| size(&entry.path(), without)).sum()
}
