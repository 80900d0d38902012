//! Who waits for a proof, and who is next: one session of each identity in turn, so that nobody
//! waits for all sessions of another.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

/// What the queue has to know of a job.
pub(super) trait Waits {
    /// Whose it is.
    fn client(&self) -> &str;
    /// Its turn does not come before this.
    fn not_before(&self) -> Instant;
}

/// Jobs, by identity. The identity whose turn comes next is the first.
pub(super) struct Turns<J> {
    waiting: VecDeque<(String, VecDeque<J>)>,
    /// Places that were promised to sessions that are about to end.
    promised: HashMap<String, usize>,
}

impl<J> Default for Turns<J> {
    fn default() -> Turns<J> {
        Turns { waiting: VecDeque::new(), promised: HashMap::new() }
    }
}

impl<J: Waits> Turns<J> {
    /// Puts a job behind the others of its identity.
    pub fn push(&mut self, job: J) {
        match self.waiting.iter_mut().find(|(client, _)| client == job.client()) {
            Some((_, own)) => own.push_back(job),
            None => self.waiting.push_back((job.client().to_string(), VecDeque::from([job]))),
        }
    }

    /// The next job whose time has come. Its identity goes behind all others.
    pub fn next(&mut self, now: Instant) -> Option<J> {
        let due = |own: &VecDeque<J>| own.iter().position(|job| job.not_before() <= now);
        let (turn, place) =
            self.waiting.iter().enumerate().find_map(|(turn, (_, own))| Some((turn, due(own)?)))?;
        let (client, mut own) = self.waiting.remove(turn)?;
        let job = own.remove(place);
        if !own.is_empty() {
            self.waiting.push_back((client, own));
        }
        job
    }

    /// When the first job may begin.
    pub fn soonest(&self) -> Option<Instant> {
        self.waiting.iter().flat_map(|(_, own)| own).map(Waits::not_before).min()
    }

    /// Jobs that come before the first one of this client that `is` it.
    pub fn ahead(&self, client: &str, is: impl Fn(&J) -> bool) -> usize {
        let Some(turn) = self.waiting.iter().position(|(other, _)| other == client) else {
            return 0;
        };
        let place = self.waiting[turn].1.iter().position(is).unwrap_or(0);
        let others = self.waiting.iter().enumerate().filter(|(other, _)| *other != turn);
        // Those before it in the round get one more turn.
        let turns =
            others.map(|(other, (_, jobs))| jobs.len().min(place + usize::from(other < turn)));
        turns.sum::<usize>() + place
    }

    /// Jobs of all.
    pub fn len(&self) -> usize {
        self.waiting.iter().map(|(_, own)| own.len()).sum()
    }

    /// Jobs of this client, and places that were promised to it.
    pub fn of(&self, client: &str) -> usize {
        let own =
            self.waiting.iter().find(|(other, _)| other == client).map_or(0, |(_, own)| own.len());
        own + self.promised.get(client).copied().unwrap_or(0)
    }

    /// Promises a place.
    pub fn promise(&mut self, client: &str) {
        *self.promised.entry(client.to_string()).or_default() += 1;
    }

    /// It was taken, or is not needed.
    pub fn redeem(&mut self, client: &str) {
        match self.promised.get_mut(client) {
            Some(places) if *places > 1 => *places -= 1,
            _ => drop(self.promised.remove(client)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    struct Job(&'static str, u32, Instant);

    impl Waits for Job {
        fn client(&self) -> &str {
            self.0
        }
        fn not_before(&self) -> Instant {
            self.2
        }
    }

    #[test]
    fn every_identity_gets_its_turn_and_is_told_how_many_come_before() {
        let now = Instant::now();
        let mut queue = Turns::default();
        (0..4).for_each(|number| queue.push(Job("mallory", number, now)));
        (0..2).for_each(|number| queue.push(Job("alice", number, now)));
        queue.push(Job("bob", 0, now));
        let all = ["mallory", "alice", "bob", "mallory", "alice", "mallory", "mallory"];
        let numbers = [0, 0, 0, 1, 1, 2, 3];
        for (ahead, (client, number)) in all.iter().zip(numbers).enumerate() {
            assert_eq!(queue.ahead(client, |job| job.1 == number), ahead, "{client} {number}");
        }
        assert_eq!((queue.len(), queue.of("mallory"), queue.of("carol")), (7, 4, 0));
        for (client, number) in all.iter().zip(numbers) {
            let job = queue.next(now).unwrap();
            assert_eq!((job.0, job.1), (*client, number));
        }
        assert!(queue.next(now).is_none() && queue.soonest().is_none());
    }

    #[test]
    fn who_has_to_wait_keeps_nobody_waiting() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        let mut queue = Turns::default();
        for job in [Job("alice", 0, later), Job("alice", 1, now), Job("bob", 0, later)] {
            queue.push(job);
        }
        assert_eq!(queue.next(now).unwrap().1, 1);
        assert!(queue.next(now).is_none());
        assert_eq!((queue.soonest(), queue.next(later).unwrap().0), (Some(later), "bob"));
    }

    #[test]
    fn a_promised_place_counts_until_it_is_redeemed() {
        let mut queue: Turns<Job> = Turns::default();
        queue.promise("alice");
        queue.promise("alice");
        assert_eq!(queue.of("alice"), 2);
        queue.redeem("alice");
        queue.redeem("alice");
        queue.redeem("alice");
        assert_eq!((queue.of("alice"), queue.promised.len()), (0, 0));
    }
}
