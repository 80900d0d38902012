//! Measures wall and CPU time of this process, and describes the machine.

use std::time::{Duration, Instant};

use cpu_time::ProcessTime;

use super::figures::Cost;
use crate::Error;

/// Most runs of one measurement, and the time for them. There is at least one run.
const RUNS: usize = 5;
const BUDGET: Duration = Duration::from_secs(2);

/// The cost of `work` without that of `prepare`: the fastest of up to five runs in two seconds,
/// because other work of the machine only adds time. Also returns the last result.
pub(super) fn cost_of<P, T>(
    mut prepare: impl FnMut() -> Result<P, Error>,
    mut work: impl FnMut(P) -> Result<T, Error>,
) -> Result<(Cost, T), Error> {
    let mut least: Option<Cost> = None;
    let begin = Instant::now();
    for run in 1.. {
        let prepared = prepare()?;
        let (cost, result) = timed(prepared, &mut work)?;
        if least.is_none_or(|least| cost.seconds < least.seconds) {
            least = Some(cost);
        }
        if run >= RUNS || begin.elapsed() > BUDGET {
            return Ok((least.unwrap_or(cost), result));
        }
    }
    Err(Error::input("nothing was measured"))
}

/// The cost of one run.
pub(super) fn timed<P, T>(
    prepared: P,
    work: impl FnOnce(P) -> Result<T, Error>,
) -> Result<(Cost, T), Error> {
    let (start, cpu) = (Instant::now(), ProcessTime::try_now());
    let result = work(prepared)?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = cpu.and_then(|cpu| cpu.try_elapsed()).map_or(0.0, |time| time.as_secs_f64());
    Ok((Cost { seconds, cpu_seconds: cpu }, result))
}

/// [`cost_of`] without preparation.
pub(super) fn cost<T>(mut work: impl FnMut() -> Result<T, Error>) -> Result<(Cost, T), Error> {
    cost_of(|| Ok(()), |()| work())
}

/// Cores and model of the processor.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown processor", |(_, model)| model.trim());
    format!("{cores} cores, {model}")
}
