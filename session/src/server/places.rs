//! Places for sessions that exchange batches: so many in all, so many under one identity.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tonic::Status;

use super::limits::Limits;

/// The places of a server.
#[derive(Clone)]
pub(super) struct Places {
    /// How many each identity has taken; no entry: none.
    taken: Arc<Mutex<HashMap<String, usize>>>,
    most: usize,
    most_per_client: usize,
}

/// A place that was taken; it is given back when this is dropped.
pub(super) struct Place {
    places: Places,
    client: String,
}

impl Places {
    pub fn new(limits: &Limits) -> Places {
        let Limits { max_sessions: most, max_sessions_per_client: most_per_client, .. } = *limits;
        Places { taken: Arc::default(), most, most_per_client }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place.
    ///
    /// # Errors
    /// None is free: places are given back, and users wait for one as long as they have patience.
    pub fn take(&self, client: &str) -> Result<Place, Status> {
        let full = |most: usize, whose: &str| {
            Err(Status::unavailable(format!(
                "{most} sessions {whose}exchange batches already, more are not taken: try again later"
            )))
        };
        let mut taken = self.lock();
        if taken.values().sum::<usize>() >= self.most {
            return full(self.most, "");
        }
        let own = taken.get(client).copied().unwrap_or(0);
        if own >= self.most_per_client {
            return full(self.most_per_client, "of yours ");
        }
        taken.insert(client.to_string(), own + 1);
        Ok(Place { places: self.clone(), client: client.to_string() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        let left = taken.get(&self.client).map_or(0, |own| own - 1);
        if left == 0 {
            taken.remove(&self.client);
        } else {
            taken.insert(self.client.clone(), left);
        }
    }
}
