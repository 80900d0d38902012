//! Work that computes or waits for the disk, off the threads that serve the network.
//!
//! There are so many threads for it; one identity gets half of them. A request whose caller gives
//! up while it waits for one is gone with it; what has been handed to a thread is done, wanted or
//! not, so that no more than there are threads may be handed over at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// Above this many identities, those that have no work are forgotten.
const REMEMBERED: usize = 1024;

/// The threads that work may be handed to.
pub(super) struct Workers {
    all: Arc<Semaphore>,
    each: Mutex<HashMap<String, Arc<Semaphore>>>,
    most_each: usize,
}

/// One of them. It is given back when this is dropped.
type Turn = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Workers {
    /// With `alone`, one identity is all that there is and may have all of them.
    pub fn new(most: usize, alone: bool) -> Workers {
        let most_each = if alone { most } else { most.div_ceil(2) };
        Workers { all: Arc::new(Semaphore::new(most)), each: Mutex::default(), most_each }
    }

    async fn turn(&self, client: &str) -> Result<Turn, Status> {
        let own = {
            let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
            if each.len() >= REMEMBERED {
                each.retain(|_, own| Arc::strong_count(own) > 1);
            }
            let own = each
                .entry(client.to_string())
                .or_insert_with(|| Arc::new(Semaphore::new(self.most_each)));
            Arc::clone(own)
        };
        // Neither is ever closed.
        let closed = |_| Status::unavailable("the server shuts down");
        let own = own.acquire_owned().await.map_err(closed)?;
        Ok((own, Arc::clone(&self.all).acquire_owned().await.map_err(closed)?))
    }

    /// Does the work of a client.
    pub async fn run<T: Send + 'static>(
        &self,
        client: &str,
        work: impl FnOnce() -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let turn = self.turn(client).await?;
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|_| Err(Status::internal("the server failed; its log says more")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_identity_leaves_half_of_the_threads_to_others() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let soon = Duration::from_millis(20);
            let workers = Workers::new(4, false);
            let mut turns = vec![
                workers.turn("mallory").await.unwrap(),
                workers.turn("mallory").await.unwrap(),
            ];
            assert!(tokio::time::timeout(soon, workers.turn("mallory")).await.is_err());
            assert_eq!(workers.run("alice", || Ok(7)).await.unwrap(), 7);
            // Who gave up waits for nothing any more.
            turns.pop();
            turns.push(workers.turn("mallory").await.unwrap());
            // Nobody shares with the only one that there is.
            let workers = Workers::new(2, true);
            let _turns = (
                workers.turn("anonymous").await.unwrap(),
                workers.turn("anonymous").await.unwrap(),
            );
        });
    }
}
