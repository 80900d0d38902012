//! Replaces a layer's output by the base model's own output plus the deltas of every contributor
//! that has the layer.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use zklora_artifacts::module_rows::ModuleRows;
use zklora_models::language_model::{Activations, InjectionCall, Injector};
use zklora_session::client::{CallFigures, UserSession};

use super::injection_points::{InputSource, Point, one_hot};
use crate::Error;

/// How deltas change the base layer's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// base + delta: the adapted model.
    AddDelta,
    /// The delta alone: the default of the original ZKLoRA.
    Replace,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mode::AddDelta => "add-delta",
            Mode::Replace => "replace",
        })
    }
}

/// Sums of squares at a point, over all rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Norms {
    pub rows: usize,
    pub base: f64,
    pub delta: f64,
}

/// A contributor's session, and its first error, if it failed.
pub(crate) struct Contributor {
    pub session: UserSession,
    pub failure: Option<Error>,
}

/// The injector of the user's model.
pub struct DeltaInjector {
    mode: Mode,
    points: Vec<Point>,
    contributors: Vec<Mutex<Contributor>>,
    /// If off, the base model runs alone.
    on: AtomicBool,
    norms: Mutex<Vec<Norms>>,
}

/// The rows of one contributor's module in one call.
struct Job {
    /// Index of the point in the call.
    at: usize,
    contributor: usize,
    module: usize,
    rows: Arc<ModuleRows>,
}

impl DeltaInjector {
    pub(crate) fn new(mode: Mode, points: Vec<Point>, sessions: Vec<UserSession>) -> DeltaInjector {
        let contributors = sessions
            .into_iter()
            .map(|session| Mutex::new(Contributor { session, failure: None }))
            .collect();
        let norms = Mutex::new(vec![Norms::default(); points.len()]);
        DeltaInjector { mode, points, contributors, on: AtomicBool::new(true), norms }
    }

