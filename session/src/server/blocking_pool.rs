//! Threads for work that computes or waits for the disk, apart from those that serve the network.
//!
//! The number of threads is bounded, and one client gets half of them. A request whose caller gives
//! up while it waits for a thread is dropped. Work that a thread has begun is finished in any case,
//! so no more work is handed over than there are threads.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// Above this many clients, those without work are forgotten.
const REMEMBERED_CLIENTS: usize = 1024;

/// The permits to use a thread.
pub(super) struct BlockingPool {
    all: Arc<Semaphore>,
    each: Mutex<HashMap<String, Arc<Semaphore>>>,
    max_per_client: usize,
}

/// A permit of the client and one of the server. They are given back when this is dropped.
type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl BlockingPool {
    /// With `single_client`, there is one identity and it may use all threads.
    pub fn new(threads: usize, single_client: bool) -> BlockingPool {
        let max_per_client = if single_client { threads } else { threads.div_ceil(2) };
        let all = Arc::new(Semaphore::new(threads));
        BlockingPool { all, each: Mutex::default(), max_per_client }
    }

    async fn acquire(&self, client: &str) -> Result<Permits, Status> {
        let share = {
            let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
            if each.len() >= REMEMBERED_CLIENTS {
                each.retain(|_, share| Arc::strong_count(share) > 1);
            }
            let share = each
                .entry(client.to_string())
                .or_insert_with(|| Arc::new(Semaphore::new(self.max_per_client)));
            Arc::clone(share)
        };
        // The semaphores are never closed.
        let closed = |_| Status::unavailable("the server shuts down");
        let share = share.acquire_owned().await.map_err(closed)?;
        Ok((share, Arc::clone(&self.all).acquire_owned().await.map_err(closed)?))
    }

    /// Runs work of a client on a thread.
    pub async fn run<T: Send + 'static>(
        &self,
        client: &str,
        work: impl FnOnce() -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let permits = self.acquire(client).await?;
        let work = move || {
            let _permits = permits;
            work()
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
            Err(Status::internal("the server failed: its operator finds the reason in its log"))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_client_leaves_half_of_the_threads_to_others() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let soon = Duration::from_millis(20);
            let pool = BlockingPool::new(4, false);
            let mut permits = vec![
                pool.acquire("mallory").await.unwrap(),
                pool.acquire("mallory").await.unwrap(),
            ];
            assert!(tokio::time::timeout(soon, pool.acquire("mallory")).await.is_err());
            assert_eq!(pool.run("alice", || Ok(7)).await.unwrap(), 7);
            // A caller that gave up no longer waits.
            permits.pop();
            permits.push(pool.acquire("mallory").await.unwrap());
            // A single client may use all threads.
            let pool = BlockingPool::new(2, true);
            let _permits = (
                pool.acquire("anonymous").await.unwrap(),
                pool.acquire("anonymous").await.unwrap(),
            );
        });
    }
}
