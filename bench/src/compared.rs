//! A time beside another time of the same run.

use std::time::Instant;

/// A time and what it is compared with; medians of the repetitions, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Compared {
    /// Of this program.
    pub own: f64,
    /// Of what it is compared with.
    pub other: f64,
    /// own / other.
    pub ratio: f64,
}

impl Compared {
    pub(crate) fn of(mut own: Vec<f64>, mut other: Vec<f64>) -> Compared {
        let (own, other) = (median(&mut own), median(&mut other));
        Compared { own, other, ratio: own / other }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Seconds that some work takes.
pub(crate) fn timed<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<f64, E> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}
