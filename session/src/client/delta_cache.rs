//! A cache of the latest deltas. Older ones are read from the log.

use std::collections::{HashMap, VecDeque};

/// Most bytes of deltas in the cache.
const MAX_BYTES: usize = 64 << 20;

/// An answer: its module, and its number among the answers of the module.
type Key = (usize, usize);

/// Answers in the order in which they arrived. Generating text asks for all earlier rows again, and
/// each row that is not in the cache is read from the file. So rows that are read do not evict
/// others.
#[derive(Debug, Default)]
pub(super) struct DeltaCache {
    answers: HashMap<Key, Vec<i64>>,
    order: VecDeque<Key>,
    bytes: usize,
}

impl DeltaCache {
    /// Adds an answer, and evicts the oldest ones.
    pub fn push(&mut self, key: Key, deltas: Vec<i64>) {
        self.bytes += deltas.len() * 8;
        self.answers.insert(key, deltas);
        self.order.push_back(key);
        while self.bytes > MAX_BYTES {
            let Some(oldest) = self.order.pop_front() else { return };
            self.bytes -= self.answers.remove(&oldest).map_or(0, |deltas| deltas.len() * 8);
        }
    }

    /// The deltas of an answer, if they are in the cache.
    pub fn get(&self, key: Key) -> Option<&[i64]> {
        self.answers.get(&key).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_the_latest_answers_within_its_bound() {
        let mut cache = DeltaCache::default();
        for at in 0..100 {
            cache.push((0, at), vec![at as i64; MAX_BYTES / 8 / 10]);
            assert!(cache.bytes <= MAX_BYTES);
        }
        assert_eq!(cache.answers.len(), 10);
        assert!(
            cache.get((0, 89)).is_none()
                && cache.get((0, 90)).is_some_and(|deltas| deltas[0] == 90)
        );
        cache.push((1, 0), vec![0; MAX_BYTES / 8 + 1]);
        assert!(cache.answers.is_empty() && cache.order.is_empty() && cache.bytes == 0);
    }
}
