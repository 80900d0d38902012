//! A cache of the latest deltas. Older ones are read from the log.

use std::collections::BTreeMap;

/// Most bytes of deltas in the cache.
const MAX_BYTES: usize = 64 << 20;

/// Answers by the offset of their deltas in the log, and so in the order in which they arrived.
/// Generating text asks for all earlier rows again, and each row that is not in the cache is read
/// from the file. So rows that are read do not evict others.
#[derive(Debug, Default)]
pub(super) struct DeltaCache {
    answers: BTreeMap<u64, Vec<i64>>,
    bytes: usize,
}

impl DeltaCache {
    /// Adds an answer of a module, and evicts the oldest ones.
    pub fn push(&mut self, offset: u64, deltas: Vec<i64>) {
        self.bytes += deltas.len() * 8;
        self.answers.insert(offset, deltas);
        while self.bytes > MAX_BYTES {
            let Some((_, oldest)) = self.answers.pop_first() else { return };
            self.bytes -= oldest.len() * 8;
        }
    }

    /// This many deltas from an offset on, if they are in the cache.
    pub fn get(&self, offset: u64, deltas: usize) -> Option<&[i64]> {
        let (first, answer) = self.answers.range(..=offset).next_back()?;
        let at = usize::try_from((offset - first) / 8).ok()?;
        answer.get(at..at.checked_add(deltas)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_the_latest_answers_within_its_bound() {
        let mut cache = DeltaCache::default();
        for at in 0..100 {
            cache.push(at * MAX_BYTES as u64, vec![at as i64; MAX_BYTES / 8 / 10]);
            assert!(cache.bytes <= MAX_BYTES);
        }
        assert_eq!(cache.answers.len(), 10);
        let get = |at: u64| cache.get(at * MAX_BYTES as u64, 1);
        assert_eq!((get(89), get(90)), (None, Some(&[90i64][..])));
        cache.push(100 * MAX_BYTES as u64, vec![0; MAX_BYTES / 8 + 1]);
        assert!(cache.answers.is_empty() && cache.bytes == 0);
    }

    #[test]
    fn deltas_within_an_answer_are_found_and_none_beyond_it() {
        let mut cache = DeltaCache::default();
        cache.push(100, vec![1, 2, 3]);
        cache.push(200, vec![4]);
        assert_eq!(cache.get(108, 2), Some(&[2i64, 3][..]));
        assert_eq!((cache.get(108, 3), cache.get(124, 1), cache.get(92, 1)), (None, None, None));
        assert_eq!(cache.get(200, 1), Some(&[4i64][..]));
    }
}
