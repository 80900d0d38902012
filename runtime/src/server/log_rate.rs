//! Lines of the log that a stranger can cause: at most one a second, which says how many were left out.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const EVERY: Duration = Duration::from_secs(1);

/// One kind of such lines. Make it `static`.
pub(super) struct LogRate(Mutex<State>);

struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl LogRate {
    pub const fn new() -> LogRate {
        LogRate(Mutex::new(State { last: None, left_out: 0 }))
    }

    /// Whether a line may be written at this time; how many were not since the last one.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }

    /// The line, if it is time for one.
    fn line(&self, text: impl FnOnce() -> String) -> Option<String> {
        Some(match self.admit(Instant::now())? {
            0 => text(),
            left_out => format!("{} ({left_out} lines like this one were left out before)", text()),
        })
    }

    pub fn info(&self, text: impl FnOnce() -> String) {
        if let Some(line) = self.line(text) {
            tracing::info!("{line}");
        }
    }

    pub fn warn(&self, text: impl FnOnce() -> String) {
        if let Some(line) = self.line(text) {
            tracing::warn!("{line}");
        }
    }

    pub fn error(&self, text: impl FnOnce() -> String) {
        if let Some(line) = self.line(text) {
            tracing::error!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_line_a_second_and_it_counts_the_others() {
        let (rate, start) = (LogRate::new(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(rate.admit(at(0)), Some(0));
        for millis in 1..1000 {
            assert_eq!(rate.admit(at(millis)), None);
        }
        assert_eq!(rate.admit(at(1000)), Some(999));
        assert_eq!(rate.admit(at(1500)), None);
        assert_eq!(rate.admit(at(60_000)), Some(1));
        assert_eq!(rate.admit(at(61_000)), Some(0));
        let rate = LogRate::new();
        assert_eq!(rate.line(|| "full".into()).as_deref(), Some("full"));
        assert_eq!(rate.line(|| "full".into()), None);
    }
}
