//! Places for connections, and who is let in.
//!
//! A connection that has shown no identity is worth nothing, and costs an attacker nothing: those
//! have a pool of their own, and when it is full the oldest of them is closed for the next one.
//! Were the next one to wait instead, as many silent connections as there are places would keep
//! everybody out, for as long as the attacker opens them anew. As it is, an attacker has to open a
//! whole pool of connections in the time that an honest user takes for a handshake and a request.
//! What has shown an identity is never closed for what has not; one identity gets half of the
//! places.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use super::{guarded::Guarded, limits::Limits, log_rate::LogRate};

static NOT_ACCEPTED: LogRate = LogRate::new();
static CLOSED: LogRate = LogRate::new();

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connections of a server.
pub(super) struct Pool {
    /// Places of those that have shown no identity.
    unknown: Arc<Semaphore>,
    /// How many of the others each identity has.
    known: Mutex<HashMap<String, usize>>,
    most: usize,
    most_each: usize,
    open: Mutex<BTreeMap<u64, Weak<Inner>>>,
    next: AtomicU64,
}

/// What is known of a connection: its stream and its requests share this.
#[derive(Clone)]
pub(super) struct Connection(Arc<Inner>);

struct Inner {
    number: u64,
    pool: Arc<Pool>,
    place: Mutex<Place>,
    known: AtomicBool,
    ended: CancellationToken,
    why: OnceLock<&'static str>,
    /// When the pieces of answers that it has not taken have to be gone.
    unread: Mutex<BTreeSet<(Instant, u64)>>,
    pieces: AtomicU64,
}

enum Place {
    Unknown(#[allow(dead_code)] OwnedSemaphorePermit),
    Known(String),
    Left,
}

impl Pool {
    /// With `alone`, there is one identity, and it may have all places.
    pub fn new(limits: &Limits, alone: bool) -> Arc<Pool> {
        let most = limits.max_connections;
        Arc::new(Pool {
            unknown: Arc::new(Semaphore::new(limits.max_unknown_connections.max(1))),
            known: Mutex::default(),
            most,
            most_each: if alone { most } else { most.div_ceil(2) },
            open: Mutex::default(),
            next: AtomicU64::new(0),
        })
    }

    /// A place for a connection that was just made; the oldest without an identity goes for it if
    /// there is none.
    async fn admit(self: &Arc<Pool>) -> Option<Connection> {
        let place = match Arc::clone(&self.unknown).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                self.end_oldest_unknown(
                    "too many connections that have shown no identity: this one was the oldest",
                );
                Arc::clone(&self.unknown).acquire_owned().await.ok()?
            }
        };
        let inner = Arc::new(Inner {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            pool: Arc::clone(self),
            place: Mutex::new(Place::Unknown(place)),
            known: AtomicBool::new(false),
            ended: CancellationToken::new(),
            why: OnceLock::new(),
            unread: Mutex::default(),
            pieces: AtomicU64::new(0),
        });
        lock(&self.open).insert(inner.number, Arc::downgrade(&inner));
        Some(Connection(inner))
    }

    fn end_oldest_unknown(&self, why: &'static str) {
        let open = self.all();
        if let Some(oldest) =
            open.iter().find(|connection| !connection.is_known() && !connection.has_ended())
        {
            oldest.end(why);
        }
    }

    /// Closes all that have shown no identity: nothing of theirs is under way.
    pub fn end_unknown(&self, why: &'static str) {
        self.all()
            .iter()
            .filter(|connection| !connection.is_known())
            .for_each(|connection| connection.end(why));
    }

    /// All that are open, the oldest first. What is dropped here must not meet the lock: these are
    /// owned.
    fn all(&self) -> Vec<Connection> {
        lock(&self.open).values().filter_map(Weak::upgrade).map(Connection).collect()
    }

    /// Ends connections that did not read their answers in time.
    fn sweep(&self, now: Instant) {
        for connection in self.all() {
            let first = lock(&connection.0.unread).first().map(|(due, _)| *due);
            if first.is_some_and(|due| due <= now) {
                connection.end("its answers were not read in time");
            }
        }
    }
}

impl Connection {
    /// Notes that it has shown an identity. From now on it has one of the places of those.
    ///
    /// # Errors
    /// `UNAVAILABLE`: there is none.
    pub fn show(&self, client: &str) -> Result<(), Status> {
        if self.is_known() {
            return Ok(());
        }
        let mut place = lock(&self.0.place);
        if !matches!(*place, Place::Unknown(_)) {
            // Another request of this moment was first, or it is being closed.
            return Ok(());
        }
        let pool = &self.0.pool;
        let mut known = lock(&pool.known);
        let own = known.get(client).copied().unwrap_or(0);
        let full = |most: usize, whose: &str| {
            Err(Status::unavailable(format!(
                "{most} connections {whose}are open, more are not taken: try again later"
            )))
        };
        if own >= pool.most_each {
            return full(pool.most_each, "of yours ");
        }
        if known.values().sum::<usize>() >= pool.most {
            return full(pool.most, "");
        }
        known.insert(client.to_string(), own + 1);
        // This gives the other place back.
        *place = Place::Known(client.to_string());
        self.0.known.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub fn is_known(&self) -> bool {
        self.0.known.load(Ordering::Relaxed)
    }

    fn has_ended(&self) -> bool {
        self.0.ended.is_cancelled()
    }

    /// Closes it: its stream fails the next time that it is looked at, which is now.
    fn end(&self, why: &'static str) {
        if self.0.why.set(why).is_ok() {
            CLOSED.info(|| format!("a connection was closed: {why}"));
        }
        self.0.ended.cancel();
    }

    pub fn ended(&self) -> WaitForCancellationFutureOwned {
        self.0.ended.clone().cancelled_owned()
    }

    pub fn why(&self) -> &'static str {
        self.0.why.get().copied().unwrap_or("the server closes it")
    }

