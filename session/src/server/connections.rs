//! The limits on connections, and which of them are closed.
//!
//! An attacker can open unidentified connections for free. So these have their own pool, and when
//! it is full, the oldest of them is closed for the next one. If the next one waited instead, as
//! many silent connections as the pool holds would keep all users out. As it is, an attacker has to
//! open a whole pool of connections in the time that an honest user takes for a handshake and a
//! request. An identified connection is never closed for an unidentified one. One client gets half
//! of the identified connections.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use super::{limits::Limits, log_rate::LogRate};

static CLOSED: LogRate = LogRate::new();

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connections of a server.
pub(super) struct ConnectionPool {
    /// Permits of unidentified connections.
    unidentified: Arc<Semaphore>,
    /// Number of identified connections, by client.
    identified: Mutex<HashMap<String, usize>>,
    max_identified: usize,
    max_per_client: usize,
    open: Mutex<BTreeMap<u64, Weak<Inner>>>,
    next_number: AtomicU64,
}

/// A connection. Its stream and its requests share it.
#[derive(Clone)]
pub(super) struct Connection(Arc<Inner>);

struct Inner {
    number: u64,
    pool: Arc<ConnectionPool>,
    slot: Mutex<Slot>,
    is_identified: AtomicBool,
    closed: CancellationToken,
    close_reason: OnceLock<&'static str>,
    /// Deadlines of the chunks of responses that were not sent yet.
    deadlines: Mutex<BTreeSet<(Instant, u64)>>,
    next_deadline: AtomicU64,
}

enum Slot {
    Unidentified(#[allow(dead_code)] OwnedSemaphorePermit),
    Identified(String),
    Released,
}

impl ConnectionPool {
    /// With `single_client`, there is one identity and it may have all connections.
    pub fn new(limits: &Limits, single_client: bool) -> Arc<ConnectionPool> {
        let max = limits.max_connections;
        Arc::new(ConnectionPool {
            unidentified: Arc::new(Semaphore::new(limits.max_unknown_connections.max(1))),
            identified: Mutex::default(),
            max_identified: max,
            max_per_client: if single_client { max } else { max.div_ceil(2) },
            open: Mutex::default(),
            next_number: AtomicU64::new(0),
        })
    }

    /// Admits a new connection. If the pool is full, the oldest unidentified connection is closed
    /// for it.
    pub async fn admit(self: &Arc<ConnectionPool>) -> Option<Connection> {
        let permit = match Arc::clone(&self.unidentified).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.close_oldest_unidentified(
                    "too many unidentified connections: this one was the oldest",
                );
                Arc::clone(&self.unidentified).acquire_owned().await.ok()?
            }
        };
        let inner = Arc::new(Inner {
            number: self.next_number.fetch_add(1, Ordering::Relaxed),
            pool: Arc::clone(self),
            slot: Mutex::new(Slot::Unidentified(permit)),
            is_identified: AtomicBool::new(false),
            closed: CancellationToken::new(),
            close_reason: OnceLock::new(),
            deadlines: Mutex::default(),
            next_deadline: AtomicU64::new(0),
        });
        lock(&self.open).insert(inner.number, Arc::downgrade(&inner));
        Some(Connection(inner))
    }

    pub fn close_oldest_unidentified(&self, why: &'static str) {
        let open = self.all();
        if let Some(oldest) =
            open.iter().find(|connection| !connection.is_identified() && !connection.is_closed())
        {
            oldest.close(why);
        }
    }

    /// Closes all unidentified connections: they have no requests under way.
    pub fn close_unidentified(&self, why: &'static str) {
        self.all()
            .iter()
            .filter(|connection| !connection.is_identified())
            .for_each(|connection| connection.close(why));
    }

    /// All open connections, the oldest first. They are cloned out of the lock, because dropping
    /// the last handle of a connection takes it.
    fn all(&self) -> Vec<Connection> {
        lock(&self.open).values().filter_map(Weak::upgrade).map(Connection).collect()
    }

    /// Closes connections that did not read their responses in time.
    pub fn close_slow_readers(&self, now: Instant) {
        for connection in self.all() {
            let first = lock(&connection.0.deadlines).first().map(|(deadline, _)| *deadline);
            if first.is_some_and(|deadline| deadline <= now) {
                connection.close("its answers were not read in time");
            }
        }
    }
}

