//! Descriptors that a forked child must not keep.
//!
//! A lock belongs to the open file and a port to the open socket, and a child that was forked
//! (without running another program) shares both with its parent: while it lives, no other process
//! could serve from the folder or at the port. Whoever forks looks here for what the child has to
//! let go of; this crate closes nothing itself.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

static OPEN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// While it lives, a descriptor is one that a child must not keep. Drop it before the descriptor is
/// closed.
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

    /// Where there is no fork, there is nothing to do.
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
    fn a_descriptor_is_known_while_its_value_lives() {
        let file = tempfile::tempfile().unwrap();
        let known = CloseInChild::new(&file);
        assert!(descriptors().contains(&file.as_raw_fd()));
        drop(known);
        assert!(!descriptors().contains(&file.as_raw_fd()));
    }
}