    /// Its stream is gone: so is its place.
    pub fn leave(&self) {
        lock(&self.0.pool.open).remove(&self.0.number);
        let left = std::mem::replace(&mut *lock(&self.0.place), Place::Left);
        if let Place::Known(client) = left {
            let mut known = lock(&self.0.pool.known);
            match known.get_mut(&client) {
                Some(own) if *own > 1 => *own -= 1,
                _ => drop(known.remove(&client)),
            }
        }
    }

    /// A piece of an answer is on its way, and has to be gone after this time.
    pub fn is_due(&self, after: Duration) -> (Instant, u64) {
        let due = (Instant::now() + after, self.0.pieces.fetch_add(1, Ordering::Relaxed));
        lock(&self.0.unread).insert(due);
        due
    }

    /// It is gone.
    pub fn was_read(&self, due: (Instant, u64)) {
        lock(&self.0.unread).remove(&due);
    }
}

/// Accepts connections.
pub(super) fn accept(
    listener: TcpListener,
    pool: Arc<Pool>,
    limits: &Limits,
) -> ReceiverStream<io::Result<Guarded>> {
    let (accepted, incoming) = mpsc::channel(1);
    let (handshake, idle) = (limits.handshake, limits.idle);
    tokio::spawn(sweep(
        Arc::downgrade(&pool),
        (idle / 8).clamp(Duration::from_millis(20), Duration::from_secs(1)),
    ));
    tokio::spawn(async move {
        // Ends when the server drops the receiver.
        loop {
            let stream = tokio::select! {
                stream = listener.accept() => stream,
                () = accepted.closed() => return,
            };
            let stream = match stream {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, or a connection that was gone before it was taken: the
                    // next one may be fine.
                    NOT_ACCEPTED.warn(|| not_accepted(&error));
                    if zklora_files::is_out_of_descriptors(&error) {
                        pool.end_oldest_unknown("this process has too many files open");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            // Small answers must not wait for more.
            let _ = stream.set_nodelay(true);
            let Some(connection) = pool.admit().await else { return };
            if accepted.send(Ok(Guarded::new(stream, connection, handshake, idle))).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(incoming)
}

fn not_accepted(error: &io::Error) -> String {
    let advice = if zklora_files::is_out_of_descriptors(error) {
        ": something else in this process or on this machine holds them; raise the limit (ulimit -n)"
    } else {
        ""
    };
    format!("a connection was not accepted: {error}{advice}")
}

async fn sweep(pool: Weak<Pool>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.sweep(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn pool(most: usize, unknown: usize, alone: bool) -> Arc<Pool> {
        let limits =
            Limits { max_connections: most, max_unknown_connections: unknown, ..Limits::default() };
        Pool::new(&limits, alone)
    }

    #[test]
    fn the_oldest_without_an_identity_goes_and_none_with_one() {
        now(async {
            let pool = pool(4, 2, false);
            let (first, second) = (pool.admit().await.unwrap(), pool.admit().await.unwrap());
            first.show("alice").unwrap();
            let third = pool.admit().await.unwrap();
            // There is no place: the second is closed for the fourth, which waits until its stream
            // has gone.
            let (again, oldest) = (Arc::clone(&pool), second.clone());
            let fourth = async move { again.admit().await.unwrap() };
            let gone = async move {
                oldest.ended().await;
                oldest.leave();
            };
            let (fourth, ()) = tokio::join!(fourth, gone);
            assert!(second.has_ended() && second.why().contains("the oldest"));
            assert!(!first.has_ended() && !third.has_ended() && !fourth.has_ended());
        });
    }

    #[test]
    fn one_identity_gets_half_of_the_places_and_all_get_no_more_than_there_are() {
        now(async {
            let pool = pool(4, 8, false);
            let shown = async |client: &str| {
                let connection = pool.admit().await.unwrap();
                let shown = connection.show(client);
                shown.map(|()| connection)
            };
            let alice = [shown("alice").await.unwrap(), shown("alice").await.unwrap()];
            let why = shown("alice").await.err().unwrap();
            assert!(why.message().contains("2 connections of yours"), "{why}");
            let bob = [shown("bob").await.unwrap(), shown("bob").await.unwrap()];
            let why = shown("carol").await.err().unwrap();
            assert!(why.message().contains("4 connections are open"), "{why}");
            alice[0].leave();
            alice[0].leave();
            shown("carol").await.unwrap();
            assert!(shown("dave").await.is_err());
            // Whoever has a place keeps it, whatever names its requests have.
            bob[0].show("carol").unwrap();
        });
    }

    #[test]
    fn a_connection_that_does_not_read_is_ended_when_its_oldest_piece_is_due() {
        now(async {
            let pool = pool(4, 4, true);
            let (reads, does_not) = (pool.admit().await.unwrap(), pool.admit().await.unwrap());
            let (second, start) = (Duration::from_secs(1), Instant::now());
            let due = reads.is_due(second);
            reads.is_due(20 * second);
            does_not.is_due(second);
            reads.was_read(due);
            pool.sweep(start);
            assert!(!does_not.has_ended());
            pool.sweep(start + 10 * second);
            assert!(does_not.has_ended() && !reads.has_ended());
            assert_eq!(does_not.why(), "its answers were not read in time");
        });
    }
}
