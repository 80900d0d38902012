//! Rate limits for log lines that a client can cause: one a second, which says how many were left
//! out. A kind of line may have a burst before the limit holds.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const EVERY: Duration = Duration::from_secs(1);

/// The rate limit of one kind of line. Make it `static`.
pub(super) struct LogRate {
    state: Mutex<State>,
    /// Lines that may be written at once after a pause.
    burst: u64,
}

struct State {
    /// When a token was last added.
    last: Option<Instant>,
    tokens: u64,
    left_out: u64,
}

impl LogRate {
    pub const fn new() -> LogRate {
        LogRate::with_burst(1)
    }

    /// Allows this many lines at once, then one a second.
    pub const fn with_burst(burst: u64) -> LogRate {
        LogRate { state: Mutex::new(State { last: None, tokens: 0, left_out: 0 }), burst }
    }

    /// Whether a line may be written now, and how many were left out since the last one, if any.
    pub fn admit(&self) -> Option<Option<u64>> {
        self.admit_at(Instant::now()).map(|left_out| (left_out > 0).then_some(left_out))
    }

    /// Whether a line may be written at this time, and how many were left out since the last one.
    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let more = match state.last {
            None => self.burst,
            Some(last) => now.saturating_duration_since(last).as_secs() / EVERY.as_secs(),
        };
        if more > 0 {
            (state.last, state.tokens) =
                (Some(now), state.tokens.saturating_add(more).min(self.burst));
        }
        if state.tokens == 0 {
            state.left_out += 1;
            return None;
        }
        state.tokens -= 1;
        Some(std::mem::take(&mut state.left_out))
    }

    /// The line, if it may be written now.
    fn line(&self, text: impl FnOnce() -> String) -> Option<String> {
        Some(match self.admit_at(Instant::now())? {
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
        assert_eq!(rate.admit_at(at(0)), Some(0));
        for millis in 1..1000 {
            assert_eq!(rate.admit_at(at(millis)), None);
        }
        assert_eq!(rate.admit_at(at(1000)), Some(999));
        assert_eq!(rate.admit_at(at(1500)), None);
        assert_eq!(rate.admit_at(at(60_000)), Some(1));
        assert_eq!(rate.admit_at(at(61_000)), Some(0));
        let rate = LogRate::with_burst(3);
        let written = |from: u64, to: u64| {
            (from..to).filter(|millis| rate.admit_at(at(*millis)).is_some()).count()
        };
        assert_eq!(
            [written(0, 900), written(2000, 2900), written(3900, 4900), written(60_000, 60_900)],
            [3, 2, 1, 3]
        );
        let rate = LogRate::new();
        assert_eq!(rate.line(|| "full".into()).as_deref(), Some("full"));
        assert_eq!(rate.line(|| "full".into()), None);
    }
}
