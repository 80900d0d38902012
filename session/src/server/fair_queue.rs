//! A queue that takes one job of each client in turn, so that no client waits for all jobs of
//! another.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

/// What the queue has to know of a job.
pub(super) trait Schedulable {
    /// Whose job it is.
    fn client(&self) -> &str;
    /// The job does not start before this.
    fn not_before(&self) -> Instant;
}

/// Jobs by client. The first client is the next one.
pub(super) struct FairQueue<J> {
    waiting: VecDeque<(String, VecDeque<J>)>,
    /// Slots of jobs that are about to be queued.
    reserved: HashMap<String, usize>,
}

impl<J> Default for FairQueue<J> {
    fn default() -> FairQueue<J> {
        FairQueue { waiting: VecDeque::new(), reserved: HashMap::new() }
    }
}

impl<J: Schedulable> FairQueue<J> {
    /// Queues a job behind the others of its client.
    pub fn push(&mut self, job: J) {
        match self.waiting.iter_mut().find(|(client, _)| client == job.client()) {
            Some((_, jobs)) => jobs.push_back(job),
            None => self.waiting.push_back((job.client().to_string(), VecDeque::from([job]))),
        }
    }

    /// The next job that may start. Its client goes behind all others.
    pub fn next(&mut self, now: Instant) -> Option<J> {
        let due = |jobs: &VecDeque<J>| jobs.iter().position(|job| job.not_before() <= now);
        let (turn, place) = self
            .waiting
            .iter()
            .enumerate()
            .find_map(|(turn, (_, jobs))| Some((turn, due(jobs)?)))?;
        let (client, mut jobs) = self.waiting.remove(turn)?;
        let job = jobs.remove(place);
        if !jobs.is_empty() {
            self.waiting.push_back((client, jobs));
        }
        job
    }

    /// When the first job may start.
    pub fn earliest_start(&self) -> Option<Instant> {
        self.waiting.iter().flat_map(|(_, jobs)| jobs).map(Schedulable::not_before).min()
    }

    /// Jobs that come before the first one of this client that `is` it.
    pub fn ahead(&self, client: &str, is: impl Fn(&J) -> bool) -> usize {
        let Some(turn) = self.waiting.iter().position(|(other, _)| other == client) else {
            return 0;
        };
        let place = self.waiting[turn].1.iter().position(is).unwrap_or(0);
        let others = self.waiting.iter().enumerate().filter(|(other, _)| *other != turn);
        // Clients before this one in the round get one more turn.
        let turns =
            others.map(|(other, (_, jobs))| jobs.len().min(place + usize::from(other < turn)));
        turns.sum::<usize>() + place
    }

    /// Jobs of all clients.
    pub fn len(&self) -> usize {
        self.waiting.iter().map(|(_, jobs)| jobs.len()).sum()
    }

    /// Jobs and reserved slots of this client.
    pub fn len_of(&self, client: &str) -> usize {
        let queued = self
            .waiting
            .iter()
            .find(|(other, _)| other == client)
            .map_or(0, |(_, jobs)| jobs.len());
        queued + self.reserved.get(client).copied().unwrap_or(0)
    }

    /// Reserves a slot.
    pub fn reserve(&mut self, client: &str) {
        *self.reserved.entry(client.to_string()).or_default() += 1;
    }

    /// Releases a slot: the job is queued, or will not be.
    pub fn release(&mut self, client: &str) {
        match self.reserved.get_mut(client) {
            Some(slots) if *slots > 1 => *slots -= 1,
            _ => drop(self.reserved.remove(client)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    struct Job(&'static str, u32, Instant);

    impl Schedulable for Job {
        fn client(&self) -> &str {
            self.0
        }
        fn not_before(&self) -> Instant {
            self.2
        }
    }

    #[test]
    fn every_client_gets_its_turn_and_the_number_of_jobs_ahead_is_exact() {
        let now = Instant::now();
        let mut queue = FairQueue::default();
        (0..4).for_each(|number| queue.push(Job("mallory", number, now)));
        (0..2).for_each(|number| queue.push(Job("alice", number, now)));
        queue.push(Job("bob", 0, now));
        let all = ["mallory", "alice", "bob", "mallory", "alice", "mallory", "mallory"];
        let numbers = [0, 0, 0, 1, 1, 2, 3];
        for (ahead, (client, number)) in all.iter().zip(numbers).enumerate() {
            assert_eq!(queue.ahead(client, |job| job.1 == number), ahead, "{client} {number}");
        }
        assert_eq!((queue.len(), queue.len_of("mallory"), queue.len_of("carol")), (7, 4, 0));
        for (client, number) in all.iter().zip(numbers) {
            let job = queue.next(now).unwrap();
            assert_eq!((job.0, job.1), (*client, number));
        }
        assert!(queue.next(now).is_none() && queue.earliest_start().is_none());
    }

    #[test]
    fn a_delayed_job_does_not_delay_others() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        let mut queue = FairQueue::default();
        for job in [Job("alice", 0, later), Job("alice", 1, now), Job("bob", 0, later)] {
            queue.push(job);
        }
        assert_eq!(queue.next(now).unwrap().1, 1);
        assert!(queue.next(now).is_none());
        assert_eq!((queue.earliest_start(), queue.next(later).unwrap().0), (Some(later), "bob"));
    }

    #[test]
    fn a_reserved_slot_counts_until_it_is_released() {
        let mut queue: FairQueue<Job> = FairQueue::default();
        queue.reserve("alice");
        queue.reserve("alice");
        assert_eq!(queue.len_of("alice"), 2);
        queue.release("alice");
        queue.release("alice");
        queue.release("alice");
        assert_eq!((queue.len_of("alice"), queue.reserved.len()), (0, 0));
    }
}
