//! The float model with the adapter: the manifest's integers as real numbers, added to a layer's
//! output.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use zklora_artifacts::folder::Artifacts;
use zklora_models::language_model::{Activations, InjectionCall, Injector};
use zklora_proof::manifest::TermKind;

use crate::infer::Point;

/// Adds the deltas of an adapter, or nothing while it is turned off.
pub(super) struct FloatAdapter {
    artifacts: Option<Arc<Artifacts>>,
    points: Vec<Point>,
    on: AtomicBool,
}

impl FloatAdapter {
    pub fn new(artifacts: Option<Arc<Artifacts>>, points: Vec<Point>) -> FloatAdapter {
        FloatAdapter { artifacts, points, on: AtomicBool::new(false) }
    }

    /// Turns the adapter on or off.
    pub fn turn(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Adds the deltas of a module to rows.
    fn add(artifacts: &Artifacts, at: usize, x: &[f32], dim: usize, out: &mut [f32]) {
        let modules = artifacts.manifest.modules();
        let module = &modules[at];
        let scale = module.output_scale();
        let mut pairs = artifacts.weights.of_module(modules, at).iter();
        for term in &module.terms {
            for pair in pairs.by_ref().take(term.rank) {
                let rows = x.chunks(dim).zip(out.chunks_mut(module.d_out));
                for (x, out) in rows {
                    let inner = match term.kind {
                        TermKind::LowRank => {
                            let terms = x.iter().zip(&pair.a);
                            terms.map(|(x, a)| f64::from(*x) * f64::from(*a)).sum()
                        }
                        _ => f64::from(term.shift).exp2(),
                    };
                    for (out, b) in out.iter_mut().zip(&pair.b) {
                        *out = (f64::from(*out) + inner * f64::from(*b) * scale) as f32;
                    }
                }
            }
        }
    }
}

impl Injector for FloatAdapter {
    fn inject(
        &self,
        call: &InjectionCall<'_>,
    ) -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error + Send + Sync>> {
        let mut adapted: Vec<Vec<f32>> = call.base.iter().map(|base| base.to_vec()).collect();
        let on = self.on.load(Ordering::Relaxed);
        let (Some(artifacts), Activations::Dense { values, dim }, true) =
            (&self.artifacts, call.x, on)
        else {
            return Ok(adapted);
        };
        for (point, out) in call.points.iter().zip(&mut adapted) {
            for module in &self.points[*point].modules {
                FloatAdapter::add(artifacts, module.module, values, dim, out);
            }
        }
        Ok(adapted)
    }
}
