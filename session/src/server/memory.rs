//! How much memory this process may have: limits that follow from it are chosen at start.

/// Memory of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Bytes.
    pub bytes: u64,
    /// What sets the limit, for whoever wants to change it.
    pub from: &'static str,
}

impl Memory {
    /// The least of what the machine has, what its control group (a container) may have, and the
    /// limit of the address space.
    pub fn of_this_process() -> Memory {
        let mut system = sysinfo::System::new();
        system.refresh_memory();
        let mut memory = Memory { bytes: system.total_memory(), from: "of this machine" };
        if memory.bytes == 0 {
            // A system that does not say: a small machine.
            memory.bytes = 2 << 30;
        }
        if let Some(group) = system.cgroup_limits() {
            memory.at_most(group.total_memory, "of the control group (a container's limit)");
        }
        #[cfg(unix)]
        if let Ok((soft, _)) = rlimit::Resource::AS.get() {
            memory.at_most(soft, "of address space (ulimit -v)");
        }
        memory
    }

    fn at_most(&mut self, bytes: u64, from: &'static str) {
        if bytes > 0 && bytes < self.bytes {
            *self = Memory { bytes, from };
        }
    }
}
