//! Replaces a layer's output while a leak is measured: by the base model's own output, plus the
//! deltas of the adapter or of a fit. Nothing leaves the process, so no ledger counts the rows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;
use zklora_models::language_model::{Activations, InjectionCall, Injector};
use zklora_session::adapter::ServedAdapter;

use super::{
    equations::{EquationShape, SeenTokens},
    fit::{Equations, Fit, squares},
};
use crate::{
    Error,
    infer::{InputSource, Point, PointModule, one_hot},
};

/// Which deltas are added, and what is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pass {
    /// None: the base model alone.
    Base,
    /// The adapter's, as they would be served. Rows and deltas are recorded.
    Watched,
    /// The adapter's. The distances of the fits from so many rows are recorded.
    Compared(Vec<usize>),
    /// Those of the fits from so many rows.
    Stolen(usize),
}

/// How far the fits of a module are from its deltas.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Distance {
    /// ‖D‖²
    pub deltas: f64,
    /// ‖D_stolen − D‖², for each number of rows.
    pub errors: Vec<f64>,
}

impl Distance {
    fn add(&mut self, more: &Distance) {
        self.deltas += more.deltas;
        self.errors.resize(more.errors.len(), 0.0);
        self.errors.iter_mut().zip(&more.errors).for_each(|(error, more)| *error += more);
    }
}

/// The injector.
pub(super) struct Probe {
    artifacts: Arc<ServedAdapter>,
    points: Vec<Point>,
    seen: SeenTokens,
    state: Mutex<State>,
}

struct State {
    pass: Arc<Pass>,
    /// The recorded equations, by module.
    rows: Vec<Vec<Equations>>,
    /// The recorded distances, by module.
    distances: Vec<Distance>,
    fits: Arc<Vec<Fit>>,
}

/// One module in one call.
struct Job<'a> {
    /// Index of the point in the call.
    at: usize,
    module: usize,
    inputs: Vec<&'a [f32]>,
    of_tokens: Vec<bool>,
}

/// The result of a job.
struct Done {
    deltas: Vec<f64>,
    rows: Option<Equations>,
    distance: Option<Distance>,
}

impl Probe {
    /// `tokens` are those whose rows the attacker sees. About other entries of an embedding nothing
    /// is known.
    pub fn new(artifacts: Arc<ServedAdapter>, points: Vec<Point>, tokens: &[u32]) -> Probe {
        let mut seen = SeenTokens::new();
        for token in tokens {
            let next = seen.len();
            seen.entry(*token as usize).or_insert(next);
        }
        let modules = artifacts.manifest.modules().len();
        let state = State {
            pass: Arc::new(Pass::Base),
            rows: (0..modules).map(|_| Vec::new()).collect(),
            distances: vec![Distance::default(); modules],
            fits: Arc::new(Vec::new()),
        };
        Probe { artifacts, points, seen, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what the next passes do.
    pub fn turn(&self, pass: Pass) {
        self.state().pass = Arc::new(pass);
    }

    /// Fits every module to the recorded rows, and drops the rows.
    pub fn fit(&self) {
        let rows: Vec<Vec<Equations>> = self.state().rows.iter_mut().map(std::mem::take).collect();
        let modules = self.artifacts.manifest.modules();
        let fit = |(rows, d_out): (Vec<Equations>, usize)| {
            Equations::joined(&rows).map_or_else(|| Fit::of_nothing(d_out), |rows| Fit::of(&rows))
        };
        let fits = rows
            .into_par_iter()
            .zip(modules)
            .map(|(rows, module)| fit((rows, module.d_out)))
            .collect();
        self.state().fits = Arc::new(fits);
    }

    /// The recorded distances of each module, in the order of the manifest.
    pub fn distances(&self) -> Vec<Distance> {
        self.state().distances.clone()
    }

    fn jobs<'a>(&self, call: &'a InjectionCall<'_>, one_hot: &'a [f32]) -> Vec<Job<'a>> {
        let (x, tokens): (&[f32], bool) = match call.x {
            Activations::Dense { values, .. } => (values, false),
            Activations::Ids(_) => (one_hot, true),
        };
        let modules = call.points.iter().enumerate().flat_map(|(at, point)| {
            self.points[*point].modules.iter().map(move |module| (at, module))
        });
        let job = |(at, module): (usize, &PointModule)| Job {
            at,
            module: module.module,
            inputs: module
                .inputs
                .iter()
                .map(|source| if *source == InputSource::LayerInput { x } else { call.base[at] })
                .collect(),
            of_tokens: module
                .inputs
                .iter()
                .map(|source| tokens && *source == InputSource::LayerInput)
                .collect(),
        };
        modules.map(job).collect()
    }

    /// The deltas of a module in real numbers, row by row.
    fn answer(&self, job: &Job<'_>, pass: &Pass, fits: &[Fit]) -> Result<Done, Error> {
        let module = &self.artifacts.manifest.modules()[job.module];
        let mut quantized = zklora_artifacts::module_quantizer::quantized(module, &job.inputs)?;
        quantized.delta = match pass {
            // The attacker does not have these deltas.
            Pass::Stolen(_) => vec![0; quantized.scales.len() * module.d_out],
            _ => self.artifacts.compute(job.module, &quantized),
        };
        let rows =
            EquationShape::of(module, &job.of_tokens).equations(module, &quantized, &self.seen);
        let fit = || {
            let missing = || {
                Error::input(format!(
                    "module `{}` was not called while rows were watched",
                    module.name
                ))
            };
            fits.get(job.module).ok_or_else(missing)
        };
        let deltas = match pass {
            Pass::Stolen(n) => fit()?.apply(*n, rows.x.view(), rows.y.as_ref().map(|y| y.view())),
            _ => rows.delta.clone(),
        };
        let distance = match pass {
            Pass::Compared(sizes) => {
                Some(Distance { deltas: squares(&rows.delta), errors: fit()?.errors(sizes, &rows) })
            }
            _ => None,
        };
        Ok(Done {
            deltas: deltas.into_iter().collect(),
            rows: (*pass == Pass::Watched).then_some(rows),
            distance,
        })
    }
}

impl Injector for Probe {
    fn inject(
        &self,
        call: &InjectionCall<'_>,
    ) -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error + Send + Sync>> {
        let (pass, fits) = {
            let state = self.state();
            (Arc::clone(&state.pass), Arc::clone(&state.fits))
        };
        if *pass == Pass::Base {
            return Ok(call.base.iter().map(|base| base.to_vec()).collect());
        }
        let dim =
            call.points.iter().find_map(|point| self.points[*point].injection.x_dim).unwrap_or(0);
        let one_hot = one_hot(call, dim);
        let jobs = self.jobs(call, &one_hot);
        let done: Vec<Done> = jobs
            .par_iter()
            .map(|job| self.answer(job, &pass, &fits))
            .collect::<Result<_, Error>>()?;
        let mut adapted: Vec<Vec<f32>> = call.base.iter().map(|base| base.to_vec()).collect();
        let mut state = self.state();
        for (job, done) in jobs.iter().zip(done) {
            let pairs = adapted[job.at].iter_mut().zip(&done.deltas);
            pairs.for_each(|(value, delta)| *value = (f64::from(*value) + delta) as f32);
            state.rows[job.module].extend(done.rows);
            done.distance.iter().for_each(|distance| state.distances[job.module].add(distance));
        }
        Ok(adapted)
    }
}
