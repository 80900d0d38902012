//! Which interpreter runs EZKL, how long and how large it may get, and how it is stopped.

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

/// Set by a signal handler or another thread; every EZKL process that looks at it is stopped.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Stops what looks at this.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was stopped.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How to run EZKL.
#[derive(Debug, Clone)]
pub struct Python {
    /// The interpreter.
    pub interpreter: PathBuf,
    /// How long a call may take.
    pub timeout: Duration,
    /// How much memory the process may use, in MiB (Linux).
    pub memory: u64,
    /// Stops it.
    pub cancel: Cancel,
}

impl Python {
    /// The interpreter that was named, else that of `$ZKLORA_EZKL_PYTHON`, else `python3`.
    pub fn interpreter(named: Option<&Path>) -> PathBuf {
        let set = std::env::var_os(PYTHON_VARIABLE).filter(|value| !value.is_empty());
        named.map(Path::to_path_buf).or(set.map(PathBuf::from)).unwrap_or_else(|| "python3".into())
    }

    /// Nine tenths of this machine's memory, in MiB; 64 GiB where the system does not tell.
    pub fn default_memory() -> u64 {
        let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        });
        total.map_or(64 << 10, |kib| kib / 1024 * 9 / 10)
    }
}
