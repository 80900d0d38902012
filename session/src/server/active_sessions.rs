//! Permits for active sessions, those that exchange batches, and for other work: a limit for all
//! clients and a limit for each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tonic::Status;

use super::limits::Limits;

/// The permits of a server.
#[derive(Clone)]
pub(super) struct ActiveSessions {
    /// Permits in use, by client.
    in_use: Arc<Mutex<HashMap<String, usize>>>,
    max: usize,
    max_per_client: usize,
    /// What has a permit, for refusals.
    what: &'static str,
}

/// A permit, which is given back when this is dropped.
pub(super) struct ActiveSessionPermit {
    sessions: ActiveSessions,
    client: String,
}

impl ActiveSessions {
    pub fn new(limits: &Limits) -> ActiveSessions {
        let Limits { max_sessions: max, max_sessions_per_client: max_per_client, .. } = *limits;
        ActiveSessions::of(max, max_per_client, "active sessions")
    }

    /// Permits for something else than sessions.
    pub fn of(max: usize, max_per_client: usize, what: &'static str) -> ActiveSessions {
        ActiveSessions { in_use: Arc::default(), max, max_per_client, what }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acquires a permit.
    ///
    /// # Errors
    /// `UNAVAILABLE`: none is free. Users retry, because permits are given back.
    pub fn acquire(&self, client: &str) -> Result<ActiveSessionPermit, Status> {
        let full = |max: usize, who: &str| {
            Err(Status::unavailable(format!(
                "{who} already has {max} {}, which is the limit: retry later",
                self.what
            )))
        };
        let mut in_use = self.lock();
        if in_use.values().sum::<usize>() >= self.max {
            return full(self.max, "this server");
        }
        let used = in_use.get(client).copied().unwrap_or(0);
        if used >= self.max_per_client {
            return full(self.max_per_client, "your client");
        }
        in_use.insert(client.to_string(), used + 1);
        Ok(ActiveSessionPermit { sessions: self.clone(), client: client.to_string() })
    }
}

impl Drop for ActiveSessionPermit {
    fn drop(&mut self) {
        let mut in_use = self.sessions.lock();
        let left = in_use.get(&self.client).map_or(0, |used| used - 1);
        if left == 0 {
            in_use.remove(&self.client);
        } else {
            in_use.insert(self.client.clone(), left);
        }
    }
}
