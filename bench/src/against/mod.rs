//! The native proof and EZKL on the same module, rows and machine: `zklora bench --against ezkl`.

mod adapter;
mod ezkl_side;
mod measure;
mod native_side;
mod page;

use std::path::Path;

pub use adapter::{Shape, synthetic_adapter};
pub use page::page;
use serde::Serialize;
use zklora_artifacts::{activations::Activations, synthetic};
use zklora_ezkl::{Python, circuit_options::CircuitOptions};
use zklora_files::Access;

use crate::Error;

/// The stages, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// PEFT folder to ONNX.
    Export,
    /// Choice of scales and of the circuit.
    Settings,
    /// Keys (and, for the native proof, the commitment to the weights).
    Setup,
    /// Deltas of all rows.
    Witness,
    /// Proofs of all rows.
    Prove,
    /// Verification of all rows.
    Verify,
}

impl Stage {
    /// All of them.
    pub const ALL: [Stage; 6] =
        [Stage::Export, Stage::Settings, Stage::Setup, Stage::Witness, Stage::Prove, Stage::Verify];

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Export => "export",
            Stage::Settings => "settings",
            Stage::Setup => "setup",
            Stage::Witness => "witness",
            Stage::Prove => "prove",
            Stage::Verify => "verify",
        }
    }
}

/// What a stage took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Wall time, in seconds.
    pub seconds: f64,
    /// Processor time of all threads, in seconds.
    pub cpu_seconds: f64,
    /// Largest memory of the process during the stage, in bytes, where the system tells.
    pub peak_bytes: Option<u64>,
}

/// How a stage ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// At its end.
    Done(Figures),
    /// The system has no such stage; its work is part of the next.
    InNext,
    /// It hit a limit or failed: why.
    Stopped(String),
    /// A stage before it did not end.
    NotRun,
}

impl Outcome {
    /// Its figures, if it ended.
    pub fn figures(&self) -> Option<&Figures> {
        if let Outcome::Done(figures) = self { Some(figures) } else { None }
    }
}

/// Errors of the deltas, relative to the float adapter's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Accuracy {
    /// `√(Σ (delta − float)² / Σ float²)`.
    pub relative_rms: f64,
    /// The largest difference, relative to the root mean square of the float deltas.
    pub largest: f64,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// Name and version.
    pub name: String,
    /// Every stage.
    pub stages: Vec<(Stage, Outcome)>,
    /// What users get before the session, without the SRS, in bytes.
    pub public_bytes: u64,
    /// What the contributor keeps, in bytes.
    pub private_bytes: u64,
    /// All proofs of the session, in bytes.
    pub proof_bytes: Option<u64>,
    /// How far the deltas are from the float adapter's.
    pub accuracy: Option<Accuracy>,
    /// log₂ of the circuit's rows.
    pub logrows: Option<u32>,
}

impl Side {
    fn new(name: String) -> Side {
        let stages = Stage::ALL.map(|stage| (stage, Outcome::NotRun)).to_vec();
        let (public_bytes, private_bytes) = (0, 0);
        Side {
            name,
            stages,
            public_bytes,
            private_bytes,
            proof_bytes: None,
            accuracy: None,
            logrows: None,
        }
    }

    fn set(&mut self, stage: Stage, outcome: Outcome) {
        self.stages
            .iter_mut()
            .filter(|(own, _)| *own == stage)
            .for_each(|(_, own)| *own = outcome.clone());
    }

    /// How a stage ended.
    pub fn stage(&self, stage: Stage) -> &Outcome {
        self.stages
            .iter()
            .find(|(own, _)| *own == stage)
            .map_or(&Outcome::NotRun, |(_, outcome)| outcome)
    }

    /// Wall time of all stages that ended, if all did.
    pub fn seconds(&self) -> Option<f64> {
        self.stages
            .iter()
            .map(|(_, outcome)| match outcome {
                Outcome::InNext => Some(0.0),
                other => other.figures().map(|figures| figures.seconds),
            })
            .sum()
    }

    /// Largest memory of any stage, in bytes.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.stages.iter().filter_map(|(_, outcome)| outcome.figures()?.peak_bytes).max()
    }
}

/// How many times as much EZKL takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    /// Of what.
    pub what: String,
    /// EZKL's figure over the native proof's.
    pub ratio: f64,
}

