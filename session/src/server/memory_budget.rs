//! The memory budget for messages, in bytes: a limit for all clients and a limit for each.
//!
//! Requests are counted before they are buffered ([`super::request_body`]), responses until the
//! connection has sent their last byte ([`super::response_body`]). A user that does not read, or
//! that begins messages and does not end them, uses up its own share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tonic::Status;

use super::limits::Limits;

/// The share of all unauthenticated callers together. Responses of the health service have a few
/// bytes each.
const UNAUTHENTICATED_SHARE: usize = 1 << 20;

/// Above this many clients, those that hold no memory are forgotten.
const REMEMBERED_CLIENTS: usize = 1024;

/// The bytes that a server may hold.
pub(super) struct MemoryBudget {
    all: Arc<Semaphore>,
    each: Mutex<HashMap<String, Arc<Semaphore>>>,
    max: usize,
    max_per_client: usize,
}

/// Bytes of the budget, which are given back when this is dropped.
#[derive(Debug)]
pub(super) struct MemoryPermit {
    share: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

/// The limit that was reached.
enum Exhausted {
    Client,
    Server,
}

impl MemoryBudget {
    /// With `single_client`, there is one identity and it may use everything; else one may use
    /// half.
    pub fn new(limits: &Limits, single_client: bool) -> Arc<MemoryBudget> {
        let max = limits.max_held_bytes.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize / 2);
        let max_per_client = if single_client { max } else { max / 2 };
        Arc::new(MemoryBudget {
            all: Arc::new(Semaphore::new(max)),
            each: Mutex::default(),
            max,
            max_per_client,
        })
    }

    /// The share of a client. The empty name stands for all unauthenticated callers.
    fn share(&self, client: &str) -> (Arc<Semaphore>, usize) {
        let max = if client.is_empty() {
            UNAUTHENTICATED_SHARE.min(self.max_per_client)
        } else {
            self.max_per_client
        };
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if each.len() >= REMEMBERED_CLIENTS {
            each.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let share = each.entry(client.to_string()).or_insert_with(|| Arc::new(Semaphore::new(max)));
        (Arc::clone(share), max)
    }

    fn refused(&self, exhausted: &Exhausted, max: usize) -> Status {
        // Not `RESOURCE_EXHAUSTED`: clients take that as final for a batch, and this is transient.
        Status::unavailable(match exhausted {
            Exhausted::Client => format!(
                "this server holds {max} bytes of requests and answers of yours, which is the \
                 limit: read the answers, or try again later"
            ),
            Exhausted::Server => format!(
                "this server holds {} bytes of messages, which is the limit: try again later",
                self.max
            ),
        })
    }

    /// Acquires `bytes` without waiting.
    ///
    /// # Errors
    /// `UNAVAILABLE`: the budget is exhausted.
    pub fn try_acquire(&self, client: &str, bytes: usize) -> Result<MemoryPermit, Status> {
        let (share, max) = self.share(client);
        let bytes = permits(bytes, max);
        let share = share
            .try_acquire_many_owned(bytes)
            .map_err(|_| self.refused(&Exhausted::Client, max))?;
        let all = Arc::clone(&self.all).try_acquire_many_owned(bytes);
        Ok(MemoryPermit { share, all: all.map_err(|_| self.refused(&Exhausted::Server, max))? })
    }

    /// Acquires `bytes`, and waits for them.
    ///
    /// # Errors
    /// `UNAVAILABLE`: the budget was exhausted for all of this time.
    pub async fn acquire(
        &self,
        client: &str,
        bytes: usize,
        timeout: Duration,
    ) -> Result<MemoryPermit, Status> {
        let (share, max) = self.share(client);
        let (bytes, until) = (permits(bytes, max), Instant::now() + timeout);
        // The semaphores are never closed.
        let share = match timeout_at(until, share.acquire_many_owned(bytes)).await {
            Ok(Ok(share)) => share,
            _ => return Err(self.refused(&Exhausted::Client, max)),
        };
        match timeout_at(until, Arc::clone(&self.all).acquire_many_owned(bytes)).await {
            Ok(Ok(all)) => Ok(MemoryPermit { share, all }),
            _ => Err(self.refused(&Exhausted::Server, max)),
        }
    }
}

/// A request for more than a share acquires the whole share: more would never be available.
fn permits(bytes: usize, max: usize) -> u32 {
    u32::try_from(bytes.min(max)).unwrap_or(u32::MAX)
}

impl MemoryPermit {
    pub fn bytes(&self) -> usize {
        self.all.num_permits()
    }

