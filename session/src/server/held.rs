//! How much the messages may take that a server holds for its users: so many bytes in all, so many
//! under one identity.
//!
//! Requests are counted before there is room for them ([`super::requests`]), answers until the
//! connection has taken their last byte ([`super::answers`]). A user who does not read, or who
//! begins messages and does not end them, runs into its own share.

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

/// What all together get who have shown no identity: the answers of the health service have a few
/// bytes each.
const WITHOUT_IDENTITY: usize = 1 << 20;

/// Above this many identities, those that hold nothing are forgotten.
const REMEMBERED: usize = 1024;

/// Bytes that a server may hold.
pub(super) struct Held {
    all: Arc<Semaphore>,
    each: Mutex<HashMap<String, Arc<Semaphore>>>,
    most: usize,
    most_each: usize,
}

/// Some of these bytes; they are given back when this is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

/// Whose limit was reached.
enum Full {
    Own,
    All,
}

impl Held {
    /// With `alone`, one identity is all that there is and may have everything; else it may have
    /// half.
    pub fn new(limits: &Limits, alone: bool) -> Arc<Held> {
        let most = limits.max_held_bytes.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize / 2);
        let most_each = if alone { most } else { most / 2 };
        Arc::new(Held {
            all: Arc::new(Semaphore::new(most)),
            each: Mutex::default(),
            most,
            most_each,
        })
    }

    /// The share of an identity; no name: of everybody without one.
    fn own(&self, client: &str) -> (Arc<Semaphore>, usize) {
        let most =
            if client.is_empty() { WITHOUT_IDENTITY.min(self.most_each) } else { self.most_each };
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if each.len() >= REMEMBERED {
            each.retain(|_, own| Arc::strong_count(own) > 1);
        }
        let own = each.entry(client.to_string()).or_insert_with(|| Arc::new(Semaphore::new(most)));
        (Arc::clone(own), most)
    }

    fn refused(&self, full: &Full, most: usize) -> Status {
        // Not `RESOURCE_EXHAUSTED`: that is final for a batch, and this passes.
        Status::unavailable(match full {
            Full::Own => format!(
                "requests and answers of yours that this server holds take {most} bytes, more are not taken: read the answers, or \
                 try again later"
            ),
            Full::All => {
                format!(
                    "this server holds {} bytes of messages, more are not taken: try again later",
                    self.most
                )
            }
        })
    }

    /// Takes `bytes`, if they are there.
    ///
    /// # Errors
    /// `UNAVAILABLE`: too much is held.
    pub fn try_take(&self, client: &str, bytes: usize) -> Result<Hold, Status> {
        let (own, most) = self.own(client);
        let bytes = permits(bytes, most);
        let own = own.try_acquire_many_owned(bytes).map_err(|_| self.refused(&Full::Own, most))?;
        let all = Arc::clone(&self.all).try_acquire_many_owned(bytes);
        Ok(Hold { own, all: all.map_err(|_| self.refused(&Full::All, most))? })
    }

    /// Takes `bytes`, and waits for them.
    ///
    /// # Errors
    /// `UNAVAILABLE`: they were not there in time.
    pub async fn take(
        &self,
        client: &str,
        bytes: usize,
        patience: Duration,
    ) -> Result<Hold, Status> {
        let (own, most) = self.own(client);
        let (bytes, until) = (permits(bytes, most), Instant::now() + patience);
        // No semaphore is ever closed.
        let own = match timeout_at(until, own.acquire_many_owned(bytes)).await {
            Ok(Ok(own)) => own,
            _ => return Err(self.refused(&Full::Own, most)),
        };
        match timeout_at(until, Arc::clone(&self.all).acquire_many_owned(bytes)).await {
            Ok(Ok(all)) => Ok(Hold { own, all }),
            _ => Err(self.refused(&Full::All, most)),
        }
    }
}