    /// Turns deltas on or off.
    pub(crate) fn turn(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    pub(crate) fn points(&self) -> &[Point] {
        &self.points
    }

    pub(crate) fn norms(&self) -> Vec<Norms> {
        self.norms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes of activations sent and of deltas received so far, by all contributors.
    pub fn traffic(&self) -> (u64, u64) {
        (0..self.contributors.len()).fold((0, 0), |(sent, received), contributor| {
            let entry = self.contributor(contributor);
            (sent + entry.session.statistics.sent, received + entry.session.statistics.received)
        })
    }

    /// The latest calls of all contributors.
    pub fn calls(&self) -> Vec<CallFigures> {
        let mut all = Vec::new();
        for contributor in 0..self.contributors.len() {
            all.extend(&self.contributor(contributor).session.statistics.latest);
        }
        all
    }

    pub(crate) fn contributor_count(&self) -> usize {
        self.contributors.len()
    }

    pub(crate) fn contributor(&self, contributor: usize) -> MutexGuard<'_, Contributor> {
        self.contributors[contributor].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The quantised rows of every module of the call. Modules that get the same integers share
    /// them.
    fn jobs(&self, call: &InjectionCall<'_>) -> Result<Vec<Job>, Error> {
        let one_hot = one_hot(call, self.layer_dim(call));
        let x: &[f32] = match call.x {
            Activations::Dense { values, .. } => values,
            Activations::Ids(_) => &one_hot,
        };
        // The rows are the same for every contributor, so the key does not name one.
        let mut shared: Vec<((u32, bool), Arc<ModuleRows>)> = Vec::new();
        let mut jobs = Vec::new();
        for (at, point) in call.points.iter().enumerate() {
            for point_module in &self.points[*point].modules {
                let entry = self.contributor(point_module.contributor);
                let module = &entry.session.remote().manifest.modules()[point_module.module];
                let only_x = point_module.inputs == [InputSource::LayerInput];
                let key = (module.x_bits, module.has_bias());
                let known = shared.iter().find(|(other, _)| only_x && *other == key);
                let rows = match known {
                    Some((_, rows)) => Arc::clone(rows),
                    None => {
                        let inputs = point_module.inputs.iter().map(|source| match source {
                            InputSource::LayerInput => x,
                            InputSource::LayerOutput => call.base[at],
                        });
                        let rows = Arc::new(zklora_artifacts::module_quantizer::quantized(
                            module,
                            &inputs.collect::<Vec<_>>(),
                        )?);
                        if only_x {
                            shared.push((key, Arc::clone(&rows)));
                        }
                        rows
                    }
                };
                jobs.push(Job {
                    at,
                    contributor: point_module.contributor,
                    module: point_module.module,
                    rows,
                });
            }
        }
        Ok(jobs)
    }

    fn layer_dim(&self, call: &InjectionCall<'_>) -> usize {
        call.points.iter().find_map(|point| self.points[*point].injection.x_dim).unwrap_or(0)
    }

    /// Asks all contributors at the same time. An error is stored with its contributor and does not
    /// stop the others.
    fn ask(&self, jobs: &[Job]) -> Vec<Option<Vec<Vec<i64>>>> {
        let of = |contributor: usize| -> Vec<(usize, Arc<ModuleRows>)> {
            let mine = jobs.iter().filter(|job| job.contributor == contributor);
            mine.map(|job| (job.module, Arc::clone(&job.rows))).collect()
        };
        let ask = |contributor: usize| {
            let calls = of(contributor);
            if calls.is_empty() {
                return Some(Vec::new());
            }
            let mut entry = self.contributor(contributor);
            if entry.failure.is_some() {
                return None;
            }
            match entry.session.deltas(&calls) {
                Ok(deltas) => Some(deltas),
                Err(error) => {
                    entry.failure = Some(error.into());
                    None
                }
            }
        };
        match self.contributors.len() {
            1 => vec![ask(0)],
            several => std::thread::scope(|scope| {
                let asking: Vec<_> =
                    (0..several).map(|contributor| scope.spawn(move || ask(contributor))).collect();
                asking.into_iter().map(|thread| thread.join().unwrap_or(None)).collect()
            }),
        }
    }
}

impl Injector for DeltaInjector {
    fn inject(
        &self,
        call: &InjectionCall<'_>,
    ) -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error + Send + Sync>> {
        if !self.on.load(Ordering::Relaxed) {
            return Ok(call.base.iter().map(|base| base.to_vec()).collect());
        }
        let jobs = self.jobs(call)?;
        let mut sums: Vec<Vec<f64>> = call.base.iter().map(|base| vec![0.0; base.len()]).collect();
        for (contributor, deltas) in self.ask(&jobs).into_iter().enumerate() {
            // Its error is stored with the session. The pass ends, because the output would miss
            // the contributor's deltas.
            let Some(deltas) = deltas else { return Err(Box::new(Stopped { contributor })) };
            let entry = self.contributor(contributor);
            let answered = jobs.iter().filter(|job| job.contributor == contributor);
            for (job, delta) in answered.zip(deltas) {
                let module = &entry.session.remote().manifest.modules()[job.module];
                let scale = module.output_scale();
                let rows = delta.chunks_exact(module.d_out).zip(&job.rows.scales);
                for ((delta, row_scale), sum) in
                    rows.zip(sums[job.at].chunks_exact_mut(module.d_out))
                {
                    let scale = scale * f64::from(*row_scale);
                    sum.iter_mut()
                        .zip(delta)
                        .for_each(|(sum, delta)| *sum += *delta as f64 * scale);
                }
            }
        }
        let mut norms = self.norms.lock().unwrap_or_else(PoisonError::into_inner);
        let adapted = call.points.iter().zip(&call.base).zip(&sums).map(|((point, base), sum)| {
            let norms = &mut norms[*point];
            norms.rows += call.rows;
            norms.base += base.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
            norms.delta += sum.iter().map(|v| v * v).sum::<f64>();
            match self.mode {
                Mode::AddDelta => base
                    .iter()
                    .zip(sum)
                    .map(|(base, delta)| (f64::from(*base) + delta) as f32)
                    .collect(),
                Mode::Replace => sum.iter().map(|delta| *delta as f32).collect(),
            }
        });
        Ok(adapted.collect())
    }
}

/// A contributor failed. The error is stored with its session.
#[derive(Debug, thiserror::Error)]
#[error("contributor {contributor} failed")]
struct Stopped {
    contributor: usize,
}
