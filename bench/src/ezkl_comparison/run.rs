//! The input of a comparison, and the float adapter that deltas are compared with.

use std::path::Path;

use zklora_artifacts::{activations::Activations, synthetic};
use zklora_ezkl::{Python, circuit_options::CircuitOptions};

use super::comparison::Accuracy;

/// What to compare on.
pub struct Options<'a> {
    /// PEFT folder.
    pub adapter: &'a Path,
    /// The base model's folder, if the adapter needs it.
    pub base: Option<&'a Path>,
    /// Which module of it.
    pub module: &'a str,
    /// Rows of the session.
    pub rows: usize,
    /// How EZKL makes its circuit.
    pub circuit: CircuitOptions,
    /// EZKL's SRS file. `None` lets EZKL make an insecure one, which is as fast.
    pub ezkl_srs: Option<&'a Path>,
    /// A ceremony file for the native proof.
    pub srs: Option<&'a Path>,
}

/// What both systems run with.
pub(super) struct Run<'a> {
    pub options: &'a Options<'a>,
    pub python: &'a Python,
    pub folder: &'a Path,
    pub adapter: &'a zklora_models::Adapter,
    pub progress: &'a mut dyn FnMut(&str),
}

impl Run<'_> {
    pub fn activations(&self, module: &zklora_models::AdapterModule) -> Activations {
        let inputs = module
            .inputs
            .iter()
            .map(|i| zklora_proof::manifest::Input { dim: i.dim, name: i.name.clone() });
        let shape = zklora_ezkl::interface::Interface {
            inputs: inputs.collect(),
            symbols: Default::default(),
        };
        synthetic::activations(
            &[zklora_ezkl::compile::shape_of(&module.name, &shape)],
            self.options.rows,
        )
    }

    /// The float adapter's deltas.
    fn float(&self, rows: &Activations) -> Vec<f64> {
        let module = self.adapter.modules.iter().find(|module| module.name == self.options.module);
        let inputs = rows.modules.get(self.options.module);
        match (module, inputs) {
            (Some(module), Some(inputs)) => {
                module.delta(&inputs.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }
            _ => Vec::new(),
        }
    }

    pub fn accuracy(&self, deltas: &[f64], rows: &Activations) -> Option<Accuracy> {
        let float = self.float(rows);
        let energy: f64 = float.iter().map(|f| f * f).sum();
        if energy <= 0.0 || float.len() != deltas.len() {
            return None;
        }
        let differences = deltas.iter().zip(&float).map(|(d, f)| d - f);
        let error: f64 = differences.clone().map(|d| d * d).sum();
        let largest = differences.fold(0.0f64, |largest, d| largest.max(d.abs()));
        let rms = (energy / float.len() as f64).sqrt();
        Some(Accuracy { relative_rms: (error / energy).sqrt(), largest: largest / rms })
    }
}
