//! Compares two times of the same run.

use std::time::Instant;

/// A time and the time that it is compared with: medians of the repetitions, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Compared {
    /// Time of this program.
    #[serde(rename = "own")]
    pub zklora_seconds: f64,
    /// Time of the other side.
    #[serde(rename = "other")]
    pub other_seconds: f64,
    /// `zklora_seconds / other_seconds`.
    pub ratio: f64,
}

impl Compared {
    pub(crate) fn of(mut zklora: Vec<f64>, mut other: Vec<f64>) -> Compared {
        let (zklora_seconds, other_seconds) = (median(&mut zklora), median(&mut other));
        Compared { zklora_seconds, other_seconds, ratio: zklora_seconds / other_seconds }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measures some work, in seconds.
pub(crate) fn timed<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<f64, E> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}
