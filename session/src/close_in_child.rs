//! File descriptors that a forked child has to close.
//!
//! A lock belongs to the open file and a port to the open socket. A child that was forked without
//! running another program shares both with its parent. While it lives, no other process could
//! serve from the folder or at the port. A program that forks gets the descriptors here and closes
//! them in the child; this crate does not close them.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

static OPEN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Lists a descriptor while it lives. Drop it before the descriptor is closed.
#[derive(Debug)]
pub struct CloseInChild(Option<i32>);

impl CloseInChild {
    /// For an open file or socket.
    #[cfg(unix)]
    pub fn new(open: &impl std::os::fd::AsRawFd) -> CloseInChild {
        let descriptor = open.as_raw_fd();
        OPEN.lock().unwrap_or_else(PoisonError::into_inner).insert(descriptor);
        CloseInChild(Some(descriptor))
    }

    /// On systems without fork, nothing is listed.
    #[cfg(not(unix))]
    pub fn new<T>(_open: &T) -> CloseInChild {
        CloseInChild(None)
    }
}

impl Drop for CloseInChild {
    fn drop(&mut self) {
        if let Some(descriptor) = self.0 {
            OPEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&descriptor);
        }
    }
}

/// The descriptors, in order.
pub fn descriptors() -> Vec<i32> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_descriptor_is_listed_while_its_value_lives() {
        let file = tempfile::tempfile().unwrap();
        let known = CloseInChild::new(&file);
        assert!(descriptors().contains(&file.as_raw_fd()));
        drop(known);
        assert!(!descriptors().contains(&file.as_raw_fd()));
    }
}