/// Both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The module's name and shape.
    pub module: String,
    /// Rows of the session.
    pub rows: usize,
    /// Cores of the machine.
    pub cores: usize,
    /// Limit of each stage, in seconds.
    pub limit_seconds: f64,
    /// How EZKL's circuit was made.
    pub circuit: CircuitOptions,
    /// The native proof.
    pub native: Side,
    /// EZKL.
    pub ezkl: Side,
    /// Making EZKL's insecure SRS, in seconds; no stage, for one is used for many circuits.
    pub ezkl_srs_seconds: Option<f64>,
    /// Ratios of what both ended.
    pub ratios: Vec<Ratio>,
}

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
    /// EZKL's SRS file; none: EZKL makes an insecure one, which is as fast.
    pub ezkl_srs: Option<&'a Path>,
    /// A ceremony file for the native proof.
    pub srs: Option<&'a Path>,
}

/// Runs both. A stage that fails or hits a limit ends its side, and is reported; what is wrong with
/// the input is an error.
pub fn compare(
    options: &Options<'_>,
    python: &Python,
    progress: &mut dyn FnMut(&str),
) -> Result<Comparison, Error> {
    let scratch = zklora_files::scratch()?;
    let adapter = zklora_models::Adapter::load_with_base(options.adapter, options.base)?;
    let Some(module) = adapter.modules.iter().find(|module| module.name == options.module) else {
        let names: Vec<&str> = adapter.modules.iter().map(|m| m.name.as_str()).take(8).collect();
        return Err(Error::input(format!(
            "the adapter has no module `{}`; it has {}",
            options.module,
            names.join(", ")
        )));
    };
    // Missing packages are an error of the user's, not a stage that failed.
    drop(zklora_ezkl::child::Ezkl::start(python, scratch.path())?);
    zklora_files::create_folder(&scratch.path().join("onnx"), Access::Private)?;
    let mut run = Run { options, python, folder: scratch.path(), adapter: &adapter, progress };
    let rows = run.activations(module);
    let native = native_side::run(&mut run, &rows)?;
    let (ezkl, ezkl_srs_seconds) = ezkl_side::run(&mut run, &native.1, &rows)?;
    let native = native.0;
    let ratios = ratios(&native, &ezkl);
    Ok(Comparison {
        module: format!("{} {}", module.name, shape(module)),
        rows: options.rows,
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        limit_seconds: python.timeout.as_secs_f64(),
        circuit: options.circuit.clone(),
        native,
        ezkl,
        ezkl_srs_seconds,
        ratios,
    })
}

fn shape(module: &zklora_models::AdapterModule) -> String {
    let dims: usize = module.inputs.iter().map(|input| input.dim).sum();
    format!("{dims}→{}", module.d_out)
}

struct Run<'a> {
    options: &'a Options<'a>,
    python: &'a Python,
    folder: &'a Path,
    adapter: &'a zklora_models::Adapter,
    progress: &'a mut dyn FnMut(&str),
}

impl Run<'_> {
    fn activations(&self, module: &zklora_models::AdapterModule) -> Activations {
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

    fn accuracy(&self, deltas: &[f64], rows: &Activations) -> Option<Accuracy> {
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

fn ratios(native: &Side, ezkl: &Side) -> Vec<Ratio> {
    let mut out = Vec::new();
    let mut add = |what: String, native: Option<f64>, ezkl: Option<f64>| {
        if let (Some(native), Some(ezkl)) = (native, ezkl)
            && native > 0.0
        {
            out.push(Ratio { what, ratio: ezkl / native });
        }
    };
    for stage in Stage::ALL {
        let seconds = |side: &Side| side.stage(stage).figures().map(|figures| figures.seconds);
        add(format!("{}, wall time", stage.name()), seconds(native), seconds(ezkl));
    }
    add("all stages, wall time".into(), native.seconds(), ezkl.seconds());
    let bytes = |count: Option<u64>| count.map(|count| count as f64);
    add("peak memory".into(), bytes(native.peak_bytes()), bytes(ezkl.peak_bytes()));
    add("proofs, bytes".into(), bytes(native.proof_bytes), bytes(ezkl.proof_bytes));
    let ended = |side: &Side, bytes: u64| side.stage(Stage::Setup).figures().map(|_| bytes as f64);
    add(
        "public files, bytes".into(),
        ended(native, native.public_bytes),
        ended(ezkl, ezkl.public_bytes),
    );
    add(
        "private files, bytes".into(),
        ended(native, native.private_bytes),
        ended(ezkl, ezkl.private_bytes),
    );
    let rms = |side: &Side| side.accuracy.map(|accuracy| accuracy.relative_rms);
    add("relative RMS error".into(), rms(native), rms(ezkl));
    out
}