/// What is more than a share is taken as the whole share: it would be waited for in vain.
fn permits(bytes: usize, most: usize) -> u32 {
    u32::try_from(bytes.min(most)).unwrap_or(u32::MAX)
}

impl Hold {
    pub fn bytes(&self) -> usize {
        self.all.num_permits()
    }

    /// Takes so many of the bytes off, or all that there are.
    pub fn split(&mut self, bytes: usize) -> Option<Hold> {
        let bytes = bytes.min(self.bytes());
        Some(Hold { own: self.own.split(bytes)?, all: self.all.split(bytes)? })
    }

    /// Gives back all but so many.
    pub fn shrink(&mut self, bytes: usize) {
        drop(self.split(self.bytes().saturating_sub(bytes)));
    }

    fn merge(&mut self, other: Hold) {
        self.own.merge(other.own);
        self.all.merge(other.all);
    }
}

/// What was set aside for the answers of one stream before they were computed.
#[derive(Clone, Default)]
pub(super) struct Room(Arc<Mutex<Option<Hold>>>);

impl Room {
    pub fn put(&self, hold: Hold) {
        let mut room = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *room {
            Some(room) => room.merge(hold),
            none => *none = Some(hold),
        }
    }

    /// So many bytes, or fewer if there are not so many.
    pub fn take(&self, bytes: usize) -> Option<Hold> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.split(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn held(most: usize, alone: bool) -> Arc<Held> {
        Held::new(&Limits { max_held_bytes: most, ..Limits::default() }, alone)
    }

    #[test]
    fn one_identity_gets_half_and_all_get_no_more_than_there_is() {
        let held = held(1000, false);
        let alice = held.try_take("alice", 500).unwrap();
        let why = held.try_take("alice", 1).unwrap_err();
        assert!(
            why.message().contains("of yours") && why.code() == tonic::Code::Unavailable,
            "{why}"
        );
        let bob = held.try_take("bob", 499).unwrap();
        let why = held.try_take("carol", 2).unwrap_err();
        assert!(why.message().contains("this server holds 1000 bytes"), "{why}");
        drop((alice, held.try_take("carol", 1).unwrap()));
        // What is longer than a share takes all of it.
        let all = held.try_take("alice", usize::MAX).unwrap();
        assert!(held.try_take("alice", 1).is_err());
        drop((all, bob));
        assert_eq!(held.all.available_permits(), 1000);
        let alone = super::Held::new(&Limits { max_held_bytes: 1000, ..Limits::default() }, true);
        alone.try_take("anonymous", 1000).unwrap();
    }

    #[test]
    fn room_is_given_out_and_back_to_the_byte() {
        let (held, room) = (held(1000, true), Room::default());
        assert!(room.take(1).is_none());
        let mut first = held.try_take("a", 100).unwrap();
        first.shrink(60);
        room.put(first);
        room.put(held.try_take("a", 40).unwrap());
        let left = || 1000 - held.all.available_permits();
        assert_eq!(left(), 100);
        let (some, rest) = (room.take(70).unwrap(), room.take(70).unwrap());
        assert_eq!((some.bytes(), rest.bytes()), (70, 30));
        drop(some);
        assert_eq!(left(), 30);
        drop(rest);
        assert_eq!(left(), 0);
    }

    #[test]
    fn what_is_not_there_in_time_is_refused_and_nothing_stays_taken() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let held = held(1000, false);
            let (alice, bob) =
                (held.try_take("alice", 500).unwrap(), held.try_take("bob", 400).unwrap());
            let soon = Duration::from_millis(20);
            assert!(held.take("alice", 1, soon).await.unwrap_err().message().contains("of yours"));
            assert!(
                held.take("carol", 200, soon)
                    .await
                    .unwrap_err()
                    .message()
                    .contains("this server holds")
            );
            drop((alice, bob));
            assert_eq!(held.all.available_permits(), 1000);
            held.take("carol", 500, soon).await.unwrap();
        });
    }
}
