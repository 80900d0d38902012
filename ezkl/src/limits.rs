//! Which interpreter runs EZKL, its limits of time and memory, and how it is stopped.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The environment variable that names the interpreter.
pub const PYTHON_VARIABLE: &str = "ZKLORA_EZKL_PYTHON";

/// A flag that a signal handler or another thread sets. It stops every EZKL process that was
/// started with it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Stops the processes.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How to run EZKL.
#[derive(Debug, Clone)]
pub struct Python {
    /// The interpreter.
    pub interpreter: PathBuf,
    /// Time limit of a call.
    pub timeout: Duration,
    /// Memory limit of the process, in MiB (Linux).
    pub memory: u64,
    /// Stops the process.
    pub cancel: Cancel,
}

impl Python {
    /// The interpreter that was named, else that of `$ZKLORA_EZKL_PYTHON`, else `python3`.
    pub fn interpreter(named: Option<&Path>) -> PathBuf {
        let set = std::env::var_os(PYTHON_VARIABLE).filter(|value| !value.is_empty());
        named.map(Path::to_path_buf).or(set.map(PathBuf::from)).unwrap_or_else(|| "python3".into())
    }

    /// Nine tenths of this machine's memory, in MiB. 64 GiB if the system does not report it.
    pub fn default_memory() -> u64 {
        let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        });
        total.map_or(64 << 10, |kib| kib / 1024 * 9 / 10)
    }
}