impl Connection {
    /// Counts the connection as one of this client. A connection keeps its first client.
    ///
    /// # Errors
    /// `UNAVAILABLE`: the client, or the server, has too many.
    pub fn identify(&self, client: &str) -> Result<(), Status> {
        if self.is_identified() {
            return Ok(());
        }
        let mut slot = lock(&self.0.slot);
        if !matches!(*slot, Slot::Unidentified(_)) {
            // A concurrent request was first, or the connection is being closed.
            return Ok(());
        }
        let pool = &self.0.pool;
        let mut identified = lock(&pool.identified);
        let open = identified.get(client).copied().unwrap_or(0);
        let full = |max: usize, whose: &str| {
            Err(Status::unavailable(format!(
                "{max} connections {whose}are open, which is the limit: try again later"
            )))
        };
        if open >= pool.max_per_client {
            return full(pool.max_per_client, "of yours ");
        }
        if identified.values().sum::<usize>() >= pool.max_identified {
            return full(pool.max_identified, "");
        }
        identified.insert(client.to_string(), open + 1);
        // This drops the permit of an unidentified connection.
        *slot = Slot::Identified(client.to_string());
        self.0.is_identified.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub fn is_identified(&self) -> bool {
        self.0.is_identified.load(Ordering::Relaxed)
    }

    fn is_closed(&self) -> bool {
        self.0.closed.is_cancelled()
    }

    /// Closes the connection. This wakes its stream, which then fails.
    fn close(&self, why: &'static str) {
        if self.0.close_reason.set(why).is_ok() {
            CLOSED.info(|| format!("a connection was closed: {why}"));
        }
        self.0.closed.cancel();
    }

    pub fn closed(&self) -> WaitForCancellationFutureOwned {
        self.0.closed.clone().cancelled_owned()
    }

    pub fn close_reason(&self) -> &'static str {
        self.0.close_reason.get().copied().unwrap_or("the server closes it")
    }

    /// Gives back the slot of a connection whose stream is gone.
    pub fn release(&self) {
        lock(&self.0.pool.open).remove(&self.0.number);
        let slot = std::mem::replace(&mut *lock(&self.0.slot), Slot::Released);
        if let Slot::Identified(client) = slot {
            let mut identified = lock(&self.0.pool.identified);
            match identified.get_mut(&client) {
                Some(open) if *open > 1 => *open -= 1,
                _ => drop(identified.remove(&client)),
            }
        }
    }

    /// A chunk of a response was queued, and has to be sent within this time.
    pub fn add_deadline(&self, after: Duration) -> (Instant, u64) {
        let number = self.0.next_deadline.fetch_add(1, Ordering::Relaxed);
        let deadline = (Instant::now() + after, number);
        lock(&self.0.deadlines).insert(deadline);
        deadline
    }

    /// The chunk was sent.
    pub fn remove_deadline(&self, deadline: (Instant, u64)) {
        lock(&self.0.deadlines).remove(&deadline);
    }
}
#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn pool(most: usize, unidentified: usize, single_client: bool) -> Arc<ConnectionPool> {
        let limits = Limits {
            max_connections: most,
            max_unknown_connections: unidentified,
            ..Limits::default()
        };
        ConnectionPool::new(&limits, single_client)
    }

    #[test]
    fn the_oldest_unidentified_connection_is_closed_and_no_identified_one() {
        now(async {
            let pool = pool(4, 2, false);
            let (first, second) = (pool.admit().await.unwrap(), pool.admit().await.unwrap());
            first.identify("alice").unwrap();
            let third = pool.admit().await.unwrap();
            // The pool is full: the second is closed for the fourth, which waits until its stream
            // is gone.
            let (again, oldest) = (Arc::clone(&pool), second.clone());
            let fourth = async move { again.admit().await.unwrap() };
            let gone = async move {
                oldest.closed().await;
                oldest.release();
            };
            let (fourth, ()) = tokio::join!(fourth, gone);
            assert!(second.is_closed() && second.close_reason().contains("the oldest"));
            assert!(!first.is_closed() && !third.is_closed() && !fourth.is_closed());
        });
    }

    #[test]
    fn one_client_gets_half_of_the_connections_and_all_get_no_more_than_the_limit() {
        now(async {
            let pool = pool(4, 8, false);
            let identified = async |client: &str| {
                let connection = pool.admit().await.unwrap();
                let result = connection.identify(client);
                result.map(|()| connection)
            };
            let alice = [identified("alice").await.unwrap(), identified("alice").await.unwrap()];
            let why = identified("alice").await.err().unwrap();
            assert!(why.message().contains("2 connections of yours"), "{why}");
            let bob = [identified("bob").await.unwrap(), identified("bob").await.unwrap()];
            let why = identified("carol").await.err().unwrap();
            assert!(why.message().contains("4 connections are open"), "{why}");
            alice[0].release();
            alice[0].release();
            identified("carol").await.unwrap();
            assert!(identified("dave").await.is_err());
            // An identified connection keeps its client, whatever later requests are named.
            bob[0].identify("carol").unwrap();
        });
    }

    #[test]
    fn a_connection_that_does_not_read_is_closed_at_its_first_deadline() {
        now(async {
            let pool = pool(4, 4, true);
            let (reads, does_not) = (pool.admit().await.unwrap(), pool.admit().await.unwrap());
            let (second, start) = (Duration::from_secs(1), Instant::now());
            let deadline = reads.add_deadline(second);
            reads.add_deadline(20 * second);
            does_not.add_deadline(second);
            reads.remove_deadline(deadline);
            pool.close_slow_readers(start);
            assert!(!does_not.is_closed());
            pool.close_slow_readers(start + 10 * second);
            assert!(does_not.is_closed() && !reads.is_closed());
            assert_eq!(does_not.close_reason(), "its answers were not read in time");
        });
    }
}