    /// Splits off this many bytes, or all if there are fewer.
    pub fn split(&mut self, bytes: usize) -> Option<MemoryPermit> {
        let bytes = bytes.min(self.bytes());
        Some(MemoryPermit { share: self.share.split(bytes)?, all: self.all.split(bytes)? })
    }

    /// Gives back all but this many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        drop(self.split(self.bytes().saturating_sub(bytes)));
    }

    fn merge(&mut self, other: MemoryPermit) {
        self.share.merge(other.share);
        self.all.merge(other.all);
    }
}

/// Memory that was acquired for the answers of one stream before they were computed.
#[derive(Clone, Default)]
pub(super) struct ReservedMemory(Arc<Mutex<Option<MemoryPermit>>>);

impl ReservedMemory {
    pub fn put(&self, permit: MemoryPermit) {
        let mut reserved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *reserved {
            Some(reserved) => reserved.merge(permit),
            none => *none = Some(permit),
        }
    }

    /// This many bytes, or all if there are fewer.
    pub fn take(&self, bytes: usize) -> Option<MemoryPermit> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.split(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn budget(most: usize, single: bool) -> Arc<MemoryBudget> {
        MemoryBudget::new(&Limits { max_held_bytes: most, ..Limits::default() }, single)
    }

    #[test]
    fn one_client_gets_half_and_all_get_no_more_than_the_budget() {
        let budget = budget(1000, false);
        let alice = budget.try_acquire("alice", 500).unwrap();
        let why = budget.try_acquire("alice", 1).unwrap_err();
        assert!(
            why.message().contains("of yours") && why.code() == tonic::Code::Unavailable,
            "{why}"
        );
        let bob = budget.try_acquire("bob", 499).unwrap();
        let why = budget.try_acquire("carol", 2).unwrap_err();
        assert!(why.message().contains("this server holds 1000 bytes"), "{why}");
        drop((alice, budget.try_acquire("carol", 1).unwrap()));
        // A request for more than a share takes all of it.
        let all = budget.try_acquire("alice", usize::MAX).unwrap();
        assert!(budget.try_acquire("alice", 1).is_err());
        drop((all, bob));
        assert_eq!(budget.all.available_permits(), 1000);
        let single = MemoryBudget::new(&Limits { max_held_bytes: 1000, ..Limits::default() }, true);
        single.try_acquire("anonymous", 1000).unwrap();
    }

    #[test]
    fn reserved_memory_is_exact_to_the_byte() {
        let (budget, reserved) = (budget(1000, true), ReservedMemory::default());
        assert!(reserved.take(1).is_none());
        let mut first = budget.try_acquire("a", 100).unwrap();
        first.shrink(60);
        reserved.put(first);
        reserved.put(budget.try_acquire("a", 40).unwrap());
        let left = || 1000 - budget.all.available_permits();
        assert_eq!(left(), 100);
        let (some, rest) = (reserved.take(70).unwrap(), reserved.take(70).unwrap());
        assert_eq!((some.bytes(), rest.bytes()), (70, 30));
        drop(some);
        assert_eq!(left(), 30);
        drop(rest);
        assert_eq!(left(), 0);
    }

    #[test]
    fn a_request_that_times_out_holds_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let budget = budget(1000, false);
            let (alice, bob) = (
                budget.try_acquire("alice", 500).unwrap(),
                budget.try_acquire("bob", 400).unwrap(),
            );
            let soon = Duration::from_millis(20);
            assert!(
                budget.acquire("alice", 1, soon).await.unwrap_err().message().contains("of yours")
            );
            assert!(
                budget
                    .acquire("carol", 200, soon)
                    .await
                    .unwrap_err()
                    .message()
                    .contains("this server holds")
            );
            drop((alice, bob));
            assert_eq!(budget.all.available_permits(), 1000);
            budget.acquire("carol", 500, soon).await.unwrap();
        });
    }
}
