//! The memory of this process. Limits that follow from it are chosen at start.

/// Available memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AvailableMemory {
    /// Bytes.
    pub bytes: u64,
    /// What sets the limit, for an operator who wants to change it.
    pub from: &'static str,
}

impl AvailableMemory {
    /// The least of the memory of the machine, of its control group (a container), and of the limit
    /// of the address space.
    pub fn of_this_process() -> AvailableMemory {
        let mut system = sysinfo::System::new();
        system.refresh_memory();
        let mut memory = AvailableMemory { bytes: system.total_memory(), from: "of this machine" };
        if memory.bytes == 0 {
            // The system does not say: assume a small machine.
            memory.bytes = 2 << 30;
        }
        if let Some(group) = system.cgroup_limits() {
            memory.lower_to(group.total_memory, "of the control group (a container's limit)");
        }
        #[cfg(unix)]
        if let Ok((soft, _)) = rlimit::Resource::AS.get() {
            memory.lower_to(soft, "of address space (ulimit -v)");
        }
        memory
    }

    fn lower_to(&mut self, bytes: u64, from: &'static str) {
        if bytes > 0 && bytes < self.bytes {
            *self = AvailableMemory { bytes, from };
        }
    }
}
